"""The scan_model component."""

from kfp_bento.components.scan_model.component import scan_model

__all__ = ["scan_model"]
