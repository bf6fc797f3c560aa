"""Objects of a cluster in recorded states, as an API server gives them."""

from __future__ import annotations

from typing import Any

from kfp_bento.runtime.deployments.targets.readiness import Snapshot

OURS = "registry.example.com/wine@sha256:" + "a1" * 32
OTHER = "registry.example.com/wine@sha256:" + "b2" * 32
RUNNING = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}


def condition(kind: str, status: str, reason: str = "", message: str = "") -> dict[str, Any]:
    return {"type": kind, "status": status, "reason": reason, "message": message}


def deployment(
    name: str = "wine",
    *,
    image: str = OURS,
    replicas: int = 1,
    updated: int | None = None,
    available: int | None = None,
    total: int | None = None,
    observed: int = 3,
    labels: dict[str, str] | None = None,
    conditions: list[dict[str, Any]] | None = None,
    revision: str = "r1",
    **spec: Any,
) -> dict[str, Any]:
    told = {"updatedReplicas": updated, "availableReplicas": available, "replicas": total}
    counts = {key: replicas if count is None else count for key, count in told.items()}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": name,
            "namespace": "serving",
            "uid": f"uid-{name}",
            "generation": 3,
            "labels": labels or {},
            "annotations": {
                "deployment.kubernetes.io/revision": "2",
                "kfp-bento/revision": revision,
            },
        },
        "spec": {
            "replicas": replicas,
            "template": {"spec": {"containers": [{"name": "main", "image": image}]}},
            **spec,
        },
        "status": {"observedGeneration": observed, "conditions": conditions or [], **counts},
    }


def replica_set(owner: str = "wine", revision: str = "2") -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": f"{owner}-{revision}",
            "namespace": "serving",
            "uid": f"uid-{owner}-{revision}",
            "annotations": {"deployment.kubernetes.io/revision": revision},
            "ownerReferences": [{"uid": f"uid-{owner}"}],
        },
    }


def pod(
    state: dict[str, Any] | None = None,
    *,
    owner: str = "wine-2",
    ready: bool = False,
    restarts: int = 0,
    ended: dict[str, Any] | None = None,
    conditions: list[dict[str, Any]] | None = None,
    name: str = "wine-2-abc",
) -> dict[str, Any]:
    container = {
        "name": "main",
        "image": OURS,
        "ready": ready,
        "restartCount": restarts,
        "state": RUNNING if state is None else state,
        "lastState": {"terminated": ended} if ended else {},
    }
    told = [condition("Ready", "True" if ready else "False"), *(conditions or [])]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "serving",
            "uid": f"uid-{name}",
            "ownerReferences": [{"uid": f"uid-{owner}"}],
        },
        "status": {"conditions": told, "containerStatuses": [container]},
    }


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"waiting": {"reason": reason, "message": message}}


def workload(live: dict[str, Any] | None = None, *pods: dict[str, Any]) -> Snapshot:
    live = live or deployment()
    sets = [replica_set(), replica_set(revision="1")]
    return Snapshot(live, live, deployments=[live], replica_sets=sets, pods=pods)


def bento_deployment(*conditions: dict[str, Any], revision: str = "r1") -> dict[str, Any]:
    return {
        "apiVersion": "serving.yatai.ai/v2alpha1",
        "kind": "BentoDeployment",
        "metadata": {
            "name": "wine",
            "namespace": "serving",
            "uid": "uid-bd",
            "generation": 1,
            "annotations": {"kfp-bento/revision": revision},
        },
        "spec": {"bento": "wine--v1"},
        "status": {"conditions": list(conditions)},
    }


def bento(image: str = OURS) -> dict[str, Any]:
    return {
        "apiVersion": "resources.yatai.ai/v1alpha1",
        "kind": "Bento",
        "metadata": {"name": "wine--v1", "namespace": "serving", "uid": "uid-bento"},
        "spec": {"tag": "wine:v1", "image": image},
    }


def bento_request(*conditions: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "resources.yatai.ai/v1alpha1",
        "kind": "BentoRequest",
        "metadata": {"name": "wine--v1", "namespace": "serving", "uid": "uid-request"},
        "spec": {"bentoTag": "wine:v1", **spec},
        "status": {"conditions": list(conditions)},
    }


def yatai(primary: dict[str, Any], *deployments: dict[str, Any], **more: Any) -> Snapshot:
    sets = [replica_set(live["metadata"]["name"]) for live in deployments]
    more = {"source": bento(), **more}
    return Snapshot(primary, primary, deployments=deployments, replica_sets=sets, **more)


def inference_service(
    *conditions: dict[str, Any], observed: int = 2, **status: Any
) -> dict[str, Any]:
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "wine", "namespace": "serving", "uid": "uid-is", "generation": 2},
        "spec": {},
        "status": {"observedGeneration": observed, "conditions": list(conditions), **status},
    }
