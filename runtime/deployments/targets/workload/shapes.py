"""Shapes of what the target `workload` takes, and of all that it renders."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kfp_bento.runtime.deployments.kube.shapes import (
    Also,
    Exactly,
    Fields,
    Items,
    Shape,
    Value,
)
from kfp_bento.runtime.deployments.options.core_shapes import (
    COUNT,
    LABEL_SELECTOR,
    NUMBER_OR_TEXT,
    TEXT,
    one_of,
)
from kfp_bento.runtime.deployments.options.names import (
    deployment_name_problem,
    host_problem,
    label_name_problem,
    resource_name_problem,
)
from kfp_bento.runtime.deployments.options.pod_settings import (
    NO_OPERATOR,
    POD_ANNOTATIONS,
    RESERVED_ENVS,
)
from kfp_bento.runtime.deployments.options.pods import PORT
from kfp_bento.runtime.deployments.release.apply import CANARY, COMPONENT_LABEL
from kfp_bento.runtime.deployments.targets.pod_shapes import (
    annotations_shape,
    container_shape,
    labels_shape,
    object_shape,
    pod_annotations_shape,
    pod_shape,
    policy_shape,
)
from kfp_bento.runtime.deployments.targets.workload.options import (
    CANARY_SUFFIX,
    RESERVED_LABELS,
    path_problem,
)
from kfp_bento.runtime.errors import InvalidInput

CONTAINER = "bento"
MANAGER = "kfp-bento"

SCRAPED = ("prometheus.io/scrape", "prometheus.io/port", "prometheus.io/path")
# Endpoints forget a pod a moment after it is told to stop.
LIFECYCLE: Mapping[str, Any] = {"preStop": {"exec": {"command": ["sleep", "5"]}}}
SERVICE_PORT: Mapping[str, Any] = {
    "name": "http",
    "port": PORT,
    "protocol": "TCP",
    "targetPort": "http",
}
_STRATEGY = Fields(
    {
        "type": one_of("RollingUpdate", "Recreate"),
        "rollingUpdate": Fields({"maxSurge": NUMBER_OR_TEXT, "maxUnavailable": NUMBER_OR_TEXT}),
    },
    frozenset({"type"}),
)
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


def selector_of(release: str, component: str) -> dict[str, str]:
    """Give what never changes: a Deployment's selector is immutable."""
    return {COMPONENT_LABEL: component, **pods_of(release)}


def pods_of(release: str) -> dict[str, str]:
    """Give the labels of all pods of a release, its canary's too."""
    return {"app.kubernetes.io/instance": release, "app.kubernetes.io/managed-by": MANAGER}


def workload_shapes(
    name: str, manifests: Sequence[Mapping[str, Any]]
) -> dict[tuple[str, str], Shape]:
    """Give the shape of each object that may be rendered for a release, by kind and name."""
    del manifests
    server = _metadata(name, "server")
    shapes: dict[tuple[str, str], Shape] = {
        ("HorizontalPodAutoscaler", name): object_shape(server, _autoscaler(name)),
        ("PodDisruptionBudget", name): object_shape(server, _budget(name)),
        ("ServiceMonitor", name): object_shape(_metadata(name, "server"), _monitor(name)),
        ("HTTPRoute", name): object_shape(server, _route(name)),
        ("NetworkPolicy", name): policy_shape(server, pods_of(name)),
    }
    for component, own in (("server", name), (CANARY, f"{name}{CANARY_SUFFIX}")):
        metadata = _metadata(name, component)
        shapes["Deployment", own] = object_shape(metadata, _deployment(name, component))
        shapes["Service", own] = object_shape(metadata, _service(name, component))
    return shapes


def _metadata(name: str, component: str) -> dict[str, Shape]:
    facts = ("app.kubernetes.io/name", "app.kubernetes.io/version")
    return {
        "labels": labels_shape(RESERVED_LABELS, selector_of(name, component), facts),
        "annotations": annotations_shape({**POD_ANNOTATIONS, **NO_OPERATOR}),
    }


def _deployment(name: str, component: str) -> Fields:
    selector = selector_of(name, component)
    container = container_shape(
        CONTAINER,
        port_name="http",
        reserved=RESERVED_ENVS,
        more={"lifecycle": Exactly(dict(LIFECYCLE))},
    )
    template: dict[str, Shape] = {
        "metadata": Fields(
            {
                "labels": labels_shape(RESERVED_LABELS, selector),
                "annotations": pod_annotations_shape(SCRAPED),
            },
            frozenset({"labels", "annotations"}),
        ),
        "spec": pod_shape(container, security=True),
    }
    return Fields(
        {
            "selector": Exactly({"matchLabels": selector}),
            "strategy": _STRATEGY,
            "progressDeadlineSeconds": COUNT,
            "revisionHistoryLimit": COUNT,
            "replicas": COUNT,
            "template": Fields(template, frozenset(template)),
        },
        frozenset({"selector", "strategy", "template"}),
    )


def _service(name: str, component: str) -> Fields:
    fields: dict[str, Shape] = {
        "type": Exactly("ClusterIP"),
        "selector": Exactly(selector_of(name, component)),
        "ports": Exactly([dict(SERVICE_PORT)]),
    }
    return Fields(fields, frozenset(fields))


def _autoscaler(name: str) -> Fields:
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}
    return Fields(
        {
            "scaleTargetRef": Exactly(target),
            "minReplicas": COUNT,
            "maxReplicas": COUNT,
            "metrics": AUTOSCALER_METRICS,
            "behavior": BEHAVIOR,
        },
        frozenset({"scaleTargetRef", "minReplicas", "maxReplicas"}),
    )


def _budget(name: str) -> Fields:
    selector = Exactly({"matchLabels": selector_of(name, "server")})
    return Fields({**BUDGET_SHAPE.fields, "selector": selector}, frozenset({"selector"}))


def _monitor(name: str) -> Fields:
    endpoint = Fields(
        {"port": Exactly("http"), "path": Exactly("/metrics"), "interval": TEXT},
        frozenset({"port", "path"}),
    )
    fields: dict[str, Shape] = {
        # The canary's Service too: Prometheus tells them apart by the Service's name.
        "selector": Exactly({"matchLabels": pods_of(name)}),
        "endpoints": Items(endpoint, count=1),
    }
    return Fields(fields, frozenset(fields))


def _route(name: str) -> Fields:
    parent = Fields(
        {
            "name": Value(str, resource_name_problem),
            "namespace": Value(str, label_name_problem),
            "sectionName": TEXT,
        },
        frozenset({"name"}),
    )
    path = Fields(
        {"type": Exactly("PathPrefix"), "value": Value(str, path_problem)},
        frozenset({"type", "value"}),
    )
    backend = Fields(
        # No namespace: a backend is a Service of the release's own.
        {"name": Value(str, _backend_problem), "port": Exactly(PORT), "weight": COUNT},
        frozenset({"name", "port"}),
    )
    rule = Fields(
        {
            "matches": Items(Fields({"path": path}, frozenset({"path"})), count=1),
            "backendRefs": Also(Items(backend), _backends_check(name)),
            "timeouts": Fields({"request": TEXT}, frozenset({"request"})),
        },
        frozenset({"matches", "backendRefs"}),
    )
    return Fields(
        {
            "parentRefs": Items(parent, count=1),
            "hostnames": Items(Value(str, host_problem)),
            "rules": Items(rule, count=1),
        },
        frozenset({"parentRefs", "rules"}),
    )


def _backend_problem(name: str) -> str:
    return deployment_name_problem(name.removesuffix(CANARY_SUFFIX))


def _backends_check(release: str) -> Callable[[str, Sequence[Mapping[str, Any]]], None]:
    def check(field: str, given: Sequence[Mapping[str, Any]]) -> None:
        if release not in [one["name"] for one in given]:
            raise InvalidInput(f"{field} does not name {release}.")

    return check
