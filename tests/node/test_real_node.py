"""The node itself: what the other tests of this folder rely on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from real_node import PAUSE, RealCluster


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Path]:
    """The settings of the machine, past what the node is shown of them."""
    subprocess.run(["mount", "-t", "proc", "none", str(tmp_path)], check=True)
    yield tmp_path / "sys"
    subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_node_leaves_the_kernel_as_it_was(cluster: RealCluster, kernel: Path) -> None:
    noted = Path(os.environ["KFP_BENTO_NODE_FOLDER"], "kernel-before").read_text()
    before = dict(line.split(maxsplit=1) for line in noted.splitlines())
    assert len(before) == 6
    assert {name: kernel.joinpath(name).read_text().strip() for name in before} == before
    shown = Path("/proc/sys")
    assert shown.joinpath("vm/overcommit_memory").read_text() == "1\n", "what a kubelet asks for"


def test_a_pod_runs(cluster: RealCluster, namespace: str) -> None:
    cluster.api.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "quiet", "namespace": namespace},
            "spec": {"containers": [{"name": "main", "image": PAUSE, "imagePullPolicy": "Never"}]},
        }
    )

    def running() -> bool:
        (pod,) = cluster.pods_of(namespace)
        return pod["status"]["phase"] == "Running"

    cluster.until("a running pod", running, 300)
