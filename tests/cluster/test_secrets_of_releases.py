"""The shipped admission policy: pods get the Secrets and accounts that a namespace lists."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kube_api import Refused
from live_cluster import LiveCluster
from releases import roll_out
from sample_bentos import make_bento
from workload_releases import FIRST

from kfp_bento.runtime import deployments
from kfp_bento.runtime.deployments import TARGETS

FILE = Path(deployments.__file__).parent / "policies" / "secrets-of-releases.yaml"
LISTED = {"secrets": "wine-token s3-keys", "service-accounts": "default server"}


@pytest.fixture
def restricted(cluster: LiveCluster, namespace: str) -> Iterator[str]:
    """A namespace in which the policy holds; it is the only one that notices it."""
    policies = list(yaml.safe_load_all(FILE.read_text()))
    for one in policies:
        cluster.api.apply(one)
    metadata = {
        "labels": {"kfp-bento/secrets": "listed"},
        "annotations": {f"kfp-bento/{key}": value for key, value in LISTED.items()},
    }
    cluster.api.merge("v1", "Namespace", None, namespace, {"metadata": metadata})
    # The API server hears of a policy a moment later.
    cluster.until("the policy", lambda: refused(cluster, namespace, mounting("other")))
    yield namespace
    for one in reversed(policies):
        cluster.api.delete(one["apiVersion"], one["kind"], None, one["metadata"]["name"])


def pod(**spec: Any) -> dict[str, Any]:
    container = {"name": "main", "image": "x", **spec.pop("container", {})}
    return {"containers": [container], **spec}


def mounting(secret: str) -> dict[str, Any]:
    return pod(volumes=[{"name": "s", "secret": {"secretName": secret}}])


def refused(cluster: LiveCluster, namespace: str, spec: dict[str, Any]) -> str:
    """What the API server says against a pod; empty where it takes it."""
    metadata = {"name": "probe", "namespace": namespace}
    manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    try:
        cluster.api.apply(manifest, dry_run=True)
    except Refused as refusal:
        return str(refusal)
    return ""


def env(secret: str) -> list[dict[str, Any]]:
    return [{"name": "A", "valueFrom": {"secretKeyRef": {"name": secret, "key": "k"}}}]


ALLOWED = [
    pod(),
    mounting("s3-keys"),
    pod(container={"env": [*env("wine-token"), {"name": "B", "value": "1"}]}),
    pod(
        container={"envFrom": [{"secretRef": {"name": "s3-keys"}}, {"configMapRef": {"name": "c"}}]}
    ),
    pod(imagePullSecrets=[{"name": "registry"}]),
    pod(serviceAccountName="server", volumes=[{"name": "t", "emptyDir": {}}]),
]
DENIED = [
    mounting("other"),
    mounting("s3-keys wine-token"),
    pod(container={"env": env("other")}),
    pod(container={"envFrom": [{"secretRef": {"name": "other"}}]}),
    pod(initContainers=[{"name": "i", "image": "x", "env": env("other")}]),
    pod(
        volumes=[
            {
                "name": "p",
                "projected": {
                    "sources": [{"configMap": {"name": "c"}}, {"secret": {"name": "other"}}]
                },
            }
        ]
    ),
    pod(volumes=[{"name": "c", "csi": {"driver": "d", "nodePublishSecretRef": {"name": "other"}}}]),
    pod(volumes=[{"name": "h", "hostPath": {"path": "/"}}]),
    pod(serviceAccountName="admin"),
]


def test_pods_get_what_is_listed_and_nothing_else(cluster: LiveCluster, restricted: str) -> None:
    cluster.api.apply(
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "server", "namespace": restricted},
        }
    )
    cluster.api.apply(
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "admin", "namespace": restricted},
        }
    )
    assert {refused(cluster, restricted, spec) for spec in ALLOWED} == {""}
    told = [refused(cluster, restricted, spec) for spec in DENIED]
    assert all("kfp-bento-secrets-of-releases" in one for one in told), told


def test_a_release_says_why_its_pods_are_refused(
    cluster: LiveCluster, restricted: str, kubeconfig: Path
) -> None:
    options = {"namespace": restricted, "secret_files": {"/etc/keys": "other"}}
    done = roll_out(TARGETS["workload"].render(FIRST, make_bento(), options))
    assert not done.verdict.ready
    assert "kfp-bento/secrets does not list" in done.verdict.message
    options["secret_files"] = {"/etc/keys": "s3-keys"}
    assert roll_out(TARGETS["workload"].render(FIRST, make_bento(), options)).verdict.ready


def test_other_namespaces_notice_nothing(cluster: LiveCluster, restricted: str) -> None:
    elsewhere = cluster.namespace()
    assert refused(cluster, elsewhere, mounting("other")) == ""
    cluster.discard(elsewhere)
