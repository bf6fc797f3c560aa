"""One folder of environments and layers for all packages of a run of the tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="module", autouse=True)
def cache(shared_cache: Path) -> Iterator[Path]:
    """Where environments and layers are kept; workers share it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KFP_BENTO_CACHE", str(shared_cache))
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        yield shared_cache
