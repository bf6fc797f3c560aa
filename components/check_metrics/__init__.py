"""The check_metrics component."""

from kfp_bento.components.check_metrics.component import check_metrics

__all__ = ["check_metrics"]
