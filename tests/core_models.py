"""Kubernetes' own kinds, checked by the Python client's models: no unknown key, no wrong type."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

MODELS = {
    ("v1", "Service"): "V1Service",
    ("v1", "ConfigMap"): "V1ConfigMap",
    ("v1", "ServiceAccount"): "V1ServiceAccount",
    ("apps/v1", "Deployment"): "V1Deployment",
    ("rbac.authorization.k8s.io/v1", "Role"): "V1Role",
    ("rbac.authorization.k8s.io/v1", "RoleBinding"): "V1RoleBinding",
    ("autoscaling/v2", "HorizontalPodAutoscaler"): "V2HorizontalPodAutoscaler",
    ("policy/v1", "PodDisruptionBudget"): "V1PodDisruptionBudget",
}
_SCALARS = {"str": str, "int": int, "bool": bool, "float": float}


def model_problems(manifest: dict[str, Any]) -> list[str]:
    """Give what the client's model of the kind does not know or types otherwise."""
    from kubernetes import client

    name = MODELS[(manifest["apiVersion"], manifest["kind"])]
    if not hasattr(getattr(client, name), "openapi_types"):
        pytest.skip("this kubernetes client does not publish the types of its models")
    return list(_problems(manifest, name, ""))


def _problems(value: Any, wanted: str, path: str) -> Iterator[str]:
    from kubernetes import client

    if match := re.fullmatch(r"list\[(.*)\]", wanted):
        if not isinstance(value, list):
            yield f"{path} is no list"
            return
        for index, item in enumerate(value):
            yield from _problems(item, match[1], f"{path}[{index}]")
    elif match := re.fullmatch(r"dict\(str, (.*)\)", wanted):
        for key, item in value.items():
            yield from _problems(item, match[1], f"{path}.{key}")
    elif wanted in _SCALARS:
        if type(value) is not _SCALARS[wanted]:
            yield f"{path}: {value!r} is no {wanted}"
    elif wanted != "object":
        model = getattr(client, wanted)
        known = {model.attribute_map[name]: kind for name, kind in model.openapi_types.items()}
        for key, item in value.items():
            if key not in known:
                yield f"{path}.{key} is unknown"
            else:
                yield from _problems(item, known[key], f"{path}.{key}")
