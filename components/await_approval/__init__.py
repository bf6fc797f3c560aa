"""The await_approval component."""

from kfp_bento.components.await_approval.component import await_approval

__all__ = ["await_approval"]
