"""How long a container takes from its start to its first answer."""

from __future__ import annotations

import contextlib
import json
import shutil
import statistics
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from bench.registry import free_port

RUNS = 3
_PATIENCE = 300
_TOOLS = ("podman", "runc")


def seconds_to_first_answer(image: str, example: Path, scratch: Path) -> list[float]:
    """Start containers of an image one after the other; time each until it has answered.

    The image is pulled and unpacked before. A request is sent every 20 ms until one is answered.

    Args:
        image: `host:port/repository:tag` in a registry that speaks plain HTTP.
        example: The body of a request to `/invocations`, as JSON.
        scratch: Where podman's storage goes, which is taken away again.

    Returns:
        Seconds of each of `RUNS` containers; nothing where podman cannot start one.
    """
    if not all(map(shutil.which, _TOOLS)):
        return []
    storage = scratch / "podman"
    # podman refuses a longer path than 50 characters.
    with tempfile.TemporaryDirectory(prefix="podman") as runroot:
        podman = ["podman", "--root", str(storage), "--runroot", runroot]
        podman += ["--runtime", "runc", "--cgroup-manager", "cgroupfs"]
        try:
            pulled = _run([*podman, "pull", "--quiet", "--tls-verify=false", image])
            if pulled.returncode:
                return []
            found = [_started(podman, image, example.read_bytes()) for _ in range(RUNS)]
            return [round(seconds, 3) for seconds in found if seconds is not None]
        finally:
            _run([*podman, "rm", "--all", "--force", "--time", "0"])
            for place in (storage / "overlay", Path(runroot) / "overlay"):
                _run(["umount", "--lazy", str(place)])
            shutil.rmtree(storage, ignore_errors=True)


def median(seconds: Sequence[float]) -> float:
    """Give the median; 0 where nothing was measured."""
    return statistics.median(seconds) if seconds else 0.0


def _started(podman: list[str], image: str, body: bytes) -> float | None:
    """Start one container; give the seconds to its first answer, None where it did not start."""
    port = free_port()
    options = ["--detach", "--network", "host", "--env", f"PORT={port}"]
    options += ["--env", "BENTOML_HOST=127.0.0.1", "--tls-verify=false"]
    options += ["--ulimit", "nofile=1024:4096", "--ulimit", "nproc=1024:2048"]
    began = time.monotonic()
    started = _run([*podman, "run", *options, image])
    if started.returncode:
        return None
    try:
        while time.monotonic() < began + _PATIENCE:
            if _answers(f"http://127.0.0.1:{port}/invocations", body):
                return time.monotonic() - began
            time.sleep(0.02)
    finally:
        _run([*podman, "rm", "--force", "--time", "0", started.stdout.strip()])
    return None


def _answers(url: str, body: bytes) -> bool:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with (
        contextlib.suppress(OSError, json.JSONDecodeError),
        urllib.request.urlopen(request, timeout=30) as answer,
    ):
        json.load(answer)
        return True
    return False


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)
