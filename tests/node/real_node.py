"""One real node: containerd, kubelet and kube-proxy, in the world that `apart` makes.

Files, sockets and cgroups are its own. The only thing played is the cluster's DNS.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cluster_dns import DOMAIN, ClusterDns
from control_plane import IN_PODS, ControlPlane, control_plane_in, tail
from live_cluster import Cluster
from servers import ADDRESS, free_port

NODE = "node-a"
PODS = "10.78.0.0/24"
PAUSE = "localhost/pause:1"
PLUGINS = Path("/usr/lib/cni")
WANTED = ("conntrack", "containerd", "ip", "iptables", "openssl", "runc", "slirp4netns")
LOST_SECONDS = 40
READY_SECONDS = 300.0


def missing() -> str:
    """What a node needs and this machine or process lacks; empty where there is all of it."""
    if "KFP_BENTO_NODE_FOLDER" not in os.environ:
        return "not in a world of its own: make test-node"
    if lacking := [name for name in WANTED if shutil.which(name) is None]:
        return f"not installed: {', '.join(lacking)}"
    return "" if (PLUGINS / "bridge").exists() else "not installed: containernetworking-plugins"


class RealNode:
    """The processes of one node.

    Attributes:
        registries: Registries without TLS, `host:port`.
    """

    def __init__(self, plane: ControlPlane, registries: tuple[str, ...]) -> None:
        self._plane = plane
        self.registries = registries
        self.folder = Path(os.environ["KFP_BENTO_NODE_FOLDER"]) / "node"
        self.socket = self.folder / "containerd.sock"
        self._containerd = Path(shutil.which("containerd") or "containerd")
        self._kubelet, self._proxy = plane.programs / "kubelet", plane.programs / "kube-proxy"
        self._health = free_port()

    def start(self) -> None:
        self.folder.mkdir()
        self._write_files()
        self._plane.run_beside(
            self._containerd,
            f"--config={self.folder}/containerd.toml",
            ready=lambda: self._ctr("version").returncode == 0,
        )
        pause = self.folder / "pause.tar"
        pause.write_bytes(_pause_image(self._plane.programs / "pause"))
        imported = self._ctr("images", "import", str(pause))
        assert imported.returncode == 0, imported.stderr
        self._start_kubelet()
        health = f"{ADDRESS}:{free_port()}"
        self._plane.run_beside(
            self._proxy,
            f"--kubeconfig={self._plane.kubeconfig('kubelet')}",
            f"--hostname-override={NODE}",
            f"--healthz-bind-address={health}",
            "--proxy-mode=iptables",
            f"--cluster-cidr={PODS}",
            # Pods answer each other past the node otherwise.
            "--masquerade-all",
            # Settings of the whole machine stay as they are.
            "--conntrack-max-per-core=0",
            "--conntrack-tcp-timeout-established=0",
            "--conntrack-tcp-timeout-close-wait=0",
            ready=f"http://{health}/healthz",
        )

    def _start_kubelet(self) -> None:
        self._plane.run_beside(
            self._kubelet,
            f"--config={self.folder}/kubelet.json",
            f"--kubeconfig={self._plane.kubeconfig('kubelet')}",
            f"--root-dir={self.folder}/kubelet",
            f"--cert-dir={self.folder}/kubelet/pki",
            f"--hostname-override={NODE}",
            f"--node-ip={ADDRESS}",
            ready=f"http://{ADDRESS}:{self._health}/healthz",
        )

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """Inside, the node is as if it had been cut off: pods go on, and nobody says so."""
        self._plane.stop_beside(self._kubelet)
        try:
            yield
        finally:
            self._start_kubelet()

    def stop(self) -> None:
        """Ends the processes; containers and mounts end with the world around them."""
        for program in (self._kubelet, self._proxy, self._containerd):
            self._plane.stop_beside(program)

    def _ctr(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["ctr", f"--address={self.socket}", "--namespace=k8s.io", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def _write_files(self) -> None:
        network, hosts = self.folder / "cni", self.folder / "registries"
        network.mkdir()
        for host in self.registries:
            place = hosts / host
            place.mkdir(parents=True)
            (place / "hosts.toml").write_text(f'[host."http://{host}"]\n')
        (network / "10-bridge.conflist").write_text(json.dumps(_network()))
        (self.folder / "containerd.toml").write_text(
            "version = 2\n"
            f'root = "{self.folder}/containerd"\n'
            f'state = "{self.folder}/state"\n'
            f"[grpc]\naddress = '{self.socket}'\n"
            f'[plugins."io.containerd.internal.v1.opt"]\npath = "{self.folder}/opt"\n'
            '[plugins."io.containerd.grpc.v1.cri"]\n'
            f'sandbox_image = "{PAUSE}"\n'
            "disable_apparmor = true\nrestrict_oom_score_adj = true\n"
            "netns_mounts_under_state_dir = true\n"
            '[plugins."io.containerd.grpc.v1.cri".cni]\n'
            f'bin_dir = "{PLUGINS}"\nconf_dir = "{network}"\n'
            '[plugins."io.containerd.grpc.v1.cri".registry]\n'
            f'config_path = "{hosts}"\n'
        )
        (self.folder / "kubelet.json").write_text(json.dumps(self._kubelet_settings()))

    def _kubelet_settings(self) -> dict[str, Any]:
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": ADDRESS,
            "healthzPort": self._health,
            "healthzBindAddress": ADDRESS,
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "containerRuntimeEndpoint": f"unix://{self.socket}",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{os.environ['KFP_BENTO_NODE_CGROUP']}",
            "failCgroupV1": False,
            "failSwapOn": False,
            "clusterDNS": [ADDRESS],
            "clusterDomain": DOMAIN,
            "resolvConf": "/etc/resolv.conf",
            "podLogsDir": f"{self.folder}/logs",
            "staticPodPath": "",
            "serializeImagePulls": False,
            # The disk is not this node's alone.
            "imageGCHighThresholdPercent": 100,
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%"},
            "localStorageCapacityIsolation": True,
            "nodeStatusUpdateFrequency": "4s",
            # It finds what it wants, and writes nothing (`apart`).
            "protectKernelDefaults": True,
        }


class RealCluster(Cluster):
    """A control plane with one real node."""

    nodes = (NODE,)

    def __init__(self, plane: ControlPlane, registries: tuple[str, ...]) -> None:
        super().__init__(plane)
        self.node = RealNode(plane, registries)
        self.dns = ClusterDns(self.api)

    def wait_for_node(self) -> None:
        def ready() -> bool:
            live = self.api.get("v1", "Node", None, NODE) or {}
            conditions = live.get("status", {}).get("conditions") or []
            states = {one["type"]: one["status"] for one in conditions}
            return states.get("Ready") == "True" and not live["spec"].get("taints")

        self.until(f"{NODE} is ready", ready, READY_SECONDS)


@contextlib.contextmanager
def real_cluster_in(
    folder: Path, programs: Path, registries: tuple[str, ...]
) -> Iterator[RealCluster]:
    """A cluster with a node that runs containers, its registries by plain HTTP."""
    with control_plane_in(folder, programs, LOST_SECONDS) as plane:
        cluster = RealCluster(plane, registries)
        with cluster.dns:
            try:
                _lead_to_the_api_server(cluster)
                cluster.node.start()
                cluster.wait_for_node()
                yield cluster
            except (RuntimeError, TimeoutError) as failure:
                ends = [f"{log}:\n{tail(log)}" for log in cluster.plane.logs()]
                raise RuntimeError("\n".join([str(failure), *ends])) from failure
            finally:
                cluster.node.stop()


def _lead_to_the_api_server(cluster: RealCluster) -> None:
    """The Service `kubernetes`, which an API server writes that knows its own address."""
    port = int(cluster.plane.url.rpartition(":")[2])
    place = {"name": "kubernetes", "namespace": "default"}
    cluster.until("its namespace", lambda: cluster.api.get("v1", "Namespace", None, "default"))
    cluster.api.apply(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": place,
            "spec": {"clusterIP": IN_PODS, "ports": [{"name": "https", "port": 443}]},
        },
        force=True,
    )
    cluster.api.apply(
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {**place, "labels": {"kubernetes.io/service-name": "kubernetes"}},
            "addressType": "IPv4",
            "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
            "endpoints": [{"addresses": [ADDRESS], "conditions": {"ready": True}}],
        },
        force=True,
    )


def _network() -> dict[str, Any]:
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "ipMasq": True,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": PODS}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    plugins = [bridge, {"type": "portmap", "capabilities": {"portMappings": True}}]
    return {"cniVersion": "0.4.0", "name": "pods", "plugins": plugins}


def _pause_image(program: Path) -> bytes:
    """An image with one static program, as `docker save` writes it."""
    import hashlib

    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        entry = tar.gettarinfo(str(program), "pause")
        with program.open("rb") as stream:
            tar.addfile(entry, stream)
    digest = f"sha256:{hashlib.sha256(layer.getvalue()).hexdigest()}"
    config = {
        "architecture": "amd64" if os.uname().machine == "x86_64" else "arm64",
        "os": "linux",
        "config": {"Entrypoint": ["/pause"]},
        "rootfs": {"type": "layers", "diff_ids": [digest]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [PAUSE], "Layers": ["layer.tar"]}]
    files = {
        "config.json": json.dumps(config).encode(),
        "layer.tar": layer.getvalue(),
        "manifest.json": json.dumps(manifest).encode(),
    }
    image = io.BytesIO()
    with tarfile.open(fileobj=image, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return image.getvalue()
