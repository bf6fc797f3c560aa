"""The import_bento component."""

from kfp_bento.components.import_bento.component import import_bento

__all__ = ["import_bento"]
