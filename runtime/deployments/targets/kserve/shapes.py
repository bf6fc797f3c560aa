"""Shapes of what the target `inference-service` takes, and of all that it renders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kfp_bento.runtime.deployments.kube.shapes import Also, Exactly, Fields, Items, Shape, Value
from kfp_bento.runtime.deployments.options.core_shapes import (
    COUNT,
    ENV,
    ENV_FROM,
    NAME,
    TEXT,
    TEXTS,
    one_of,
)
from kfp_bento.runtime.deployments.options.names import image_problem
from kfp_bento.runtime.deployments.options.provenance import PROVENANCE
from kfp_bento.runtime.deployments.targets.kserve.options import (
    AUTOSCALER_CLASS,
    RESERVED_ENVS,
    RESERVED_LABELS,
    Logger,
    misplaced_annotations,
)
from kfp_bento.runtime.deployments.targets.kserve.rules import check_storage
from kfp_bento.runtime.deployments.targets.kserve.watch import (
    CONTAINER,
    KNATIVE_MODES,
    MODE,
    STANDARD_MODES,
)
from kfp_bento.runtime.deployments.targets.pod_shapes import (
    RESOURCES,
    annotations_shape,
    checked,
    container_env,
    container_shape,
    env_sources,
    labels_shape,
    object_shape,
    pod_annotations_shape,
    pod_fields_of_a_runtime,
    pod_shape,
    policy_shape,
)
from kfp_bento.runtime.deployments.targets.target import first_of_kind
from kfp_bento.runtime.errors import InvalidInput

PROTOCOL = "kfp-bento/protocol"
FACTS_SUFFIX = "-kfp-bento"

HEADERS = Fields({"mode": TEXT, "url": TEXT})

# Of a transformer or explainer, whose image has a user of its own.
SIDE_SECURITY: Mapping[str, Any] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}
_SCALING: Mapping[str, Shape] = {
    "minReplicas": COUNT,
    "maxReplicas": COUNT,
    "scaleTarget": COUNT,
    "scaleMetric": one_of("cpu", "memory", "concurrency", "rps"),
}


def inference_service_shapes(
    name: str, manifests: Sequence[Mapping[str, Any]]
) -> dict[tuple[str, str], Shape]:
    """Give the shape of each object that may be rendered for a release, by kind and name."""
    service = first_of_kind(manifests, "InferenceService") or {}
    annotations = (service.get("metadata") or {}).get("annotations") or {}
    standard = annotations.get(MODE) in STANDARD_MODES
    labels = labels_shape(RESERVED_LABELS, {})
    metadata: dict[str, Shape] = {
        "labels": labels,
        "annotations": Also(
            annotations_shape(misplaced_annotations(standard=standard), (MODE, AUTOSCALER_CLASS)),
            _check_annotations,
        ),
    }
    facts: dict[str, Shape] = {
        "labels": labels,
        "annotations": annotations_shape({}, (*PROVENANCE, PROTOCOL)),
    }
    return {
        ("InferenceService", name): object_shape(
            metadata, _spec(service.get("spec"), standard=standard)
        ),
        ("ConfigMap", f"{name}{FACTS_SUFFIX}"): object_shape(facts, None),
        ("NetworkPolicy", name): policy_shape(facts, pods_of(name)),
    }


def pods_of(name: str) -> dict[str, str]:
    """Give the label of all pods that KServe makes of an InferenceService."""
    return {"serving.kserve.io/inferenceservice": name}


def check_logger(field: str, given: Mapping[str, str]) -> None:
    """Refuse a receiver of requests that is no http URL."""
    checked(field, Logger, given)


def _check_annotations(field: str, given: Mapping[str, str]) -> None:
    if given.get(MODE, "") not in STANDARD_MODES + KNATIVE_MODES:
        raise InvalidInput(f"{field}[{MODE}]: {given.get(MODE)!r} is unknown.")
    if given.get(AUTOSCALER_CLASS, "hpa") != "hpa":
        raise InvalidInput(f"{field}[{AUTOSCALER_CLASS}] is not hpa.")


def _spec(spec: Any, *, standard: bool) -> Fields:
    stable = spec.get("predictor") if isinstance(spec, Mapping) else None
    stored = isinstance(stable, Mapping) and "model" in stable
    canary = Fields(
        {"trafficPercent": COUNT, "predictor": _stored(canary=True)},
        frozenset({"trafficPercent", "predictor"}),
    )
    return Fields(
        {
            "predictor": _stored() if stored else _served(standard=standard),
            "transformer": _side(),
            "explainer": _side(),
            "canary": Items(canary, count=1),
        },
        frozenset({"predictor"}),
    )


def _served(*, standard: bool) -> Shape:
    """Our image as a custom predictor."""
    said: dict[str, Shape] = {"name": Exactly("PROTOCOL"), "value": one_of("v1", "v2")}
    container = container_shape(
        CONTAINER,
        port_name="http1",
        reserved=RESERVED_ENVS,
        own_env={"PROTOCOL": Fields(said, frozenset(said))},
    )
    return pod_shape(container, security=standard, more=_component())


def _stored(*, canary: bool = False) -> Shape:
    """A stored model, which a runtime of KServe's serves."""
    model = Fields(
        {
            "name": Exactly(CONTAINER),
            "modelFormat": Fields({"name": TEXT, "version": TEXT}, frozenset({"name"})),
            "protocolVersion": one_of("v1", "v2"),
            "runtime": TEXT,
            "storageUri": Also(TEXT, check_storage),
            "env": Also(ENV, lambda field, given: container_env(field, given, {})),
            "envFrom": Also(ENV_FROM, env_sources),
            "resources": RESOURCES,
        },
        frozenset({"modelFormat", "storageUri"} | ({"name"} if canary else set())),
    )
    return Fields(
        {**pod_fields_of_a_runtime(), **_component(), "model": model}, frozenset({"model"})
    )


def _component() -> dict[str, Shape]:
    """What a predictor has besides its pod."""
    return {
        **_SCALING,
        "name": NAME,
        "timeout": COUNT,
        "containerConcurrency": COUNT,
        "canaryTrafficPercent": COUNT,
        "batcher": Fields({"maxBatchSize": COUNT, "maxLatency": COUNT, "timeout": COUNT}),
        "logger": Also(HEADERS, check_logger),
        "labels": labels_shape(RESERVED_LABELS, {}),
        "annotations": pod_annotations_shape(),
    }


def _side() -> Fields:
    port = Fields(
        {"name": Exactly("http1"), "containerPort": COUNT, "protocol": Exactly("TCP")},
        frozenset({"name", "containerPort", "protocol"}),
    )
    container = Fields(
        {
            "name": Exactly(CONTAINER),
            "image": Value(str, image_problem),
            "command": TEXTS,
            "args": TEXTS,
            "ports": Items(port, count=1),
            "env": Also(ENV, lambda field, given: container_env(field, given, {})),
            "envFrom": Also(ENV_FROM, env_sources),
            "resources": RESOURCES,
            "securityContext": Exactly(dict(SIDE_SECURITY)),
        },
        frozenset({"name", "image", "ports", "securityContext"}),
    )
    return Fields(
        {
            **_SCALING,
            "containers": Items(container, count=1),
            "serviceAccountName": NAME,
            "imagePullSecrets": Items(Fields({"name": NAME}, frozenset({"name"}))),
            "annotations": pod_annotations_shape(),
        },
        frozenset({"containers"}),
    )
