"""The life of an InferenceService on a real API server, with KServe's part played by the test."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import urllib3
from kube_api import KubeApi, Refused
from live_cluster import LiveCluster
from workload_releases import FIRST, SECOND

from kfp_bento.runtime.deployments import (
    delete_release,
    release_status,
    roll_back,
    roll_out,
)

SERVICE = ("serving.kserve.io/v1beta1", "InferenceService")
PLACE = {"target": "inference-service"}


def inference_service(namespace: str, image: str) -> dict[str, Any]:
    container = {"name": "kserve-container", "image": image}
    return {
        "apiVersion": SERVICE[0],
        "kind": SERVICE[1],
        "metadata": {"name": "wine", "namespace": namespace},
        "spec": {"predictor": {"minReplicas": 1, "containers": [container]}},
    }


@contextmanager
def kserve_in(api: KubeApi, namespace: str) -> Iterator[None]:
    """Standard mode: one Deployment per component, and conditions that follow it."""
    ending = threading.Event()

    def reconcile(live: dict[str, Any]) -> None:
        metadata = live["metadata"]
        labels = {"app": "isvc.wine-predictor", "serving.kserve.io/inferenceservice": "wine"}
        owner = {"apiVersion": SERVICE[0], "kind": SERVICE[1], "controller": True}
        owner |= {"name": "wine", "uid": metadata["uid"], "blockOwnerDeletion": True}
        template = {
            # As KServe does: what is annotated on the service reaches every pod template.
            "metadata": {"labels": labels, "annotations": metadata.get("annotations") or {}},
            "spec": {"containers": live["spec"]["predictor"]["containers"]},
        }
        spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
        place = {"name": "wine-predictor", "namespace": namespace, "labels": labels}
        made = api.apply(
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {**place, "ownerReferences": [owner]},
                "spec": spec,
            },
            manager="kserve",
        )
        told = made.get("status") or {}
        ready = told.get("observedGeneration") == made["metadata"]["generation"] and (
            told.get("updatedReplicas") == told.get("availableReplicas") == told.get("replicas")
        )
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        conditions = [
            {"type": kind, "status": str(bool(ready)), "lastTransitionTime": now}
            for kind in ("PredictorReady", "Ready")
        ]
        status = {"observedGeneration": metadata["generation"], "conditions": conditions}
        change = {"status": status}
        api.merge(*SERVICE, namespace, "wine", change, subresource="status", manager="kserve")

    def work() -> None:
        while not ending.wait(0.2):
            # What fails is tried again.
            with suppress(Refused, urllib3.exceptions.HTTPError, LookupError):
                live = api.get(*SERVICE, namespace, "wine")
                if live and not live["metadata"].get("deletionTimestamp"):
                    reconcile(live)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join(timeout=35)


def replica_sets(cluster: LiveCluster, namespace: str) -> int:
    return len(cluster.api.list("apps/v1", "ReplicaSet", namespace))


def discovered(cluster: LiveCluster) -> bool:
    """A new kind answers before discovery lists it."""
    try:
        return bool(cluster.api.path(*SERVICE))
    except (LookupError, Refused):
        return False


def test_a_release_is_recorded_without_touching_the_pods(
    cluster: LiveCluster, kserve: str, namespace: str, kubeconfig: Path
) -> None:
    options: dict[str, Any] = {"bento": "wine:v", "seconds": 60.0, "steady_seconds": 0.5}
    cluster.until("the kind in discovery", lambda: discovered(cluster))
    with kserve_in(cluster.api, namespace):
        first = roll_out([inference_service(namespace, FIRST)], image=FIRST, **options)
        assert first.verdict.ready, first.verdict
        again = roll_out([inference_service(namespace, FIRST)], image=FIRST, **options)
        assert not again.changed
        assert replica_sets(cluster, namespace) == 1
        second = roll_out([inference_service(namespace, SECOND)], image=SECOND, **options)
        assert second.verdict.ready, second.verdict
        assert replica_sets(cluster, namespace) == 2
        status = release_status("wine", **PLACE, namespace=namespace)
        assert (status.ready, status.image, status.last_good) == (True, SECOND, second.revision)
        assert not roll_back("wine", **PLACE, namespace=namespace, seconds=60).changed
    gone = delete_release("wine", **PLACE, namespace=namespace)
    assert sorted(ref.kind for ref in gone.removed) == ["ConfigMap", "InferenceService"]
    assert cluster.api.list("apps/v1", "Deployment", namespace) == []
