"""KServe's own controller and webhooks on the test cluster, built by `operators/build-kserve`."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from control_plane import NO_TOOLS, ToolsMissing
from crd_sets import FAMILIES
from live_cluster import Cluster
from servers import free_port

HOME = "kserve"
SERVICE = ("serving.kserve.io/v1beta1", "InferenceService")
HOOKS_VERSION = "admissionregistration.k8s.io/v1"
HOOKS = ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")
NAME = "inferenceservice.serving.kserve.io"

_SMALL = {"memoryRequest": "100Mi", "memoryLimit": "1Gi", "cpuRequest": "100m", "cpuLimit": "1"}
# What the controller cannot do without; values as KServe ships them where they matter to us.
SETTINGS: dict[str, dict[str, Any]] = {
    "deploy": {"defaultDeploymentMode": "Serverless"},
    "ingress": {
        "ingressGateway": "knative-serving/knative-ingress-gateway",
        "ingressDomain": "example.com",
        "ingressClassName": "istio",
        "disableIstioVirtualHost": True,
    },
    "inferenceService": {
        "resource": {
            "cpuRequest": "1",
            "cpuLimit": "1",
            "memoryRequest": "2Gi",
            "memoryLimit": "2Gi",
        }
    },
    "storageInitializer": {"image": "kserve/storage-initializer:latest", **_SMALL},
    "credentials": {},
    "logger": {"image": "kserve/agent:latest", "defaultUrl": "http://broker", **_SMALL},
    "batcher": {"image": "kserve/agent:latest", **_SMALL},
    "agent": {"image": "kserve/agent:latest", **_SMALL},
    "metricsAggregator": {"enableMetricAggregation": "false"},
    "security": {"autoMountServiceAccountToken": True},
}


def built_kserve(generation: str = "newer") -> Path:
    """The folder with the controller and its CRDs; builds them where they are missing.

    Args:
        generation: `newer`, or `older` for the one whose modes had other names.
    """
    script = Path(__file__).with_name("operators") / "build-kserve"
    done = subprocess.run([str(script), generation], capture_output=True, text=True, check=False)
    if done.returncode == NO_TOOLS:
        raise ToolsMissing(done.stderr.strip().splitlines()[-1])
    if done.returncode != 0:
        raise RuntimeError(f"build-kserve failed:\n{done.stderr}")
    return Path(done.stdout.strip())


class KServe:
    """The controller with its webhooks; watches all namespaces while it runs."""

    def __init__(self, cluster: Cluster, built: Path) -> None:
        self._cluster, self._program = cluster, built / "kserve"
        self._port = free_port()

    def start(self) -> None:
        certificate, key = self._cluster.plane.server_certificate
        probes = free_port()
        self._cluster.plane.run_beside(
            self._program,
            f"--webhook-port={self._port}",
            f"--probe-port={probes}",
            f"--certificate={certificate}",
            f"--key={key}",
            ready=f"http://127.0.0.1:{probes}/readyz",
            KUBECONFIG=str(self._cluster.kubeconfig),
            POD_NAMESPACE=HOME,
        )
        for hook in _webhooks(self._port, self._cluster.plane.ca):
            self._cluster.api.apply(hook, force=True)

    def stop(self) -> None:
        """Ends it and takes its webhooks away, without which nothing could be applied."""
        for kind in HOOKS:
            self._cluster.api.delete(HOOKS_VERSION, kind, None, NAME)
        self._cluster.plane.stop_beside(self._program)

    @contextmanager
    def away(self) -> Iterator[None]:
        """Inside, the cluster has the definitions and nobody that acts on them."""
        self.stop()
        try:
            yield
        finally:
            self.start()


@contextmanager
def kserve_running(cluster: Cluster, built: Path) -> Iterator[KServe]:
    """Afterwards no InferenceService is left."""
    _install(cluster, built)
    kserve = KServe(cluster, built)
    kserve.start()
    try:
        yield kserve
        _delete_all(cluster)
    finally:
        kserve.stop()
        _let_go(cluster)


def _install(cluster: Cluster, built: Path) -> None:
    """The definitions that belong to this very version, and its settings."""
    FAMILIES["kserve"] = {built.name: sorted((built / "crds").glob("*")), **FAMILIES["kserve"]}
    cluster.crds.ensure("kserve", built.name)
    cluster.api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": HOME}})
    cluster.api.apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "inferenceservice-config", "namespace": HOME},
            "data": {key: json.dumps(value) for key, value in SETTINGS.items()},
        }
    )


def _webhooks(port: int, ca: Path) -> list[dict[str, Any]]:
    trust = base64.b64encode(ca.read_bytes()).decode()

    def hook(name: str, path: str, rule: dict[str, Any], **options: Any) -> dict[str, Any]:
        return {
            "name": f"{name}.kserve.io",
            "clientConfig": {"url": f"https://127.0.0.1:{port}{path}", "caBundle": trust},
            "rules": [rule],
            "failurePolicy": "Fail",
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            **options,
        }

    services = {
        "apiGroups": ["serving.kserve.io"],
        "apiVersions": ["v1beta1"],
        "operations": ["CREATE", "UPDATE"],
        "resources": ["inferenceservices"],
    }
    pods = {
        "apiGroups": [""],
        "apiVersions": ["v1"],
        "operations": ["CREATE"],
        "resources": ["pods"],
    }
    label = {"key": "serving.kserve.io/inferenceservice", "operator": "Exists"}
    where = {"matchExpressions": [label]}
    place = "-serving-kserve-io-v1beta1-inferenceservice"
    mutating = [
        hook("defaulter", f"/mutate{place}", services),
        hook("pods", "/mutate-pods", pods, objectSelector=where, reinvocationPolicy="IfNeeded"),
    ]
    validating = [hook("validator", f"/validate{place}", services)]
    return [
        {"apiVersion": HOOKS_VERSION, "kind": kind, "metadata": {"name": NAME}, "webhooks": hooks}
        for kind, hooks in zip(HOOKS, (mutating, validating), strict=True)
    ]


def _delete_all(cluster: Cluster) -> None:
    for live in cluster.api.list(*SERVICE):
        metadata = live["metadata"]
        cluster.api.delete(*SERVICE, metadata["namespace"], metadata["name"])
    cluster.until("no InferenceService", lambda: not cluster.api.list(*SERVICE))


def _let_go(cluster: Cluster) -> None:
    """Takes off the finalizers that nobody would take off any more."""
    for live in cluster.api.list(*SERVICE):
        metadata = live["metadata"]
        change = {"metadata": {"finalizers": None}}
        cluster.api.merge(*SERVICE, metadata["namespace"], metadata["name"], change)
        cluster.api.delete(*SERVICE, metadata["namespace"], metadata["name"])
