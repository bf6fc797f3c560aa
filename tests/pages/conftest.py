"""The world that pages are read in; what of it has a Kubernetes API server is marked `cluster`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "cluster"))

from world import World, world_in  # noqa: E402


@pytest.fixture(scope="session")
def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, shared_cache: Path
) -> Iterator[World]:
    """Everything that a page may ask."""
    folder = tmp_path_factory.mktemp("world")
    with world_in(folder, shared_cache, request.getfixturevalue) as made:
        yield made
