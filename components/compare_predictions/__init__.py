"""The compare_predictions component."""

from .component import compare_predictions

__all__ = ["compare_predictions"]
