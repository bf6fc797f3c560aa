"""Debian's docker-registry on a loopback port, with states that can be kept and brought back."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.counting_proxy import Count

BASE = "base:3.11"
"""Where the base image is, below the address."""

_BLOBS = Path("docker/registry/v2/blobs/sha256")
_MANIFESTS = "application/vnd.oci.image.manifest.v1+json"
_CHUNK = 1 << 20


def registry_binary() -> str | None:
    """Give the registry's program, if it is installed."""
    return shutil.which("docker-registry") or shutil.which("registry")


class Registry:
    """One registry; its address stays the same when it is restarted, emptied or counted.

    Args:
        directory: Where its blobs, its states and its log go.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._storage = directory / "storage"
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)
        self._port = free_port()
        self.address = f"127.0.0.1:{self._port}"

    def __enter__(self) -> Registry:
        self._start(self._port)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def keep(self, state: str) -> None:
        """Keep all that it holds now under a name."""
        _copy_storage(self._storage, self._state(state))

    def has(self, state: str) -> bool:
        """Whether something was kept under this name."""
        return self._state(state).is_dir()

    def bring_back(self, state: str) -> None:
        """Make it hold what it held when this was kept, and nothing else."""
        self._stop()
        _copy_storage(self._state(state), self._storage)
        self._start(self._port)

    @contextlib.contextmanager
    def counted(self) -> Iterator[list[Count]]:
        """Put the counting proxy in its place; the list holds the count afterwards."""
        counts: list[Count] = []
        inner = free_port()
        self._stop()
        self._start(inner)
        proxy = subprocess.Popen(
            [sys.executable, "-m", "bench.counting_proxy", str(self._port), str(inner)],
            cwd=Path(__file__).parents[1],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            assert proxy.stdout is not None
            if proxy.stdout.readline() != b"ready\n":
                raise RuntimeError("The counting proxy did not start.")
            yield counts
            counts.append(Count(**json.loads(proxy.communicate(timeout=30)[0])))
        finally:
            proxy.kill()
            proxy.communicate()
            self._stop()
            self._start(self._port)

    def image_sizes(self, repository: str, reference: str) -> tuple[int, int]:
        """Bytes of an image as it is pulled (config and layers), and as tar files of its layers."""
        manifest = self._get(f"{repository}/manifests/{reference}")
        layers = manifest["layers"]
        pulled: int = manifest["config"]["size"] + sum(layer["size"] for layer in layers)
        return pulled, sum(self._unpacked_size(layer) for layer in layers)

    def bytes_above_base(self, repository: str, reference: str) -> int:
        """Bytes that a node pulls which has the base: the config, and layers that are not in it."""
        base = {layer["digest"] for layer in self._get(BASE.replace(":", "/manifests/"))["layers"]}
        manifest = self._get(f"{repository}/manifests/{reference}")
        own = (layer["size"] for layer in manifest["layers"] if layer["digest"] not in base)
        return int(manifest["config"]["size"] + sum(own))

    def _unpacked_size(self, layer: dict[str, Any]) -> int:
        hexadecimal = str(layer["digest"]).partition(":")[2]
        blob = self._storage / _BLOBS / hexadecimal[:2] / hexadecimal / "data"
        media_type = str(layer["mediaType"])
        if media_type.endswith("gzip"):
            return _inflated_size(blob)
        if media_type.endswith("zstd"):
            import zstandard

            with blob.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as plain:
                return sum(len(piece) for piece in iter(lambda: plain.read(_CHUNK), b""))
        return blob.stat().st_size

    def _get(self, path: str) -> dict[str, Any]:
        url = f"http://{self.address}/v2/{path}"
        request = urllib.request.Request(url, headers={"Accept": _MANIFESTS})
        with urllib.request.urlopen(request, timeout=30) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    def _state(self, name: str) -> Path:
        return self._directory / "states" / name

    def _start(self, port: int) -> None:
        binary = registry_binary()
        assert binary is not None, "the caller looks before"
        config = self._directory / "config.yml"
        config.write_text(
            "version: 0.1\n"
            "log: {level: error, accesslog: {disabled: true}}\n"
            "storage:\n"
            f"  filesystem: {{rootdirectory: '{self._storage}'}}\n"
            "  delete: {enabled: true}\n"
            f"http: {{addr: '127.0.0.1:{port}'}}\n"
        )
        with (self._directory / "registry.log").open("ab") as log:
            self._process = subprocess.Popen(
                [binary, "serve", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._wait(f"http://127.0.0.1:{port}/v2/")

    def _wait(self, url: str) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                break
            with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2):
                return
            time.sleep(0.02)
        raise RuntimeError(f"The registry does not answer; see {self._directory}/registry.log.")

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _copy_storage(source: Path, target: Path) -> None:
    """Copy a registry's directory; blobs are linked, since the registry never writes to one."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, copy_function=_link_blob, ignore=_uploads)


def _link_blob(source: str, target: str) -> None:
    if os.path.basename(source) == "data" and f"/{_BLOBS}/" in source:  # noqa: PTH119
        os.link(source, target)
    else:
        shutil.copyfile(source, target)


def _uploads(_: str, names: list[str]) -> list[str]:
    return [name for name in names if name == "_uploads"]


def _inflated_size(blob: Path) -> int:
    size, plain = 0, zlib.decompressobj(31)
    with blob.open("rb") as file:
        while chunk := file.read(_CHUNK):
            size += len(plain.decompress(chunk))
    return size


def free_port() -> int:
    """Give a port of the loopback interface that nobody uses now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
