"""A real node below a real control plane for the tests of this folder, all marked `node`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.append(str(HERE.parent / "cluster"))

from cluster_fixtures import namespace as namespace  # noqa: E402
from control_plane import ToolsMissing, built_programs, tail  # noqa: E402
from endpoints import Built, built  # noqa: E402
from real_node import RealCluster, missing, real_cluster_in  # noqa: E402

from kfp_bento.runtime.images import ImageOptions  # noqa: E402
from kfp_bento.runtime.installation import STEPS_IMAGES, pack_steps_image  # noqa: E402


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.node)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> object:
    report = yield
    cluster = getattr(item, "funcargs", {}).get("cluster")
    if isinstance(cluster, RealCluster) and report.failed:
        for log in cluster.plane.logs():
            report.sections.append((f"end of {log}", tail(log)))
    return report


@pytest.fixture(scope="session")
def cluster(oci_registry: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealCluster]:
    """A running cluster, shared; skips, saying why, where it cannot be had."""
    if lacking := missing():
        pytest.skip(f"no real node: {lacking}")
    try:
        programs = built_programs("node")
    except ToolsMissing as lacking:
        pytest.skip(f"no real node: {lacking}")
    folder = tmp_path_factory.mktemp("cluster")
    with real_cluster_in(folder, programs, (oci_registry,)) as live:
        yield live


@pytest.fixture(scope="session")
def images(
    cluster: RealCluster, oci_registry: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[int, Built]]:
    """Services that multiply by 1 and by 2; the registry is one without TLS."""
    patch = pytest.MonkeyPatch()
    patch.setenv("KFP_BENTO_INSECURE_REGISTRIES", oci_registry)
    folder = tmp_path_factory.mktemp("built")
    yield {factor: built(factor, folder, oci_registry) for factor in (1, 2)}
    patch.undo()


@pytest.fixture(scope="session")
def runtime_image(cluster: RealCluster, oci_registry: str) -> str:
    """The image of the steps, as `kfp-bento install` makes it."""
    to = f"{oci_registry}/ml/runtime-python:0"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KFP_BENTO_INSECURE_REGISTRIES", oci_registry)
        pack_steps_image(STEPS_IMAGES["runtime"], to, ImageOptions(base="host"))
    return to
