"""The compare_predictions component."""

from kfp_bento.components.compare_predictions.component import compare_predictions

__all__ = ["compare_predictions"]
