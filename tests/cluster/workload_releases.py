"""Releases of the tests: a plain Deployment with its Service, and Yatai's pair."""

from __future__ import annotations

from typing import Any

from releases import render_bento_deployment
from sample_bentos import make_bento

FIRST = "registry.example.com/wine@sha256:" + "a1" * 32
SECOND = "registry.example.com/wine@sha256:" + "b2" * 32
THIRD = "registry.example.com/wine@sha256:" + "c3" * 32


def workload(
    namespace: str, image: str = FIRST, *, name: str = "wine", replicas: int = 1, **changes: Any
) -> list[dict[str, Any]]:
    labels = {"app": name}
    container = {"name": "main", "image": image, **changes.pop("container", {})}
    metadata = {"name": name, "namespace": namespace}
    return [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": metadata,
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {"containers": [container]},
                },
                **changes,
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"selector": labels, "ports": [{"name": "http", "port": 3000}]},
        },
    ]


def yatai_pair(
    namespace: str, image: str = FIRST, *, version: str = "v1", runners: int = 0, **options: Any
) -> list[dict[str, Any]]:
    names = [
        {"name": f"model-{index}", "runnable_type": "Sklearn", "models": []}
        for index in range(runners)
    ]
    bento = make_bento(
        "wine", version, bentoml_version="1.1.11" if runners else "1.4.39", runners=tuple(names)
    )
    return render_bento_deployment(image, bento, namespace=namespace, **options)
