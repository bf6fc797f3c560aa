"""Nodes without machines: what a kubelet says about its pods, without containers.

Everything else is real. The scheduler binds pods to these nodes; for each bound pod a
`Behaviour` is played through its status, as merge patches to `status` and as events; a deleted
pod ends; the API server fetches container logs from here. Which behaviour a pod gets is decided
by rules that a test adds while the cluster runs, which is why this is not kwok: its stages are
configuration of a process, chosen by fields of the pod, and race with its default stages.
"""

from __future__ import annotations

import contextlib
import hashlib
import heapq
import itertools
import queue
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import urllib3
from kube_api import MERGE, KubeApi, Refused
from pod_behaviour import Behaviour, Step, becomes_ready, completes

HEARTBEAT_SECONDS = 10.0
RETRY_SECONDS = 0.3


@dataclass(frozen=True)
class _Rule:
    namespace: str
    behaviour: Behaviour
    image: str
    labels: Mapping[str, str]

    def fits(self, pod: Mapping[str, Any]) -> bool:
        metadata = pod["metadata"]
        labels = metadata.get("labels") or {}
        if _ends(pod) and not (self.image or self.labels):
            return False
        return (
            metadata["namespace"] == self.namespace
            and any(self.image in container["image"] for container in pod["spec"]["containers"])
            and all(labels.get(key) == value for key, value in self.labels.items())
        )


@dataclass
class _Run:
    """One pod on a node and how far it is."""

    pod: dict[str, Any]
    behaviour: Behaviour
    address: str
    started: str
    next_step: int = 0
    restarts: int = 0
    state: dict[str, Any] = field(default_factory=dict)
    last: dict[str, Any] = field(default_factory=dict)
    ready: bool = False
    ready_since: str = ""
    # A behaviour given later makes what was planned for the former one void.
    turn: int = 0
    gone: bool = False


class FakeNodes:
    """Plays the kubelets of a few nodes; use `behave` to say what pods shall do."""

    def __init__(self, api: KubeApi, names: Iterable[str], certificate: tuple[Path, Path]) -> None:
        self.names = tuple(names)
        self._api = api
        self._rules: list[_Rule] = []
        self._runs: dict[str, _Run] = {}
        self._seen: queue.Queue[tuple[str, dict[str, Any]]] = queue.Queue()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count(1)
        self._lock = threading.RLock()
        self._ending = threading.Event()
        self._logs = _log_server(self, certificate)
        self._threads = [
            threading.Thread(target=work, daemon=True, name=f"fake-nodes-{work.__name__}")
            for work in (self._watch_pods, self._play, self._logs.serve_forever)
        ]
        self.troubles: list[str] = []

    def start(self) -> None:
        for name in self.names:
            self._register(name)
        for thread in self._threads:
            thread.start()
        self._at(0.0, self._heartbeat)

    def stop(self) -> None:
        self._ending.set()
        self._logs.shutdown()
        self._logs.server_close()
        for thread in self._threads:
            thread.join(timeout=5)

    def behave(
        self,
        namespace: str,
        behaviour: Behaviour,
        *,
        image: str = "",
        labels: Mapping[str, str] | None = None,
    ) -> None:
        """Says what pods that start from now on do; the last rule that fits counts.

        Args:
            namespace: Where the pods are.
            behaviour: One of `pod_behaviour`; without a rule pods become ready at once. Those of a
                Job end, unless a rule names their image or labels.
            image: A part of the image reference of one of the containers.
            labels: Labels that the pods have, among others.
        """
        with self._lock:
            self._rules.append(_Rule(namespace, behaviour, image, dict(labels or {})))

    def change(self, namespace: str, behaviour: Behaviour, *, pod: str = "") -> int:
        """Makes pods that already run behave otherwise from now on; gives how many."""
        with self._lock:
            chosen = [
                run
                for run in self._runs.values()
                if run.pod["metadata"]["namespace"] == namespace
                and pod in ("", run.pod["metadata"]["name"])
            ]
            for run in chosen:
                run.behaviour, run.next_step = behaviour, 0
                run.turn += 1
                self._plan(run)
        return len(chosen)

    def forget(self, namespace: str) -> None:
        """Drops the rules of a namespace."""
        with self._lock:
            self._rules = [rule for rule in self._rules if rule.namespace != namespace]

    def log_of(self, namespace: str, name: str, *, previous: bool) -> tuple[int, str]:
        """What a kubelet answers for a container's log: HTTP status and text."""
        with self._lock:
            runs = [
                run
                for run in self._runs.values()
                if (run.pod["metadata"]["namespace"], run.pod["metadata"]["name"])
                == (namespace, name)
            ]
            if not runs:
                return 404, f'pod "{name}" not found'
            run = runs[-1]
            if previous and not run.last:
                return 400, f'previous terminated container in pod "{name}" not found'
            if "waiting" in run.state and not run.last:
                why = run.state["waiting"].get("reason")
                return 400, f'container in pod "{name}" is waiting to start: {why}'
            return 200, run.behaviour.log

    # -- watching ---------------------------------------------------------------------------

    def _watch_pods(self) -> None:
        while not self._ending.is_set():
            try:
                listed = self._api.request("GET", "/api/v1/pods")
                present = {pod["metadata"]["uid"] for pod in listed["items"]}
                with self._lock:
                    gone = set(self._runs) - present
                for uid in gone:
                    self._seen.put(("DELETED", {"metadata": {"uid": uid}}))
                for pod in listed["items"]:
                    self._seen.put(("ADDED", pod))
                self._follow(listed["metadata"]["resourceVersion"])
            except (urllib3.exceptions.HTTPError, Refused, ValueError):
                self._ending.wait(RETRY_SECONDS)  # the API server is away; list anew
            except Exception as error:  # whatever it is, the next list starts afresh
                self.troubles.append(repr(error))
                self._ending.wait(RETRY_SECONDS)

    def _follow(self, version: str) -> None:
        for event in self._api.watch("/api/v1/pods", version, seconds=20):
            if self._ending.is_set() or event["type"] == "ERROR":
                return
            self._seen.put((event["type"], event["object"]))

    # -- playing ----------------------------------------------------------------------------

    def _play(self) -> None:
        while not self._ending.is_set():
            with self._lock:
                wait = self._timers[0][0] - time.monotonic() if self._timers else 0.2
            try:
                with contextlib.suppress(queue.Empty):
                    self._meet(*self._seen.get(timeout=min(max(wait, 0.001), 0.2)))
                while due := self._due():
                    due()
            except Exception as error:  # one odd pod must not end all nodes
                self.troubles.append(repr(error))

    def _due(self) -> Callable[[], None] | None:
        with self._lock:
            if self._timers and self._timers[0][0] <= time.monotonic():
                return heapq.heappop(self._timers)[2]
        return None

    def _at(self, seconds: float, action: Callable[[], None]) -> None:
        with self._lock:
            heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._order), action))

    def _meet(self, kind: str, pod: dict[str, Any]) -> None:
        uid = pod["metadata"]["uid"]
        with self._lock:
            run = self._runs.get(uid)
            if kind == "DELETED":
                if run:
                    run.gone = True
                    del self._runs[uid]
                return
            if pod["spec"].get("nodeName") not in self.names:
                return
            if run is None:
                run = self._admit(pod)
                self._plan(run)
            run.pod = pod
            if pod["metadata"].get("deletionTimestamp") and not run.gone:
                run.gone = True
                self._at(0.05, lambda: self._end(pod))

    def _admit(self, pod: dict[str, Any]) -> _Run:
        fitting = [rule.behaviour for rule in self._rules if rule.fits(pod)]
        number = next(self._order)
        run = _Run(
            pod=pod,
            behaviour=fitting[-1] if fitting else _usual(pod),
            address=f"10.244.{number // 250 % 250}.{number % 250 + 1}",
            started=_now(),
        )
        self._runs[pod["metadata"]["uid"]] = run
        return run

    def _plan(self, run: _Run) -> None:
        turn, step = run.turn, run.behaviour.steps[run.next_step]
        self._at(step.after, lambda: self._take(run, turn, step))

    def _take(self, run: _Run, turn: int, step: Step) -> None:
        with self._lock:
            if not run.gone and run.turn == turn:
                _enter(run, step)
                self._report(run, turn, step)

    def _report(self, run: _Run, turn: int, step: Step) -> None:
        if run.gone or run.turn != turn:
            return
        metadata = run.pod["metadata"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}/status"
        if not self._tell("PATCH", path, {"status": _status(run)}, MERGE):
            self._at(RETRY_SECONDS, lambda: self._report(run, turn, step))
            return
        if step.event:
            self._tell_event(run, step.event)
        run.next_step += 1
        if run.next_step == len(run.behaviour.steps):
            run.next_step -= run.behaviour.repeat
        if run.next_step < len(run.behaviour.steps):
            self._plan(run)

    def _end(self, pod: dict[str, Any]) -> None:
        metadata = pod["metadata"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
        body = {"gracePeriodSeconds": 0, "preconditions": {"uid": metadata["uid"]}}
        if not self._tell("DELETE", path, body):
            self._at(RETRY_SECONDS, lambda: self._end(pod))

    def _tell_event(self, run: _Run, event: tuple[str, str, str]) -> None:
        metadata, now = run.pod["metadata"], _now()
        body = {
            "metadata": {"name": f"{metadata['name']}.{next(self._order):x}"},
            "involvedObject": {
                "apiVersion": "v1",
                "kind": "Pod",
                "namespace": metadata["namespace"],
                "name": metadata["name"],
                "uid": metadata["uid"],
            },
            "type": event[0],
            "reason": event[1],
            "message": event[2],
            "source": {"component": "kubelet", "host": run.pod["spec"]["nodeName"]},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        self._tell("POST", f"/api/v1/namespaces/{metadata['namespace']}/events", body)

    def _tell(
        self, method: str, path: str, body: Any, content_type: str = "application/json"
    ) -> bool:
        """Whether it is settled: done, or there is nobody to tell it about any more."""
        try:
            self._api.request(method, path, body, content_type=content_type)
        except urllib3.exceptions.HTTPError:
            return False
        except Refused as refusal:
            if refusal.status >= 500 or refusal.status == 429:
                return False
            if refusal.status not in (404, 409) and "being terminated" not in str(refusal):
                self.troubles.append(str(refusal))
        return True

    # -- nodes ------------------------------------------------------------------------------

    def _register(self, name: str) -> None:
        labels = {
            "kubernetes.io/hostname": name,
            "kubernetes.io/arch": "amd64",
            "kubernetes.io/os": "linux",
        }
        self._api.apply(
            {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}},
            manager="kubelet",
        )
        size = {"cpu": "8", "memory": "32Gi", "pods": "200", "ephemeral-storage": "100Gi"}
        conditions = [
            {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "ready"},
            *(
                {"type": kind, "status": "False", "reason": "Enough", "message": "enough"}
                for kind in ("MemoryPressure", "DiskPressure", "PIDPressure")
            ),
        ]
        times = {"lastHeartbeatTime": _now(), "lastTransitionTime": _now()}
        status = {
            "capacity": size,
            "allocatable": size,
            "conditions": [condition | times for condition in conditions],
            "addresses": [
                {"type": "InternalIP", "address": "127.0.0.1"},
                {"type": "Hostname", "address": name},
            ],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self._logs.server_address[1]}},
        }
        self._api.merge(
            *("v1", "Node", None, name), {"status": status}, subresource="status", manager="kubelet"
        )

    def _heartbeat(self) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        for name in self.names:
            lease = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": name, "namespace": "kube-node-lease"},
                "spec": {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": now},
            }
            path = f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{name}"
            query = "?fieldManager=kubelet&force=true"
            self._tell("PATCH", path + query, lease, "application/apply-patch+yaml")
        self._at(HEARTBEAT_SECONDS, self._heartbeat)


def _ends(pod: Mapping[str, Any]) -> bool:
    return bool(pod["spec"].get("restartPolicy") == "Never")


def _usual(pod: Mapping[str, Any]) -> Behaviour:
    return completes() if _ends(pod) else becomes_ready()


def _enter(run: _Run, step: Step) -> None:
    """Brings a run into the state of a step, with the times and counts that go with it."""
    (kind, facts), now = next(iter(step.state.items())), _now()
    if kind == "running":
        if "terminated" in run.state or ("waiting" in run.state and run.last):
            run.restarts += 1
        facts = run.state.get("running") or {"startedAt": now}
    elif kind == "terminated":
        started = run.state.get("running", {}).get("startedAt", run.started)
        facts = {**facts, "startedAt": started, "finishedAt": now}
    if "terminated" in run.state and kind != "terminated":
        run.last = {"terminated": run.state["terminated"]}
    run.state = {kind: dict(facts)}
    if step.ready != run.ready or not run.ready_since:
        run.ready, run.ready_since = step.ready, now


def _status(run: _Run) -> dict[str, Any]:
    """The pod status that a kubelet would report for this state."""
    spec = run.pod["spec"]
    scheduled = [
        condition
        for condition in run.pod.get("status", {}).get("conditions") or []
        if condition["type"] == "PodScheduled"
    ]
    ready = {"status": str(run.ready), "lastTransitionTime": run.ready_since}
    if not run.ready:
        ready |= {"reason": "ContainersNotReady", "message": "containers with unready status"}
    begun = {"status": "True", "lastTransitionTime": run.started}
    conditions = [
        *scheduled,
        {"type": "PodReadyToStartContainers", **begun},
        {"type": "Initialized", **begun},
        {"type": "ContainersReady", **ready},
        {"type": "Ready", **ready},
    ]
    return {
        "phase": _phase(run),
        "hostIP": "127.0.0.1",
        "podIP": run.address,
        "podIPs": [{"ip": run.address}],
        "startTime": run.started,
        "conditions": conditions,
        "containerStatuses": [_container(run, container) for container in spec["containers"]],
    }


def _phase(run: _Run) -> str:
    if "running" in run.state or run.last:
        return "Running"
    if "terminated" in run.state:
        if run.pod["spec"].get("restartPolicy", "Always") == "Always":
            return "Running"
        return "Failed" if run.state["terminated"]["exitCode"] else "Succeeded"
    return "Pending"


def _container(run: _Run, container: Mapping[str, Any]) -> dict[str, Any]:
    image = container["image"]
    digest = hashlib.sha256(image.encode()).hexdigest()
    number = f"{run.pod['metadata']['uid']}-{container['name']}-{run.restarts}"
    return {
        "name": container["name"],
        "image": image,
        "imageID": ""
        if run.state.get("waiting") and not run.last
        else (image if "@sha256:" in image else f"{image}@sha256:{digest}"),
        "containerID": f"fake://{hashlib.sha256(number.encode()).hexdigest()}",
        "ready": run.ready,
        "started": "running" in run.state,
        "restartCount": run.restarts,
        "state": run.state,
        "lastState": run.last,
    }


def _log_server(nodes: FakeNodes, certificate: tuple[Path, Path]) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            address = urlsplit(self.path)
            query = parse_qs(address.query)
            parts = address.path.strip("/").split("/")
            status, text = 404, "only containerLogs"
            if parts[0] == "containerLogs" and len(parts) == 4:
                status, text = nodes.log_of(
                    parts[1], parts[2], previous=query.get("previous") == ["true"]
                )
            if status == 200 and (lines := query.get("tailLines")):
                text = "".join(text.splitlines(keepends=True)[-int(lines[0]) :])
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*map(str, certificate))
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    return server


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
