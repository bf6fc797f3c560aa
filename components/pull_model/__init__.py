"""The pull_model component."""

from .component import pull_model

__all__ = ["pull_model"]
