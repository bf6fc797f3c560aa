"""The plan_batch component."""

from kfp_bento.components.plan_batch.component import plan_batch

__all__ = ["plan_batch"]
