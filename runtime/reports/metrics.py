"""Numbers that Kubeflow Pipelines shows and compares between runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kfp_bento.runtime.checks import CheckReport
    from kfp_bento.runtime.deployments import Deployed, Rollout
    from kfp_bento.runtime.images import Image
    from kfp_bento.runtime.scan import ScanReport

_ORIGINS = ("base", "built", "reused")
_CHANGES = ("created", "changed", "unchanged")


def image_metrics(image: Image) -> dict[str, float]:
    """Give bytes and number of layers, in all and by origin (base, built, reused)."""
    metrics = {"bytes": float(image.size), "layers": float(len(image.layers))}
    for origin in _ORIGINS:
        sizes = [layer.size for layer in image.layers if layer.origin == origin]
        metrics |= {f"bytes_{origin}": float(sum(sizes)), f"layers_{origin}": float(len(sizes))}
    return metrics


def check_metrics(report: CheckReport | ScanReport) -> dict[str, float]:
    """Give the measures of a check or scan, and `passed` as 1 or 0."""
    return {**report.measures, "passed": float(report.passed)}


def release_metrics(deployed: Deployed) -> dict[str, float]:
    """Give how long a release took to serve, what it changed, and whether it was rolled back.

    Returns:
        `seconds_to_serve` only where the release was waited for and serves; numbers of objects,
        rendered and by what happened to them; `failed` and `rolled_back` as 1 or 0.
    """
    rollout = deployed.rollout
    served = deployed.waited and rollout is not None and rollout.verdict.ready
    return {
        **({"seconds_to_serve": round(deployed.seconds, 1)} if served else {}),
        "objects_rendered": float(len(deployed.files)),
        **_object_metrics(rollout),
        "failed": float(deployed.failed),
        "rolled_back": float(bool(rollout and rollout.rolled_back_to)),
    }


def roll_back_metrics(rollout: Rollout) -> dict[str, float]:
    """Give what a roll back changed, and `failed` as 1 or 0."""
    return {**_object_metrics(rollout), "failed": float(not rollout.verdict.ready)}


def _object_metrics(rollout: Rollout | None) -> dict[str, float]:
    changes = [str(entry.change) for entry in rollout.applied] if rollout else []
    counts = {f"objects_{name}": float(changes.count(name)) for name in _CHANGES}
    return {**counts, "objects_removed": float(len(rollout.removed) if rollout else 0)}
