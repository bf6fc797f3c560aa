"""The check_and_promote component."""

from kfp_bento.components.check_and_promote.component import check_and_promote

__all__ = ["check_and_promote"]
