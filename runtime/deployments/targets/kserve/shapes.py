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
from kfp_bento.runtime.deployments.options.names import image_problem, split_url
from kfp_bento.runtime.deployments.options.options import choice
from kfp_bento.runtime.deployments.options.pod_settings import container_env
from kfp_bento.runtime.deployments.options.pods import RESERVED_ENVS as RESERVED_IN_PODS
from kfp_bento.runtime.deployments.options.pods import env_sources
from kfp_bento.runtime.deployments.options.provenance import PROVENANCE
from kfp_bento.runtime.deployments.targets.kserve.watch import (
    CONTAINER,
    KNATIVE_MODES,
    MODE,
    STANDARD_MODES,
)
from kfp_bento.runtime.deployments.targets.network_policy import policy_shape
from kfp_bento.runtime.deployments.targets.pod_shapes import (
    RESOURCES,
    annotations_shape,
    container_shape,
    labels_shape,
    object_shape,
    pod_annotations_shape,
    pod_fields_of_a_runtime,
    pod_shape,
)
from kfp_bento.runtime.deployments.targets.target import first_of_kind
from kfp_bento.runtime.errors import InvalidInput

PROTOCOL = "kfp-bento/protocol"
FACTS_SUFFIX = "-kfp-bento"
PROTOCOLS = ("bentoml", "v1", "v2")
AUTOSCALER_CLASS = "serving.kserve.io/autoscalerClass"

RESERVED_LABELS = (
    "app",
    "component",
    "serving.kserve.io/",
    "serving.knative.dev/",
    "yatai.ai/",
    "pod-template-hash",
)
RESERVED_ENVS = {
    "STORAGE_URI": "makes KServe download a model into the pod, which our image has inside",
    "PROTOCOL": "is set by the option protocol",
    "MULTI_MODEL_SERVER": "belongs to KServe",
}
_STORAGE = (
    "s3",
    "gs",
    "hf",
    "http",
    "https",
    "pvc",
    "oci",
    "abfs",
    "azure",
    "hdfs",
    "webhdfs",
    "modelscope",
    "file",
)
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


def check_storage(field: str, uri: str) -> None:
    """Refuse an address that KServe downloads no model from.

    Raises:
        InvalidInput: Its scheme is unknown, or it holds credentials.
    """
    scheme = uri.partition("://")[0]
    if "://" not in uri or scheme not in _STORAGE:
        raise InvalidInput(
            f"{field}: {uri!r} has no scheme that KServe downloads from.",
            hint=f"One of {', '.join(f'{one}://' for one in _STORAGE)}.",
        )
    if "@" in split_url(field, uri).netloc and scheme in ("http", "https"):
        raise InvalidInput(
            f"{field}: it holds a user name or a password.",
            hint="Put credentials into a Secret of the service account.",
        )


def check_logger(field: str, given: Mapping[str, str]) -> None:
    """Refuse a receiver of requests that is no http URL.

    Raises:
        InvalidInput: The mode is unknown, or the URL is none or holds credentials.
    """
    choice(f"{field}.mode", given.get("mode", "all"), ("all", "request", "response"))
    parts = split_url(f"{field}.url", given.get("url", ""))
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.username:
        raise InvalidInput(
            f"{field}.url: it is no http URL of a receiver (or holds credentials).",
            hint="Write http://collector.namespace.svc/.",
        )


def misplaced_annotations(*, standard: bool) -> dict[str, str]:
    """Give the annotations that nothing reads on an InferenceService, or an option sets.

    Args:
        standard: Whether KServe makes Deployments itself, without Knative.
    """
    misplaced = {
        MODE: "Use mode=....",
        AUTOSCALER_CLASS: "Use autoscaling=....",
        "yatai.ai/": "Yatai's operators read it on a BentoDeployment or BentoRequest only.",
    }
    if standard:
        misplaced["autoscaling.knative.dev/"] = "Only Knative reads it: use mode Knative."
    return misplaced


def _check_annotations(field: str, given: Mapping[str, str]) -> None:
    choice(f"{field}[{MODE}]", given.get(MODE, ""), STANDARD_MODES + KNATIVE_MODES)
    choice(f"{field}[{AUTOSCALER_CLASS}]", given.get(AUTOSCALER_CLASS, "hpa"), ("hpa",))


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
        reserved={**RESERVED_IN_PODS, **RESERVED_ENVS},
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
