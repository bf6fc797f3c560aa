"""The roll_back component."""

from .component import roll_back

__all__ = ["roll_back"]
