"""The detect_drift component."""

from kfp_bento.components.detect_drift.component import detect_drift

__all__ = ["detect_drift"]
