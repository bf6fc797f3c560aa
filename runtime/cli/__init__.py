"""The kfp-bento command: a thin face over the same functions that the components call."""

from .application import main

__all__ = ["main"]
