"""The collect_batch component."""

from kfp_bento.components.collect_batch.component import collect_batch

__all__ = ["collect_batch"]
