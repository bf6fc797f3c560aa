"""The build_bento component."""

from kfp_bento.components.build_bento.component import build_bento

__all__ = ["build_bento"]
