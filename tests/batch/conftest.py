"""Bentos that are started once for all batches of a module."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from batch_bentos import kinds_bento, own_bento

from kfp_bento.runtime.batch import answers, running
from kfp_bento.runtime.batch.asking import Services, services
from kfp_bento.runtime.bentos import Bento
from kfp_bento.runtime.proof import locked_environment


@pytest.fixture(scope="module", autouse=True)
def cache(shared_cache: Path) -> Iterator[Path]:
    """Where environments are kept; workers and the tests of the proof share it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KFP_BENTO_CACHE", str(shared_cache))
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        yield shared_cache


@pytest.fixture(scope="session")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Bento:
    """A generated bento of a model that takes all types."""
    return kinds_bento(tmp_path_factory.mktemp("kinds"))


@pytest.fixture(scope="session")
def own(tmp_path_factory: pytest.TempPathFactory) -> Bento:
    """A bento with a service of its user's."""
    return own_bento(tmp_path_factory.mktemp("own"))


@pytest.fixture(scope="module")
def once_started(cache: Path) -> Iterator[list[int]]:
    """Start each bento once for all tests of a module; gives how many batches asked for one."""
    known: dict[str, Services] = {}
    asked = [0]
    with contextlib.ExitStack() as stack, pytest.MonkeyPatch.context() as patch:

        @contextlib.contextmanager
        def shared(
            bento: Bento, environment: Path, scratch: Path, count: int
        ) -> Iterator[Services]:
            asked[0] += 1
            if bento.digest not in known:
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="kfp-bento-"))
                made = stack.enter_context(locked_environment(bento))
                found = stack.enter_context(services(bento, made, Path(folder), 1))
                known[bento.digest] = found
            yield known[bento.digest]

        patch.setattr(running, "services", shared)
        patch.setattr(answers, "services", shared)
        yield asked
