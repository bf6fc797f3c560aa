"""The kfp-bento command: a thin face over the same functions that the components call."""

from kfp_bento.runtime.cli.application import main

__all__ = ["main"]
