"""A real Kubernetes control plane for the tests of this folder, all marked `cluster`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_fixtures import namespace as namespace
from control_plane import ToolsMissing, built_programs, tail
from crd_sets import available
from live_cluster import LiveCluster, live_cluster_in
from pods_witness import witness

HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.cluster)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> object:
    report = yield
    cluster = getattr(item, "funcargs", {}).get("cluster")
    if isinstance(cluster, LiveCluster) and report.failed:
        for log in cluster.plane.logs():
            report.sections.append((f"end of {log}", tail(log)))
        if cluster.pods.troubles:
            report.sections.append(("what the nodes were refused", str(cluster.pods.troubles)))
    return report


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveCluster]:
    """A running cluster, shared; skips, saying why, where its programs cannot be had."""
    try:
        programs = built_programs()
    except ToolsMissing as missing:
        pytest.skip(f"no Kubernetes control plane: {missing}")
    with live_cluster_in(tmp_path_factory.mktemp("cluster"), programs) as live:
        yield live


@pytest.fixture(autouse=True)
def what_is_said_to_serve_serves(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whenever a release is said to serve, its pods are asked, in every test with a cluster."""
    if "cluster" not in request.fixturenames:
        yield
        return
    with witness(request.getfixturevalue("cluster").api) as wrong:
        yield
    assert not wrong


@pytest.fixture
def kubeconfig(cluster: LiveCluster, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The administrator's kubeconfig, set as this process's."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    return cluster.kubeconfig


@pytest.fixture(scope="module", params=available("yatai"))
def _each_yatai(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def yatai_generation(_each_yatai: str, cluster: LiveCluster) -> str:
    """Each generation of Yatai's CRDs, one after another; gives its name."""
    cluster.crds.ensure("yatai", _each_yatai)
    return _each_yatai


@pytest.fixture
def yatai(cluster: LiveCluster) -> str:
    """The newest generation of Yatai's CRDs that is here; gives its name."""
    return _newest(cluster, "yatai")


@pytest.fixture
def kserve(cluster: LiveCluster) -> str:
    """KServe's newest CRDs that are here; gives the name of their set."""
    return _newest(cluster, "kserve")


@pytest.fixture
def gateway_api(cluster: LiveCluster) -> str:
    """The Gateway API's newest CRDs that are here; gives the name of their set."""
    return _newest(cluster, "gateway-api")


@pytest.fixture
def monitoring(cluster: LiveCluster) -> str:
    """The Prometheus operator's newest CRDs that are here; gives the name of their set."""
    return _newest(cluster, "monitoring")


def _newest(cluster: LiveCluster, family: str) -> str:
    newest = available(family)[-1]
    cluster.crds.ensure(family, newest)
    return newest
