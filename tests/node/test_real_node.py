"""The node itself: what the other tests of this folder rely on."""

from __future__ import annotations

from real_node import PAUSE, RealCluster


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

    cluster.until("a running pod", running, 60)
