"""The image really runs: under podman and runc, with a read-only root, as an ordinary user."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import time
import urllib.request
from importlib.metadata import version
from pathlib import Path
from platform import machine
from typing import TYPE_CHECKING

import pytest
from handmade import write, write_bento
from servers import free_port
from uv import find_uv_bin

from kfp_bento.runtime.images import build_image

if TYPE_CHECKING:
    from collections.abc import Iterator

# The exact command that yatai-deployment puts into a pod.
YATAI_COMMAND = ["sh", "-c", "./env/docker/entrypoint.sh bentoml serve . --production"]
SECONDS = 60


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """The podman command with a storage of its own; skips where podman cannot run anything."""
    missing = [name for name in ("podman", "runc") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"not installed: {' and '.join(missing)}")
    folder = tmp_path_factory.mktemp("podman")
    command = ["podman", "--root", f"{folder}/root", "--runroot", f"{folder}/run"]
    command += ["--runtime", "runc", "--cgroup-manager", "cgroupfs"]
    try:
        probe = subprocess.run([*command, "info"], capture_output=True, text=True, check=False)
        if probe.returncode != 0:
            pytest.skip(f"podman is not usable here: {probe.stderr.strip()}")
        yield command
    finally:
        # The overlay store is a mount of its own, which must go before its directory can.
        for mounted in sorted(mounts_below(folder), reverse=True):
            subprocess.run(["umount", "-l", mounted], check=False)
        shutil.rmtree(folder, ignore_errors=True)


def mounts_below(folder: Path) -> list[str]:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [line.split()[1] for line in lines if line.split()[1].startswith(f"{folder}/")]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The image of a small service with the real BentoML, on the host base."""
    folder = tmp_path_factory.mktemp("image")
    wanted = write(folder / "requirements.in", f"bentoml=={version('bentoml')}\n")
    command = [find_uv_bin(), "pip", "compile", "--generate-hashes", "--no-header", "--quiet"]
    command += ["--no-emit-index-url", "--python-platform", f"{machine()}-manylinux_2_28"]
    locked = subprocess.run(
        [*command, wanted], capture_output=True, text=True, check=False, cwd=folder
    )
    if locked.returncode != 0:
        pytest.skip(f"BentoML's dependencies cannot be locked here: {locked.stderr.strip()}")
    bento = write_bento(folder / "bento", locked.stdout)
    build_image(bento, f"oci:{folder}/out", base="host")
    return f"oci:{folder}/out:v1"


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


def ask(url: str) -> int:
    request = urllib.request.Request(
        f"{url}/multiply",
        data=json.dumps({"number": 21}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        return int(answer.read())


def status(url: str) -> int:
    with urllib.request.urlopen(url, timeout=20) as answer:
        return int(answer.status)


def test_it_serves_from_its_entrypoint_with_a_read_only_root(podman: list[str], image: str) -> None:
    with serving(podman, image) as url:
        assert status(f"{url}/livez") == 200
        assert status(f"{url}/metrics") == 200
        assert ask(url) == 42


def test_it_serves_under_the_start_command_of_yatai(podman: list[str], image: str) -> None:
    with serving(podman, "--entrypoint", json.dumps(YATAI_COMMAND), image) as url:
        assert status(f"{url}/livez") == 200
        assert ask(url) == 42


def test_it_serves_as_a_user_that_nobody_knows(podman: list[str], image: str) -> None:
    with serving(podman, "--user", "1000680000:0", image) as url:
        assert ask(url) == 42


def test_it_starts_from_bytecode_and_only_from_its_own_files(podman: list[str], image: str) -> None:
    probe = (
        "import bentoml, sys; "
        "print(all(p.startswith(('/app/.venv/', '/usr/local/')) for p in sys.path if p), "
        "bentoml.__cached__.endswith('.pyc'), sys.prefix, sys.base_prefix)"
    )
    done = run(podman, "--rm", image, "python", "-c", probe)
    assert done.stdout.split() == ["True", "True", "/app/.venv", "/usr/local"], done.stderr
