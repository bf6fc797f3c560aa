"""Containers for tests: podman with a storage of its own, locked down as in a pod."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from servers import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

# The exact command that yatai-deployment puts into a pod.
YATAI_COMMAND = ["sh", "-c", "./env/docker/entrypoint.sh bentoml serve . --production"]
SECONDS = 300


@contextlib.contextmanager
def podman_in(folder: Path) -> Iterator[list[str]]:
    """The podman command with a storage of its own; skips where podman cannot run anything."""
    missing = [name for name in ("podman", "runc") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"not installed: {' and '.join(missing)}")
    run = tempfile.mkdtemp(prefix="podman")  # podman refuses one of more than 50 characters
    command = ["podman", "--root", f"{folder}/root", "--runroot", run]
    command += ["--runtime", "runc", "--cgroup-manager", "cgroupfs"]
    try:
        probe = subprocess.run([*command, "info"], capture_output=True, text=True, check=False)
        if probe.returncode != 0:
            pytest.skip(f"podman is not usable here: {probe.stderr.strip()}")
        yield command
    finally:
        # The overlay store is a mount of its own, which must go before its directory can.
        for place in (folder, Path(run)):
            for mounted in sorted(mounts_below(place), reverse=True):
                subprocess.run(["umount", "-l", mounted], check=False)
            shutil.rmtree(place, ignore_errors=True)


def mounts_below(folder: Path) -> list[str]:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [line.split()[1] for line in lines if line.split()[1].startswith(f"{folder}/")]


def run(podman: list[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Starts a container; skips where podman cannot, fails where the image is to blame."""
    command = [*podman, "run", "--network", "host", "--read-only", "--tmpfs", "/tmp"]
    command += ["--ulimit", "nofile=1024:4096", "--ulimit", "nproc=1024:2048"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    # 125 is podman's own failure; the runtime's word "exec" is about what the image holds.
    if done.returncode == 125 and 'exec: "' not in done.stderr:
        pytest.skip(f"podman cannot run a container here: {done.stderr.strip()[-300:]}")
    assert done.returncode == 0, done.stderr
    return done


@contextlib.contextmanager
def serving(podman: list[str], *arguments: str) -> Iterator[str]:
    """Runs a container until it is ready; gives its address."""
    port = free_port()
    options = ["--detach", "--user", "1034", "--cap-drop", "ALL"]
    options += ["--env", f"PORT={port}", "--env", "BENTOML_HOST=127.0.0.1"]
    started = run(podman, *options, *arguments)
    container = started.stdout.strip()
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_ready(podman, container, url)
        yield url
    finally:
        subprocess.run(
            [*podman, "rm", "--force", "--time", "2", container], capture_output=True, check=False
        )


def wait_until_ready(podman: list[str], container: str, url: str) -> None:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/readyz", timeout=2):
            return
        time.sleep(0.1)
    logs = subprocess.run([*podman, "logs", container], capture_output=True, text=True, check=False)
    pytest.fail(f"not ready after {SECONDS} s:\n{logs.stdout}{logs.stderr}")


def status(url: str) -> int:
    with urllib.request.urlopen(url, timeout=20) as answer:
        return int(answer.status)
