"""The life of an InferenceService on a real API server, with KServe's part played by the test."""

from __future__ import annotations

from pathlib import Path

from kserve_controller import KServeController, running
from live_cluster import LiveCluster
from releases import roll_out
from sample_bentos import make_bento
from workload_releases import FIRST, SECOND

from kfp_bento.runtime.deployments import (
    TARGETS,
    Release,
    Waiting,
    delete_release,
    release_status,
    roll_back,
)

PLACE = {"target": "inference-service"}


def inference_service(namespace: str, image: str) -> Release:
    options = {"namespace": namespace, "deployment_mode": "Standard"}
    return TARGETS["inference-service"].render(image, make_bento(), options)


def replica_sets(cluster: LiveCluster, namespace: str) -> int:
    return len(cluster.api.list("apps/v1", "ReplicaSet", namespace))


def test_a_release_is_recorded_without_touching_the_pods(
    cluster: LiveCluster, kserve: str, namespace: str, kubeconfig: Path
) -> None:
    with running(KServeController(cluster.api, namespace)):
        first = roll_out(inference_service(namespace, FIRST))
        assert first.verdict.ready, first.verdict
        again = roll_out(inference_service(namespace, FIRST))
        assert not again.changed
        assert replica_sets(cluster, namespace) == 1
        second = roll_out(inference_service(namespace, SECOND))
        assert second.verdict.ready, second.verdict
        assert replica_sets(cluster, namespace) == 2
        status = release_status("wine", **PLACE, namespace=namespace)
        assert (status.ready, status.image, status.last_good) == (True, SECOND, second.revision)
        back = roll_back("wine", **PLACE, namespace=namespace, waiting=Waiting(60))
        assert (back.verdict.ready, back.image) == (True, FIRST)
        # Its pods are made of what they were made of before.
        assert replica_sets(cluster, namespace) == 2
        assert not roll_back("wine", **PLACE, namespace=namespace, waiting=Waiting(60)).changed
    gone = delete_release("wine", **PLACE, namespace=namespace)
    assert sorted(ref.kind for ref in gone.removed) == ["ConfigMap", "InferenceService"]
    assert cluster.api.list("apps/v1", "Deployment", namespace) == []
