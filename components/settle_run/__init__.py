"""Settle what a run has left on trial."""

from kfp_bento.components.settle_run.component import settle_run

__all__ = ["settle_run"]
