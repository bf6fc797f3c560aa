"""A Kubernetes control plane on this machine: etcd, API server, controllers, scheduler.

The programs are the real ones, built by `build-tools` from their Go modules. Certificates and
tokens are made for one run and die with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

from servers import ADDRESS, free_port, stop_group

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

NO_TOOLS = 69  # what `build-tools` answers where it has nothing to build with
START_SECONDS = 180.0
GOODBYE_SECONDS = 3.0
IN_PODS = "10.96.0.1"
"""Where pods find the API server: the first address of the range of Services."""

# user, its groups: who may talk to the API server from the start
_IDENTITIES = {
    "admin": "system:masters",
    "kubelet": "system:masters",
    "system:kube-controller-manager": "",
    "system:kube-scheduler": "",
}
# Reads lists of process groups; when nobody can write any more it ends those of the last.
_GUARDIAN = """
while read -r line; do groups=$line; done
for group in $groups; do kill -s KILL -- "-$group"; done
"""


class ToolsMissing(Exception):
    """The programs are not here and cannot be built here."""


def built_programs(of: str = "control-plane") -> Path:
    """The folder with the programs of a `control-plane` or `node`; builds what is missing."""
    if shutil.which("openssl") is None:
        raise ToolsMissing("not installed: openssl")
    script = Path(__file__).with_name("build-tools")
    done = subprocess.run([str(script), of], capture_output=True, text=True, check=False)
    if done.returncode == NO_TOOLS:
        raise ToolsMissing(done.stderr.strip())
    if done.returncode != 0:
        raise RuntimeError(f"build-tools failed:\n{done.stderr}")
    return Path(done.stdout.strip())


class ControlPlane:
    """The processes of one cluster, their files and their addresses.

    Args:
        programs: The folder that has them.
        folder: Where their files go.
        lost_seconds: Seconds without a sign of life after which a node counts as lost.
    """

    def __init__(self, programs: Path, folder: Path, lost_seconds: int = 600) -> None:
        self.folder = folder
        self.lost_seconds = lost_seconds
        self.url = f"https://{ADDRESS}:{free_port()}"
        self.programs = programs
        self._tokens = {user: secrets.token_hex(16) for user in _IDENTITIES}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._guardian: subprocess.Popen[bytes] | None = None
        self._etcd = f"http://{ADDRESS}:{free_port()}"

    @property
    def process_groups(self) -> list[int]:
        """Ids of what runs."""
        return [process.pid for process in self._processes.values()]

    @property
    def ca(self) -> Path:
        """The certificate that vouches for the API server."""
        return self.folder / "ca.crt"

    @property
    def server_certificate(self) -> tuple[Path, Path]:
        """Certificate and key for any server here."""
        return self.folder / "server.crt", self.folder / "server.key"

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        _make_certificates(self.folder)
        tokens = [
            f'{token},{user},{user},"{_IDENTITIES[user]}"\n' for user, token in self._tokens.items()
        ]
        _write_private(self.folder / "tokens.csv", "".join(tokens))
        self._start_etcd()
        self.start_api_server()
        self._start_controllers()

    def stop(self) -> None:
        for name in list(self._processes):
            self._stop(name, abruptly=True)  # nothing is kept, so nothing has to be tidied
        if self._guardian and self._guardian.stdin:
            self._guardian.stdin.close()
            self._guardian.wait(timeout=10)
            self._guardian = None

    def start_api_server(self) -> None:
        certificate, key = self.server_certificate
        self._run(
            "kube-apiserver",
            f"--etcd-servers={self._etcd}",
            f"--bind-address={ADDRESS}",
            f"--secure-port={self.url.rpartition(':')[2]}",
            f"--tls-cert-file={certificate}",
            f"--tls-private-key-file={key}",
            f"--token-auth-file={self.folder}/tokens.csv",
            "--authorization-mode=RBAC",
            "--anonymous-auth=false",
            f"--service-account-key-file={self.folder}/service-accounts.key",
            f"--service-account-signing-key-file={self.folder}/service-accounts.key",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-cluster-ip-range=10.96.0.0/16",
            # It writes its own address into a Service, and refuses loopback there.
            "--endpoint-reconciler-type=none",
            "--kubelet-preferred-address-types=InternalIP",
            "--profiling=false",
        )
        ready = self._answers(f"{self.url}/readyz", token=self._tokens["admin"])
        self._wait_for("kube-apiserver", ready)

    def stop_api_server(self, *, abruptly: bool = False) -> None:
        self._stop("kube-apiserver", abruptly=abruptly)

    def restart_controllers(self) -> None:
        """Starts them anew; by themselves they would wait half a minute before they try again."""
        with self.controllers_away():
            pass

    @contextlib.contextmanager
    def controllers_away(self) -> Iterator[None]:
        """Inside nobody makes pods, nor collects what has lost its owner."""
        for name in ("kube-controller-manager", "kube-scheduler"):
            self._stop(name, abruptly=True)
        try:
            yield
        finally:
            self._start_controllers()

    def kubeconfig(self, user: str, token: str = "", namespace: str = "") -> Path:
        """A kubeconfig for one of the known users, or for anybody with a token."""
        path = self.folder / f"{user.replace(':', '-')}.kubeconfig"
        context = {"cluster": "test", "user": user} | (
            {"namespace": namespace} if namespace else {}
        )
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": "test",
                    "cluster": {"server": self.url, "certificate-authority": str(self.ca)},
                }
            ],
            "users": [{"name": user, "user": {"token": token or self._tokens[user]}}],
            "contexts": [{"name": "test", "context": context}],
            "current-context": "test",
        }
        _write_private(path, json.dumps(config))
        return path

    def run_beside(
        self, program: Path, *options: str, ready: str | Callable[[], bool], **environment: str
    ) -> None:
        """Starts another program that ends with the cluster, and waits until it is ready.

        Args:
            program: The program; its log has its name.
            options: What it is told.
            ready: A URL that answers then, or what says so.
            environment: Variables besides this process's.
        """
        self._run(program.name, *options, program=program, environment=environment)
        self._wait_for(program.name, self._answers(ready) if isinstance(ready, str) else ready)

    def stop_beside(self, program: Path) -> None:
        """Stops what `run_beside` started."""
        self._stop(program.name)

    def logs(self) -> list[Path]:
        return sorted(self.folder.glob("*.log"))

    def _start_controllers(self) -> None:
        self._run(
            "kube-controller-manager",
            f"--kubeconfig={self.kubeconfig('system:kube-controller-manager')}",
            f"--service-account-private-key-file={self.folder}/service-accounts.key",
            f"--root-ca-file={self.ca}",
            # A busy machine must not make nodes look dead.
            f"--node-monitor-grace-period={self.lost_seconds}s",
            "--leader-elect=false",
            "--secure-port=0",
            "--use-service-account-credentials=true",
        )
        self._run(
            "kube-scheduler",
            f"--kubeconfig={self.kubeconfig('system:kube-scheduler')}",
            "--leader-elect=false",
            "--secure-port=0",
        )

    def _start_etcd(self) -> None:
        peer = f"http://{ADDRESS}:{free_port()}"
        self._run(
            "etcd",
            f"--data-dir={self.folder}/etcd",
            f"--listen-client-urls={self._etcd}",
            f"--advertise-client-urls={self._etcd}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            # Nothing here has to outlive a power cut.
            "--unsafe-no-fsync",
            "--log-level=warn",
        )
        self._wait_for("etcd", self._answers(f"{self._etcd}/health"))

    def _run(
        self,
        name: str,
        *options: str,
        program: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        log = self.folder / f"{name}.log"
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("ETCD_")}
        with log.open("ab") as output:
            self._processes[name] = subprocess.Popen(
                [str(program or self.programs / name), *options],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=inherited | dict(environment or {}),
                start_new_session=True,
            )
        self._tell_guardian()

    def _tell_guardian(self) -> None:
        """A process that outlives this one, however it ends, and then ends all it was told of."""
        if self._guardian is None:
            self._guardian = subprocess.Popen(
                ["sh", "-c", _GUARDIAN],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        assert self._guardian.stdin
        self._guardian.stdin.write(f"{' '.join(map(str, self.process_groups))}\n".encode())
        self._guardian.stdin.flush()

    def _stop(self, name: str, *, abruptly: bool = False) -> None:
        process = self._processes.pop(name, None)
        if process is None:
            return
        if not abruptly:
            process.terminate()
            # It says goodbye to nobody who watches over HTTP/1.1, and waits for them instead.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=GOODBYE_SECONDS)
        process.kill()
        stop_group(process)
        self._tell_guardian()

    def _answers(self, url: str, *, token: str = "") -> Callable[[], bool]:
        request = urllib.request.Request(url)
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        trust = ssl.create_default_context(cafile=str(self.ca))

        def look() -> bool:
            with (
                contextlib.suppress(OSError),
                urllib.request.urlopen(request, timeout=2, context=trust),
            ):
                return True
            return False

        return look

    def _wait_for(self, name: str, ready: Callable[[], bool]) -> None:
        process = self._processes[name]
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise RuntimeError(f"{name} ended at once:\n{tail(self.folder / f'{name}.log')}")
            if ready():
                return
            time.sleep(0.1)
        raise RuntimeError(f"{name} gave no answer:\n{tail(self.folder / f'{name}.log')}")


@contextlib.contextmanager
def control_plane_in(
    folder: Path, programs: Path, lost_seconds: int = 600
) -> Iterator[ControlPlane]:
    plane = ControlPlane(programs, folder, lost_seconds)
    try:
        plane.start()
        yield plane
    finally:
        plane.stop()


def tail(log: Path, characters: int = 3000) -> str:
    return log.read_text(errors="replace")[-characters:] if log.is_file() else "(no log)"


def _make_certificates(folder: Path) -> None:
    """One authority, one certificate for all servers here, one key for tokens."""
    ca, server = folder / "ca", folder / "server"
    _openssl(
        *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test-ca"),
        *("-addext", "keyUsage=critical,keyCertSign,digitalSignature"),
        *("-keyout", f"{ca}.key", "-out", f"{ca}.crt"),
    )
    _openssl(
        *("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1"),
        *("-keyout", f"{server}.key", "-out", f"{server}.csr"),
    )
    extensions = folder / "server.ext"
    extensions.write_text(
        f"subjectAltName=IP:127.0.0.1,IP:{ADDRESS},IP:{IN_PODS},DNS:localhost\n"
        "extendedKeyUsage=serverAuth\n"
        "subjectKeyIdentifier=hash\n"
        "authorityKeyIdentifier=keyid\n"
    )
    _openssl(
        *("x509", "-req", "-days", "2", "-in", f"{server}.csr", "-out", f"{server}.crt"),
        *("-CA", f"{ca}.crt", "-CAkey", f"{ca}.key", "-CAcreateserial"),
        *("-extfile", str(extensions)),
    )
    _openssl("genrsa", "-out", str(folder / "service-accounts.key"), "2048")


def _openssl(*arguments: str) -> None:
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"openssl {arguments[0]} failed: {done.stderr}")


def _write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)
