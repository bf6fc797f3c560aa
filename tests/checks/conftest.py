"""One really served and proven bento for all checks."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from checked_models import make_golden
from servers import free_port, running

from kfp_bento.runtime.models import ModelVersion
from kfp_bento.runtime.proof import Golden


@pytest.fixture
def golden() -> Golden:
    """Two rows in, two integers out: zeros."""
    return make_golden()


@pytest.fixture(scope="session")
def served_wine(
    wine_model: ModelVersion, shared_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Golden]]:
    """The URL of the wine model's generated bento, served by BentoML itself, and its proof."""
    from kfp_bento.runtime.bentos import build_bento
    from kfp_bento.runtime.proof import golden_answers

    folder = tmp_path_factory.mktemp("served")
    bento = build_bento([wine_model], folder / "bento")
    url = f"http://127.0.0.1:{free_port()}"
    host, port = url.removeprefix("http://").split(":")
    command = [sys.executable, "-m", "bentoml", "serve", ".", "--host", host, "--port", port]
    command += ["--working-dir", str(bento.directory)]
    environment = {"BENTOML_HOME": str(folder / "home"), "BENTOML_DO_NOT_TRACK": "true"}
    environment["KFP_BENTO_REQUEST_LOG"] = str(folder / "requests.jsonl")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KFP_BENTO_CACHE", str(shared_cache))
        proven = golden_answers(bento, [wine_model])
    with running(command, f"{url}/readyz", folder / "log", **environment):
        yield url, proven
