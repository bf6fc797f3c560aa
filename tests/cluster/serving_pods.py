"""Pods that serve: what kubelets, the cluster's DNS and its proxy do, with processes on loopback.

Nodes tell the status (`fake_nodes`), and behind it stands a server of the bento that lies in the
pod's image, with the pod's variables. A Service answers at the address that the API server gave
it, with 127 for its first number, and its name is resolved where Python starts with `environment`.
Which pods it leads to is what the real controllers say.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zstandard
from live_cluster import LiveCluster
from pod_behaviour import RUNNING, Behaviour, Step, becomes_ready, crash_loop
from servers import stop_group

ADDRESSES = """\
import os
import socket

_asked = socket.getaddrinfo


def _found(host, *rest, **more):
    if isinstance(host, str) and host.endswith(".svc"):
        try:
            with open(os.path.join(os.environ["PLAYED_NAMES"], host)) as file:
                host = file.read()
        except OSError:
            raise socket.gaierror(socket.EAI_NONAME, "no such Service") from None
    return _asked(host, *rest, **more)


socket.getaddrinfo = _found
"""
STARTING = Behaviour((Step(RUNNING),), log="loading\n")
SLICE = ("discovery.k8s.io/v1", "EndpointSlice")
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
LAYERS = ("source", "model")
"""Kinds of the layers that a bento lies in."""


@dataclass
class ServingPods:
    """The pods of some namespaces, and the Services that lead to them.

    Attributes:
        passing: Called with a Service's name and namespace before each connection; says whether it
            is cut instead.
        built: Bentos of images that are in no registry.
    """

    cluster: LiveCluster
    folder: Path
    passing: Callable[[str, str], bool] = lambda name, namespace: False
    built: dict[str, Path] = field(default_factory=dict)
    namespaces: list[str] = field(default_factory=list)
    _pods: dict[tuple[str, str], _Pod] = field(default_factory=dict)
    _proxies: dict[tuple[str, str], _Proxy] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """With what Python finds the Services by their names."""
        return {"PYTHONPATH": str(self.folder), "PLAYED_NAMES": str(self.folder / "names")}

    def namespace(self) -> str:
        """Makes a namespace whose pods serve."""
        name = self.cluster.namespace()
        self.cluster.pods.behave(name, STARTING)
        self.namespaces.append(name)
        return name

    def ask(self, name: str, namespace: str, path: str, body: Any) -> Any:
        """Gives what a Service answers; nothing where nobody does."""
        where = self.folder / "names" / f"{name}.{namespace}.svc"
        if not where.exists():
            return None
        content = {"Content-Type": "application/json"}
        url = f"http://{where.read_text()}:3000{path}"
        asked = urllib.request.Request(url, json.dumps(body).encode(), content)
        with contextlib.suppress(OSError), urllib.request.urlopen(asked, timeout=30) as answer:
            return json.load(answer)

    def look(self) -> None:
        """Starts what is new, ends what is gone, and tells what became ready or ended."""
        for namespace in self.namespaces:
            live = {
                pod["metadata"]["name"]: pod
                for pod in self.cluster.pods_of(namespace)
                if not pod["metadata"].get("deletionTimestamp")
                and pod["spec"].get("nodeName")  # the nodes know it then
                and not _is_of_a_job(pod)
            }
            for key in [key for key in self._pods if key[0] == namespace and key[1] not in live]:
                self._pods.pop(key).end()
            for name, pod in live.items():
                if (namespace, name) not in self._pods:
                    self._pods[namespace, name] = self._started(pod)
                self._tell(namespace, name, self._pods[namespace, name])
            self._follow_services(namespace)

    def _started(self, pod: Mapping[str, Any]) -> _Pod:
        image = pod["spec"]["containers"][0]["image"]
        bento = self.built.get(image) or _unpacked(image, self.folder / "images")
        self._read_secrets(pod)
        return _Pod.start(pod, bento, self.folder)

    def _read_secrets(self, pod: Mapping[str, Any]) -> None:
        """Gives variables that come from a Secret its values."""
        for one in pod["spec"]["containers"][0].get("env") or []:
            if asked := one.get("valueFrom", {}).get("secretKeyRef"):
                namespace = pod["metadata"]["namespace"]
                secret = self.cluster.api.get("v1", "Secret", namespace, asked["name"]) or {}
                one["value"] = base64.b64decode(
                    secret.get("data", {}).get(asked["key"], "")
                ).decode()

    def _tell(self, namespace: str, name: str, pod: _Pod) -> None:
        if (state := pod.state()) and state != pod.told:
            behaviour = becomes_ready() if state == "ready" else crash_loop(log=pod.said())
            if self.cluster.pods.change(namespace, behaviour, pod=name):
                pod.told = state

    def _follow_services(self, namespace: str) -> None:
        services = {
            one["metadata"]["name"]: one
            for one in self.cluster.api.list("v1", "Service", namespace)
        }
        for name, service in services.items():
            if (namespace, name) not in self._proxies:
                address = "127." + service["spec"]["clusterIP"].partition(".")[2]
                place = (address, service["spec"]["ports"][0]["port"])
                self._proxies[namespace, name] = _Proxy(
                    place, lambda name=name: self._backend(namespace, name)
                )
                (self.folder / "names" / f"{name}.{namespace}.svc").write_text(address)
        for key in [key for key in self._proxies if key[0] == namespace and key[1] not in services]:
            (self.folder / "names" / f"{key[1]}.{namespace}.svc").unlink()
            self._proxies.pop(key).close()

    def _backend(self, namespace: str, name: str) -> int:
        """The port of a pod that a Service leads to; 0 for none."""
        if self.passing(name, namespace):
            return 0
        selector = f"kubernetes.io/service-name={name}"
        for one in self.cluster.api.list(*SLICE, namespace, selector):
            for endpoint in one.get("endpoints") or []:
                pod = self._pods.get((namespace, endpoint["targetRef"]["name"]))
                if pod and endpoint["conditions"]["ready"]:
                    return pod.port
        return 0

    def close(self) -> None:
        for pod in self._pods.values():
            pod.end()
        for proxy in self._proxies.values():
            proxy.close()


@contextmanager
def serving_pods_in(folder: Path, cluster: LiveCluster) -> Iterator[ServingPods]:
    """Lets pods serve inside; an error of its own is raised at the end."""
    (folder / "names").mkdir(parents=True)
    (folder / "sitecustomize.py").write_text(ADDRESSES)
    pods, ending, broken = ServingPods(cluster, folder), threading.Event(), list[Exception]()

    def work() -> None:
        while not ending.wait(0.3):
            try:
                pods.look()
            except Exception as error:
                broken.append(error)
                return

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield pods
    finally:
        ending.set()
        thread.join(timeout=60)
        pods.close()
    if broken:
        raise broken[0]


@dataclass
class _Pod:
    """A server of the bento in a pod's image."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path
    told: str = ""

    @classmethod
    def start(cls, pod: Mapping[str, Any], bento: Path, folder: Path) -> _Pod:
        (container, *_) = pod["spec"]["containers"]
        given = {one["name"]: one.get("value", "") for one in container.get("env") or []}
        basic = {key: os.environ[key] for key in ("PATH", "LANG") if key in os.environ}
        log = folder / f"{pod['metadata']['name']}.log"
        environment = {**basic, "HOME": str(folder), "BENTOML_HOME": str(folder / "store")}
        environment |= {"BENTOML_DO_NOT_TRACK": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
        environment["KUBERNETES_SERVICE_HOST"] = "10.96.0.1"  # as every pod has it
        with socket.create_server(("127.0.0.1", 0)) as listener, log.open("wb") as output:
            # Of what `bentoml serve` starts the one process that answers: half the time.
            command = [sys.executable, "-m", "_bentoml_impl.worker.service", str(bento)]
            process = subprocess.Popen(
                [*command, "--fd", str(listener.fileno()), "--worker-id", "1"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**environment, **given},
                pass_fds=[listener.fileno()],
                start_new_session=True,
            )
            return cls(process, listener.getsockname()[1], log)

    def state(self) -> str:
        """ready, ended, or nothing yet."""
        if self.process.poll() is not None:
            return "ended"
        if self.told == "ready":
            return "ready"  # a probe costs its processor time, too
        ready = f"http://127.0.0.1:{self.port}/readyz"
        with contextlib.suppress(OSError), urllib.request.urlopen(ready, timeout=0.5):
            return "ready"
        return ""

    def said(self) -> str:
        return self.log.read_text(errors="replace")[-2000:]

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        stop_group(self.process)


class _Proxy:
    """Passes connections to an address on to a port that is asked for with each."""

    def __init__(self, place: tuple[str, int], backend: Callable[[], int]) -> None:
        self._backend = backend
        self._listener = socket.create_server(place)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            if port := self._backend():
                with socket.create_connection(("127.0.0.1", port)) as server:
                    back = threading.Thread(target=_pump, args=(server, client), daemon=True)
                    back.start()
                    _pump(client, server)
                    back.join()


def _is_of_a_job(pod: Mapping[str, Any]) -> bool:
    owners = pod["metadata"].get("ownerReferences") or []
    return any(one["kind"] == "Job" for one in owners)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def _unpacked(image: str, folder: Path) -> Path:
    """The bento in an image of a registry on loopback."""
    host, _, rest = image.partition("/")
    repository, _, digest = rest.partition("@")
    made = folder / digest.partition(":")[2]
    if made.exists():
        return made

    def fetched(what: str) -> bytes:
        asked = urllib.request.Request(f"http://{host}/v2/{repository}/{what}")
        asked.add_header("Accept", MANIFEST)
        with urllib.request.urlopen(asked, timeout=60) as answer:
            return bytes(answer.read())

    partial = made.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    for layer in json.loads(fetched(f"manifests/{digest}"))["layers"]:
        if (layer.get("annotations") or {}).get("kfp-bento.kind") in LAYERS:
            packed = fetched(f"blobs/{layer['digest']}")
            if layer["mediaType"].endswith("zstd"):
                packed = zstandard.ZstdDecompressor().stream_reader(packed).read()
            with tarfile.open(fileobj=io.BytesIO(packed)) as files:
                files.extractall(partial, filter="data")
    (partial / "home/bentoml/bento").rename(made)
    return made
