"""The bentos that most tests of this stop deploy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from releases import render_bento_deployment
from sample_bentos import IMAGE, make_bento
from stub_api_server import ApiServer, serve_api, write_kubeconfig

from kfp_bento.runtime.bentos import Bento


@pytest.fixture
def image() -> str:
    return IMAGE


@pytest.fixture
def manifests() -> list[dict[str, Any]]:
    return render_bento_deployment(IMAGE, make_bento(), namespace="serving")


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    """A stub of an API server that knows Yatai's kinds, and is the one that is configured."""
    with serve_api(ApiServer()) as server:
        config = write_kubeconfig(tmp_path / "kubeconfig", server.url)
        monkeypatch.setenv("KUBECONFIG", str(config))
        yield server


@pytest.fixture
def bento() -> Bento:
    return make_bento()


@pytest.fixture
def old_style_bento() -> Bento:
    """What BentoML 1.1 and before built: runners of their own."""
    runners = (
        {
            "name": "model-a",
            "runnable_type": "MLflowPyfuncRunnable",
            "models": ["model_a:v1"],
            "embedded": False,
        },
        {"name": "model-b", "runnable_type": "SklearnRunnable", "models": []},
    )
    return make_bento("fraud_detection", "v1", bentoml_version="1.1.11", runners=runners)
