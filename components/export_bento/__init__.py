"""The export_bento component."""

from kfp_bento.components.export_bento.component import export_bento

__all__ = ["export_bento"]
