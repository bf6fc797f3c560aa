"""The build_bento component."""

from .component import build_bento

__all__ = ["build_bento"]
