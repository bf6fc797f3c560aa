"""How many pods of a workload there are, and how many may be away."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kfp_bento.runtime.deployments.options.options import without_empty
from kfp_bento.runtime.deployments.targets.workload.options import (
    Autoscaling,
    Metric,
    WorkloadOptions,
    source_of,
)
from kfp_bento.runtime.errors import InvalidInput

_CPU: Metric = {
    "type": "Resource",
    "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
}


def autoscaler_spec(
    name: str, scaling: Autoscaling, resources: Mapping[str, Any]
) -> dict[str, Any]:
    """Give the spec of the HorizontalPodAutoscaler of a Deployment.

    Args:
        name: Name of the Deployment.
        scaling: What the user chose.
        resources: Requests and limits of its pods.

    Raises:
        InvalidInput: A metric is a share of a request that there is not.
    """
    metrics = scaling.metrics or [_CPU]
    for index, metric in enumerate(metrics):
        _check_request(f"autoscaling.metrics[{index}]", metric, resources)
    spec = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
        "minReplicas": scaling.min_replicas,
        "maxReplicas": scaling.highest,
        "metrics": metrics,
        "behavior": scaling.behavior,
    }
    return without_empty(spec)


def budget_spec(options: WorkloadOptions, selector: Mapping[str, str]) -> dict[str, Any] | None:
    """Give the spec of the PodDisruptionBudget; None where there is none."""
    budget = options.disruption_budget.given()
    if not budget and options.autoscaling.min_replicas < 2:
        return None
    return {**(budget or {"maxUnavailable": 1}), "selector": {"matchLabels": dict(selector)}}


def _check_request(field: str, metric: Metric, resources: Mapping[str, Any]) -> None:
    key, source = source_of(metric)
    if source["target"]["type"] != "Utilization":
        return
    name = source["name"]
    if not any(name in resources.get(side, {}) for side in ("requests", "limits")):
        raise InvalidInput(
            f"{field}.{key}: a utilization of {name} is a share of resources.requests.{name}, "
            "which is missing; the autoscaler would never act.",
            hint=f"Set resources.requests.{name}.",
        )
