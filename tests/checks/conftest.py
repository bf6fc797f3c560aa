"""One really served bento for all checks, and a model that needs no training."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from checked_models import make_model
from servers import free_port, running

from kfp_bento.runtime.models import ModelVersion


@pytest.fixture
def model(tmp_path: Path) -> ModelVersion:
    """Two rows in, two integers out."""
    return make_model(tmp_path / "model")


@pytest.fixture(scope="session")
def served_wine(
    wine_model: ModelVersion, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The URL of the wine model's generated bento, served by BentoML itself."""
    from kfp_bento.runtime.bentos import build_bento

    folder = tmp_path_factory.mktemp("served")
    bento = build_bento([wine_model], folder / "bento")
    url = f"http://127.0.0.1:{free_port()}"
    host, port = url.removeprefix("http://").split(":")
    command = [sys.executable, "-m", "bentoml", "serve", ".", "--host", host, "--port", port]
    command += ["--working-dir", str(bento.directory)]
    environment = {"BENTOML_HOME": str(folder / "home"), "BENTOML_DO_NOT_TRACK": "true"}
    with running(command, f"{url}/readyz", folder / "log", **environment):
        yield url
