"""What the target `inference-service` takes, and what its objects have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kfp_bento.runtime.deployments.kube.shapes import Fields
from kfp_bento.runtime.deployments.options.core_shapes import (
    TEXT,
)
from kfp_bento.runtime.deployments.options.names import split_url
from kfp_bento.runtime.deployments.options.options import choice
from kfp_bento.runtime.deployments.targets.kserve.watch import (
    MODE,
)
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
