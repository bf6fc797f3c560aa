"""The pull_model component."""

from kfp_bento.components.pull_model.component import pull_model

__all__ = ["pull_model"]
