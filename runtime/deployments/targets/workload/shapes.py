"""Shapes of what the target `workload` takes, and what its objects have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kfp_bento.runtime.deployments.kube.shapes import (
    Fields,
    Items,
    Pairs,
)
from kfp_bento.runtime.deployments.options.core_shapes import (
    COUNT,
    LABEL_SELECTOR,
    NUMBER_OR_TEXT,
    TEXT,
    one_of,
)
from kfp_bento.runtime.deployments.options.pods import PORT

CONTAINER = "bento"
# Of two Deployments in one release, the second is the canary.
COMPONENT_LABEL, CANARY = "app.kubernetes.io/component", "canary"
CANARY_SUFFIX = "-canary"
MANAGER = "kfp-bento"

RESERVED_LABELS = ("app.kubernetes.io/", "pod-template-hash", "yatai.ai/")
SCRAPED = ("prometheus.io/scrape", "prometheus.io/port", "prometheus.io/path")
# Endpoints forget a pod a moment after it is told to stop.
LIFECYCLE: Mapping[str, Any] = {"preStop": {"exec": {"command": ["sleep", "5"]}}}
SERVICE_PORT: Mapping[str, Any] = {
    "name": "http",
    "port": PORT,
    "protocol": "TCP",
    "targetPort": "http",
}
STRATEGIES = ("RollingUpdate", "Recreate")
_TARGET = Fields(
    {
        "type": one_of("Utilization", "AverageValue", "Value"),
        "averageUtilization": COUNT,
        "averageValue": NUMBER_OR_TEXT,
        "value": NUMBER_OR_TEXT,
    },
    frozenset({"type"}),
)
_METRIC_NAME = Fields({"name": TEXT, "selector": LABEL_SELECTOR}, frozenset({"name"}))
_RESOURCE_NAME = one_of("cpu", "memory")
AUTOSCALER_METRICS = Items(
    Fields(
        {
            "type": one_of("Resource", "ContainerResource", "Pods", "Object", "External"),
            "resource": Fields(
                {"name": _RESOURCE_NAME, "target": _TARGET}, frozenset({"name", "target"})
            ),
            "containerResource": Fields(
                {"name": _RESOURCE_NAME, "container": TEXT, "target": _TARGET},
                frozenset({"name", "container", "target"}),
            ),
            "pods": Fields(
                {"metric": _METRIC_NAME, "target": _TARGET}, frozenset({"metric", "target"})
            ),
            "external": Fields(
                {"metric": _METRIC_NAME, "target": _TARGET}, frozenset({"metric", "target"})
            ),
            "object": Fields(
                {
                    "metric": _METRIC_NAME,
                    "target": _TARGET,
                    "describedObject": Fields(
                        {"apiVersion": TEXT, "kind": TEXT, "name": TEXT},
                        frozenset({"kind", "name"}),
                    ),
                },
                frozenset({"metric", "target", "describedObject"}),
            ),
        },
        frozenset({"type"}),
    )
)
_RULES = Fields(
    {
        "stabilizationWindowSeconds": COUNT,
        "selectPolicy": one_of("Max", "Min", "Disabled"),
        "policies": Items(
            Fields(
                {"type": one_of("Pods", "Percent"), "value": COUNT, "periodSeconds": COUNT},
                frozenset({"type", "value", "periodSeconds"}),
            )
        ),
    }
)
BEHAVIOR = Fields({"scaleUp": _RULES, "scaleDown": _RULES})
BUDGET_SHAPE = Fields({"minAvailable": NUMBER_OR_TEXT, "maxUnavailable": NUMBER_OR_TEXT})
SERVICE_MONITOR = Fields({"labels": Pairs(), "interval": TEXT})


def selector_of(release: str, component: str) -> dict[str, str]:
    """Give what never changes: a Deployment's selector is immutable."""
    return {COMPONENT_LABEL: component, **pods_of(release)}


def pods_of(release: str) -> dict[str, str]:
    """Give the labels of all pods of a release, its canary's too."""
    return {"app.kubernetes.io/instance": release, "app.kubernetes.io/managed-by": MANAGER}


def path_problem(path: str) -> str:
    """Say why a route cannot serve this path; empty when it can."""
    good = path.startswith("/") and "//" not in path and "?" not in path and "#" not in path
    return "" if good else "is no path"
