"""The face of the test cluster: a real control plane, nodes that only tell, and handles on both."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from control_plane import ControlPlane, control_plane_in, tail
from crd_sets import InstalledCrds
from fake_nodes import FakeNodes
from kube_api import KubeApi

NODES = ("node-a", "node-b")
POLL_SECONDS = 0.1

T = TypeVar("T")


class Cluster:
    """A control plane and handles on it, for all tests of a session.

    Attributes:
        kubeconfig: Of a cluster administrator; context `test`.
        api: Requests as that administrator.
        crds: Which custom resource definitions there are.
        nodes: Names of the nodes.
    """

    nodes: tuple[str, ...] = ()

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane
        self.kubeconfig = plane.kubeconfig("admin")
        self.api = KubeApi(self.kubeconfig)
        self.crds = InstalledCrds(self.api)
        self._names = itertools.count(1)

    @property
    def url(self) -> str:
        return self.plane.url

    def client(self) -> Any:
        """The `kubernetes` library's ApiClient, as administrator; close it."""
        from kubernetes import config

        return config.new_client_from_config(config_file=str(self.kubeconfig))

    def namespace(self, prefix: str = "test") -> str:
        """Makes a namespace that nobody has used, with its default ServiceAccount."""
        name = f"{prefix}-{next(self._names)}"
        self.api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        self.until(
            f"the ServiceAccount of {name}",
            lambda: self.api.get("v1", "ServiceAccount", name, "default"),
        )
        return name

    def discard(self, namespace: str) -> None:
        """Deletes a namespace in the background."""
        self.api.delete("v1", "Namespace", None, namespace)

    def account(self, namespace: str, name: str, rules: Sequence[dict[str, Any]]) -> None:
        """Makes a ServiceAccount with a Role of these rules."""
        metadata = {"name": name, "namespace": namespace}
        rbac = "rbac.authorization.k8s.io"
        self.api.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
        self.api.apply(
            {
                "apiVersion": f"{rbac}/v1",
                "kind": "Role",
                "metadata": metadata,
                "rules": list(rules),
            }
        )
        self.api.apply(
            {
                "apiVersion": f"{rbac}/v1",
                "kind": "RoleBinding",
                "metadata": metadata,
                "roleRef": {"apiGroup": rbac, "kind": "Role", "name": name},
                "subjects": [{"kind": "ServiceAccount", **metadata}],
            }
        )

    def user(self, namespace: str, rules: Sequence[dict[str, Any]], name: str = "limited") -> Path:
        """Makes a ServiceAccount with a Role of these rules and gives its kubeconfig."""
        self.account(namespace, name, rules)
        account = self.api.path("v1", "ServiceAccount", namespace, name)
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": 3600},
        }
        answer = self.api.request("POST", f"{account}/token", request)
        path = self.plane.kubeconfig(
            f"{namespace}.{name}", answer["status"]["token"], namespace=namespace
        )
        self.until(f"the rights of {name}", lambda: _has_rights(KubeApi(path), namespace, rules))
        return path

    def restart_api_server(self, *, abruptly: bool = False) -> None:
        """Stops the API server, with or without its goodbyes, and starts it at the same address."""
        with self.api_server_down(abruptly=abruptly):
            pass

    @contextlib.contextmanager
    def api_server_down(self, *, abruptly: bool = False) -> Iterator[None]:
        """No API server listens inside; afterwards it does again, and controllers work."""
        self.plane.stop_api_server(abruptly=abruptly)
        try:
            yield
        finally:
            self.plane.start_api_server()
            self.plane.restart_controllers()

    @contextlib.contextmanager
    def cordoned(self) -> Iterator[None]:
        """Inside, the scheduler finds no node for new pods."""
        self._cordon(True)
        try:
            yield
        finally:
            self._cordon(False)

    def events(self, namespace: str, name: str = "") -> list[dict[str, Any]]:
        """Events of a namespace, or of the objects of one name in it, oldest first."""
        found = [
            event
            for event in self.api.list("v1", "Event", namespace)
            if name in ("", event["involvedObject"]["name"])
        ]
        return sorted(found, key=lambda event: str(event.get("lastTimestamp") or ""))

    def pods_of(self, namespace: str, selector: str = "") -> list[dict[str, Any]]:
        return self.api.list("v1", "Pod", namespace, selector)

    def until(self, what: str, look: Callable[[], T], seconds: float = 60.0) -> T:
        """Looks until there is something to see and gives it.

        Raises:
            TimeoutError: Nothing came in time; says what was awaited and what was seen last.
        """
        deadline = time.monotonic() + seconds
        while True:
            seen = look()
            if seen:
                return seen
            if time.monotonic() > deadline:
                raise TimeoutError(f"After {seconds:.0f} s still not: {what} (last: {seen!r})")
            time.sleep(POLL_SECONDS)

    def _cordon(self, wanted: bool) -> None:
        for node in self.nodes:
            self.api.merge("v1", "Node", None, node, {"spec": {"unschedulable": wanted}})
            taint = "node.kubernetes.io/unschedulable"

            def as_wanted(node: str = node, taint: str = taint) -> bool:
                spec = (self.api.get("v1", "Node", None, node) or {})["spec"]
                return wanted == any(t["key"] == taint for t in spec.get("taints") or [])

            self.until(f"the taint of {node}", as_wanted)


class LiveCluster(Cluster):
    """Its nodes only tell.

    Attributes:
        pods: What pods do on the nodes; see `FakeNodes.behave`.
        nodes: Two, with 8 cores and 32 GiB each.
    """

    nodes = NODES

    def __init__(self, plane: ControlPlane) -> None:
        super().__init__(plane)
        kubelet = KubeApi(plane.kubeconfig("kubelet"))
        self.pods = FakeNodes(kubelet, NODES, plane.server_certificate)

    def discard(self, namespace: str) -> None:
        """Deletes a namespace in the background, and its rules for pods."""
        self.pods.forget(namespace)
        super().discard(namespace)


@contextlib.contextmanager
def live_cluster_in(folder: Path, programs: Path) -> Iterator[LiveCluster]:
    """A cluster with its files in a folder; everything it started is gone afterwards."""
    with control_plane_in(folder, programs) as plane:
        cluster = LiveCluster(plane)
        cluster.pods.start()
        try:
            _wait_until_usable(cluster)
            yield cluster
        finally:
            plane.stop()  # which also ends the watch that the nodes hang on
            cluster.pods.stop()


def _has_rights(api: KubeApi, namespace: str, rules: Sequence[dict[str, Any]]) -> bool:
    """Whether the authorizer has heard of all rules of resources; it lags behind the Role."""
    for rule in rules:
        wanted = {
            "namespace": namespace,
            "group": rule["apiGroups"][0],
            "resource": rule["resources"][0].partition("/")[0],
            "subresource": rule["resources"][0].partition("/")[2],
            "verb": rule["verbs"][0],
            "name": next(iter(rule.get("resourceNames", [])), ""),
        }
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": wanted},
        }
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        if not api.request("POST", path, review)["status"]["allowed"]:
            return False
    return True


def _wait_until_usable(cluster: LiveCluster) -> None:
    def no_taints() -> bool:
        nodes = cluster.api.list("v1", "Node")
        return not any(node["spec"].get("taints") for node in nodes)

    try:
        cluster.until("nodes without taints", no_taints)
    except TimeoutError as late:
        ends = [f"{log}:\n{tail(log)}" for log in cluster.plane.logs()]
        raise RuntimeError("\n".join([str(late), *cluster.pods.troubles, *ends])) from late
