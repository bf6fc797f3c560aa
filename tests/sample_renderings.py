"""What is rendered for many bentos and options; every cluster has to accept all of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sample_bentos import make_bento, make_model

METRIC = {
    "type": "Resource",
    "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70.0}},
}
FULL: dict[str, Any] = {
    "name": "wine-live",
    "namespace": "serving",
    "resources": {
        "requests": {"cpu": 1.0, "memory": "512Mi"},
        "limits": {"cpu": "2", "memory": "1Gi", "gpu": 1.0, "custom": {"example.com/npu": 2}},
    },
    "autoscaling": {"minReplicas": 1.0, "maxReplicas": 4.0, "metrics": [METRIC]},
    "envs": [{"name": "THREADS", "value": 2.0}, {"name": "EMPTY", "value": ""}],
    "image_pull_secrets": ["regcred"],
    "labels": {"team": "wine"},
    "annotations": {
        "example.com/note": "Gr\u00fc\u00dfe",
        "yatai.ai/deployment-strategy": "Recreate",
    },
    "service_account": "model-server",
}
RUNNERS = [{"name": "model-a", "autoscaling": {"maxReplicas": 2}, "envs": {"A": "1"}}]


def every_rendering() -> Iterator[Any]:
    image = "registry.example.com/wine:1@sha256:" + "a1" * 32
    old = make_bento("fraud_detection", "v1", runners=({"name": "model-a"}, {"name": "b.2"}))
    two = make_bento(models=(make_model(), make_model(name="beer")))
    plain = make_bento(models=(), bentoml_version="")
    yield pytest.param(image, make_bento(), {}, id="defaults")
    yield pytest.param(image, make_bento(), FULL, id="everything")
    yield pytest.param(image, old, {}, id="runners")
    yield pytest.param(image, old, {**FULL, "runners": RUNNERS}, id="runners with overrides")
    yield pytest.param(image, two, {}, id="two models")
    yield pytest.param(image, plain, {}, id="no models")
    yield pytest.param(image, make_bento("x" * 63, "1" * 60), {}, id="long names")
