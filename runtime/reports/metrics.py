"""Numbers that Kubeflow Pipelines shows and compares between runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kfp_bento.runtime.checks import CheckReport
    from kfp_bento.runtime.images import Image

_ORIGINS = ("base", "built", "reused")


def image_metrics(image: Image) -> dict[str, float]:
    """Give bytes and number of layers, in all and by origin (base, built, reused)."""
    metrics = {"bytes": float(image.size), "layers": float(len(image.layers))}
    for origin in _ORIGINS:
        sizes = [layer.size for layer in image.layers if layer.origin == origin]
        metrics |= {f"bytes_{origin}": float(sum(sizes)), f"layers_{origin}": float(len(sizes))}
    return metrics


def check_metrics(report: CheckReport) -> dict[str, float]:
    """Give the measures of a check, and `passed` as 1 or 0."""
    return {**report.measures, "passed": float(report.passed)}
