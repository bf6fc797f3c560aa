"""The build_image component."""

from kfp_bento.components.build_image.component import build_image

__all__ = ["build_image"]
