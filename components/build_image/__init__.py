"""The build_image component."""

from .component import build_image

__all__ = ["build_image"]
