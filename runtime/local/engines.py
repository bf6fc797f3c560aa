"""Container engines on this machine: is one usable, and how is an image run with it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kfp_bento.runtime.errors import ImageError, LocalRunError
from kfp_bento.runtime.files import parse_json
from kfp_bento.runtime.images import BENTO, USER_ID, LayoutReference, copy_image
from kfp_bento.runtime.local.layouts import LayoutImage, read_layout
from kfp_bento.runtime.local.private import is_ours_alone
from kfp_bento.runtime.programs import NETWORK, clean_environment, run_program

RUNTIME_VARIABLE = "KFP_BENTO_LOCAL_RUNTIME"  # podman, docker or process
USER = f"{USER_ID}:{USER_ID}"
TEMPORARY = "/tmp"  # noqa: S108 - inside the container
# Engines ask for limits above what an unprivileged machine may set; these are always allowed.
LIMITS = ("--ulimit", "nofile=1024:4096", "--ulimit", "nproc=1024:2048")
# Podman takes 50 characters, with the name of our directory below.
LONGEST_PLACE = 26
# Outside systemd (in a pod, in CI) crun and the systemd cgroup manager are of no use.
PODMAN_WITHOUT_SYSTEMD = ("--runtime", "runc", "--cgroup-manager", "cgroupfs")
ENGINE = (
    *("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY"),
    *("DOCKER_API_VERSION", "CONTAINERS_*", "STORAGE_DRIVER", "STORAGE_OPTS", "_CONTAINERS_*"),
    *("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "DBUS_SESSION_BUS_ADDRESS"),
)
"""Where an engine's daemon, storage and settings are."""
PULLING = ("REGISTRY_AUTH_FILE", *NETWORK)
"""What only a pull needs: the login to a registry, and how it is reached."""


@dataclass(frozen=True)
class Engine:
    """A container engine that answered.

    Attributes:
        name: podman or docker.
        command: How it is called, with its global options.
        state: Podman's directory for the time it runs.
        stopped: Ends whatever it does when set.
    """

    name: str
    command: tuple[str, ...]
    state: Path | None = None
    stopped: threading.Event = field(default_factory=threading.Event)

    @property
    def environment(self) -> dict[str, str]:
        """What the engine gets of our environment: nothing of which goes into a container."""
        return clean_environment(ENGINE)

    def call(
        self, *arguments: str, seconds: float = 300, environment: Mapping[str, str] | None = None
    ) -> str:
        """Run one engine command and give its standard output.

        Raises:
            LocalRunError: If it fails; with what it said last.
        """
        doing = f"{self.name} {arguments[0]}"
        done = run_program(
            [*self.command, *arguments],
            doing=doing,
            directory=Path("/"),
            environment=environment or self.environment,
            seconds=seconds,
            error=LocalRunError,
            cancelled=self.stopped,
        )
        if done.status:
            raise LocalRunError(f"{doing} failed: {done.last_lines(1)}")
        return done.output.strip()

    def load(self, image: LayoutImage) -> str:
        """Take an image out of an OCI layout directory and give the name to run it by.

        Podman keeps the image for the next run with the same digest, and only that one, besides
        what runs at the moment. Docker gets an archive of the one form that all its versions read.

        Raises:
            ImageError: The layout holds another image by now.
        """
        if self.name == "podman":
            name = image.config_digest.removeprefix("sha256:")
            if name not in self.call("images", "--quiet", "--no-trunc"):
                for leftover in (("container", "prune", "--force"), ("rmi", "--all")):
                    with contextlib.suppress(LocalRunError):  # an image is in use
                        self.call(*leftover)
                self._pull_layout(image)
            return name  # by its digest, whatever it was that was pulled
        with tempfile.TemporaryDirectory(prefix="kfp-bento-docker-") as folder:
            archive = f"{folder}/image.tar"
            layout = LayoutReference(image.directory, image.tag)
            copy_image(str(layout), f"docker-archive:{archive}")
            if read_layout(layout) != image:
                raise ImageError(f"The OCI layout {image.directory} changed while it was read.")
            loaded = self.call("load", "--quiet", "--input", archive)
        return loaded.rpartition(": ")[2]

    def _pull_layout(self, image: LayoutImage) -> None:
        """Pull through a link of a plain name: podman names the image after its path."""
        assert self.state is not None  # noqa: S101 - podman has one
        link = self.state / "image"
        link.unlink(missing_ok=True)
        link.symlink_to(image.directory)
        try:
            # With its tag, since a layout holds the image's documents as well.
            self.call("pull", "--quiet", f"oci:{link}:{image.tag}")
        finally:
            link.unlink()

    def pull(self, image: str, bento_tag: str) -> str:
        """Take an image out of a registry, by digest, and give the name to run it by.

        Raises:
            ImageError: It says that it was made of another bento.
            LocalRunError: It cannot be had.
        """
        loopback = image.startswith(("127.0.0.1:", "localhost:"))
        plain_http = ["--tls-verify=false"] if self.name == "podman" and loopback else []
        reaching = clean_environment(ENGINE, PULLING)
        self.call("pull", "--quiet", *plain_http, image, environment=reaching)
        labels = self.call("image", "inspect", "--format", "{{json .Config.Labels}}", image)
        try:
            made_of = parse_json(labels.encode()).get(BENTO, bento_tag)
        except ValueError:  # null: it has none
            made_of = bento_tag
        if made_of != bento_tag:
            raise ImageError(f"The image {image} was not made of the bento {bento_tag}.")
        return image

    def run_arguments(
        self,
        image: str,
        name: str,
        environment: Mapping[str, str],
        *,
        network: str = "host",
        shared: Mapping[Path, str] | None = None,
    ) -> list[str]:
        """Give the command that runs an image in the foreground, locked down as in a pod.

        Read-only root, no capabilities, no privilege escalation, a numeric user and one writable
        temporary directory.

        Args:
            image: What `load` or `pull` gave.
            name: What to call the container.
            environment: Variables inside; an empty value stands for that of the engine's own
                environment, which nobody reads in a list of processes.
            network: `host`, or `none` for the loopback interface and nothing more.
            shared: Directories of ours, by the path that they get inside.
        """
        argv = [*self.command, "run", "--rm", "--pull", "never", "--name", name, *LIMITS]
        argv += ["--network", network, "--user", USER, "--read-only", "--tmpfs", TEMPORARY]
        argv += ["--cap-drop", "all", "--security-opt", "no-new-privileges"]
        if self.name == "podman":
            argv.append("--http-proxy=false")  # its address may hold an account
        for directory, inside in (shared or {}).items():
            argv += ["--volume", f"{directory}:{inside}:rw,Z"]
        for key, value in environment.items():
            argv += ["--env", f"{key}={value}" if value else key]
        return [*argv, image]

    def exec_arguments(self, name: str, *command: str) -> list[str]:
        """Give the command that runs a program in a running container."""
        return [*self.command, "exec", name, *command]

    def ask(self, name: str, *command: str) -> str | None:
        """Run a program in a container and give what it prints; None where it fails."""
        try:
            return self.call("exec", name, *command, seconds=30)
        except LocalRunError:
            return None

    def remove(self, name: str) -> None:
        """Remove a container, running or not; a missing one is fine."""
        with contextlib.suppress(LocalRunError):
            Engine(self.name, self.command).call("rm", "--force", name, seconds=30)


@contextlib.contextmanager
def usable_engine(storage: Path, stopped: threading.Event | None = None) -> Iterator[Engine]:
    """Give the first engine that works here.

    Args:
        storage: Directory for podman's images and containers, kept for the next time. (Docker
            has its daemon's.)
        stopped: Ends whatever an engine does when set.

    Raises:
        LocalRunError: If none works, saying why for each.
    """
    if platform.system() != "Linux":
        raise LocalRunError("containers on the host's network need Linux")
    wanted = os.environ.get(RUNTIME_VARIABLE, "")
    reasons = [f"{RUNTIME_VARIABLE} is {wanted}"] if wanted else []
    with _state_directory(storage) as state:
        for candidate in _candidates(storage, state, stopped or threading.Event()):
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

    Podman wants at most 50 characters, and the same path each time it uses the same storage; if
    it gets another, the storage is made anew.
    """
    key = hashlib.sha256(str(storage).encode()).hexdigest()[:12]
    state = _private_place() / f"kfp-bento-{key}"
    try:
        state.mkdir(mode=0o700, exist_ok=True)
        if not is_ours_alone(state):
            raise FileExistsError
    except FileExistsError:  # somebody took the name, in a directory that all may write to
        state = Path(tempfile.mkdtemp(prefix="kfp-bento-", dir=state.parent))
    try:
        yield state
    finally:
        _unmount(storage / "root" / "overlay")
        shutil.rmtree(state, ignore_errors=True)


def _private_place() -> Path:
    """Give the directory that the system has for this user's sockets, else that for all."""
    place = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
    short = len(str(place)) <= LONGEST_PLACE
    return place if short and is_ours_alone(place) else Path(tempfile.gettempdir())


def _candidates(storage: Path, state: Path, stopped: threading.Event) -> list[Engine]:
    private = ("--root", str(storage / "root"), "--runroot", str(state), "--tmpdir", str(state))
    special = () if Path("/run/systemd/system").is_dir() else PODMAN_WITHOUT_SYSTEMD
    return [
        Engine("podman", ("podman", *private, *special), state, stopped),
        Engine("docker", ("docker",), stopped=stopped),
    ]


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
        with contextlib.suppress(LocalRunError):
            run_program(
                ["umount", "--lazy", str(overlay)],
                doing="Unmounting",
                directory=Path("/"),
                environment=clean_environment(),
                seconds=30,
                error=LocalRunError,
            )
