"""The roll_back component."""

from kfp_bento.components.roll_back.component import roll_back

__all__ = ["roll_back"]
