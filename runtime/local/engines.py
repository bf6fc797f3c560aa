"""Container engines on this machine: is one usable, and how is an OCI layout run with it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import LocalRunError
from ..images.copy import copy_image
from ..images.image import Descriptor
from ..images.layout import LayoutSource

RUNTIME_VARIABLE = "KFP_BENTO_LOCAL_RUNTIME"  # podman, docker or process
USER = "1034:1034"
TEMPORARY = "/tmp"  # noqa: S108 - inside the container
# Engines ask for limits above what an unprivileged machine may set; these are always allowed.
LIMITS = ("--ulimit", "nofile=1024:4096", "--ulimit", "nproc=1024:2048")
# Outside systemd (in a pod, in CI) crun and the systemd cgroup manager are of no use.
PODMAN_WITHOUT_SYSTEMD = ("--runtime", "runc", "--cgroup-manager", "cgroupfs")


@dataclass(frozen=True)
class Engine:
    """A container engine that answered.

    Attributes:
        name: podman or docker.
        command: How it is called, with its global options.
        state: Podman's directory for the time it runs.
    """

    name: str
    command: tuple[str, ...]
    state: Path | None = None

    def call(self, *arguments: str, seconds: float = 300) -> str:
        """Run one engine command and give its standard output.

        Raises:
            LocalRunError: If it fails; with what it said last.
        """
        try:
            done = subprocess.run(
                [*self.command, *arguments], capture_output=True, text=True, timeout=seconds
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise LocalRunError(f"{self.name} {arguments[0]} failed: {error}") from error
        if done.returncode:
            said = done.stderr.strip().splitlines() or ["it gave no reason"]
            raise LocalRunError(f"{self.name} {arguments[0]} failed: {said[-1]}")
        return done.stdout.strip()

    def load(self, layout: Path) -> str:
        """Take an image out of an OCI layout directory and give the name to run it by.

        Podman keeps the image for the next run with the same digest, and only that one. Docker
        gets an archive of the one form that all its versions read.
        """
        source = LayoutSource(layout)
        found, tag = source.find_named()
        if self.name == "podman":
            name = _config_digest(source, found).removeprefix("sha256:")
            if name not in self.call("images", "--quiet", "--no-trunc"):
                self.call("rmi", "--all", "--force")
                self._pull_layout(layout, tag)
            return name
        with tempfile.TemporaryDirectory(prefix="kfp-bento-docker-") as folder:
            archive = f"{folder}/image.tar"
            copy_image(f"oci:{layout}:{tag}", f"docker-archive:{archive}")
            loaded = self.call("load", "--quiet", "--input", archive)
        return loaded.rpartition(": ")[2]

    def _pull_layout(self, layout: Path, tag: str) -> None:
        """Pull through a link of a plain name: podman names the image after its path."""
        assert self.state is not None  # noqa: S101 - podman has one
        link = self.state / "image"
        link.unlink(missing_ok=True)
        link.symlink_to(layout)
        try:
            # With its tag, since a layout holds the image's documents as well.
            self.call("pull", "--quiet", f"oci:{link}:{tag}")
        finally:
            link.unlink()

    def pull(self, image: str) -> str:
        """Take an image out of a registry, by digest, and give the name to run it by."""
        loopback = image.startswith(("127.0.0.1:", "localhost:"))
        plain_http = ["--tls-verify=false"] if self.name == "podman" and loopback else []
        self.call("pull", "--quiet", *plain_http, image)
        return image

    def run_arguments(self, image: str, name: str, environment: Mapping[str, str]) -> list[str]:
        """Give the command that runs an image in the foreground, locked down as in a pod.

        Read-only root, no capabilities, no privilege escalation, a numeric user and one writable
        temporary directory.
        """
        argv = [*self.command, "run", "--rm", "--pull", "never", "--name", name, *LIMITS]
        argv += ["--network", "host", "--user", USER, "--read-only", "--tmpfs", TEMPORARY]
        argv += ["--cap-drop", "all", "--security-opt", "no-new-privileges"]
        for key, value in environment.items():
            argv += ["--env", f"{key}={value}"]
        return [*argv, image]

    def remove(self, name: str) -> None:
        """Remove a container, running or not; a missing one is fine."""
        with contextlib.suppress(LocalRunError):
            self.call("rm", "--force", name, seconds=30)


@contextlib.contextmanager
def usable_engine(storage: Path) -> Iterator[Engine]:
    """Give the first engine that works here.

    Args:
        storage: Directory for podman's images and containers, kept for the next time. (Docker
            has its daemon's.)

    Raises:
        LocalRunError: If none works, saying why for each.
    """
    if platform.system() != "Linux":
        raise LocalRunError("containers on the host's network need Linux")
    wanted = os.environ.get(RUNTIME_VARIABLE, "")
    reasons = [f"{RUNTIME_VARIABLE} is {wanted}"] if wanted else []
    with _state_directory(storage) as state:
        for candidate in _candidates(storage, state):
            if wanted and candidate.name != wanted:
                continue
            if shutil.which(candidate.name) is None:
                reasons.append(f"{candidate.name} is not installed")
                continue
            try:
                _require_answer(candidate, storage)
            except LocalRunError as error:
                reasons.append(error.message)
                continue
            yield candidate
            return
    raise LocalRunError("; ".join(reasons))


@contextlib.contextmanager
def _state_directory(storage: Path) -> Iterator[Path]:
    """Give podman a place for its state while it runs, gone afterwards.

    Podman wants at most 50 characters, and the same path each time it uses the same storage.
    """
    key = hashlib.sha256(str(storage).encode()).hexdigest()[:12]
    state = Path(tempfile.gettempdir()) / f"kfp-bento-{key}"
    state.mkdir(mode=0o700, exist_ok=True)
    if state.is_symlink() or state.stat().st_uid != os.getuid():
        raise LocalRunError(f"{state} belongs to another user")
    try:
        yield state
    finally:
        _unmount(storage / "root" / "overlay")
        shutil.rmtree(state, ignore_errors=True)


def _candidates(storage: Path, state: Path) -> list[Engine]:
    private = ("--root", str(storage / "root"), "--runroot", str(state), "--tmpdir", str(state))
    special = () if Path("/run/systemd/system").is_dir() else PODMAN_WITHOUT_SYSTEMD
    return [Engine("podman", ("podman", *private, *special), state), Engine("docker", ("docker",))]


def _require_answer(engine: Engine, storage: Path) -> None:
    """Ask an engine for anything; what an earlier podman left is dropped if it is in the way.

    Podman refuses storage that was moved, or that another version wrote.
    """
    try:
        engine.call("info", seconds=20)
    except LocalRunError:
        if not storage.exists():
            raise
        _unmount(storage / "root" / "overlay")
        shutil.rmtree(storage, ignore_errors=True)
        engine.call("info", seconds=20)


def _unmount(overlay: Path) -> None:
    """Undo podman's mount of its storage on itself, which would keep the folder from removal.

    Tried without asking: `ismount` does not see a mount from the same file system.
    """
    if overlay.exists() and shutil.which("umount"):
        subprocess.run(["umount", "--lazy", str(overlay)], capture_output=True)


def _config_digest(source: LayoutSource, manifest: Descriptor) -> str:
    """Give the digest of the image's configuration, which is podman's id of the image."""
    document = json.loads(b"".join(source.open_blob(manifest)))
    digest: str = document["config"]["digest"]
    return digest
