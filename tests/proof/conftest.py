"""One folder of environments for all proofs of a run of the tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="module", autouse=True)  # not longer: builders of images read it too
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where environments are kept; workers share it."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "proof-cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KFP_BENTO_CACHE", str(folder))
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        yield folder
