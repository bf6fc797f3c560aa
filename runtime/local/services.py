"""Serving a release on this machine: the image in a container, else its bento as a process."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kfp_bento.runtime.bentos import Bento, is_whole, load_bento
from kfp_bento.runtime.errors import InvalidInput, LocalRunError
from kfp_bento.runtime.images import unpack_bento
from kfp_bento.runtime.local import listening
from kfp_bento.runtime.local.bento_process import (
    API_TOKEN,
    START_SECONDS,
    Listening,
    bento_process,
)
from kfp_bento.runtime.local.engines import Engine, usable_engine
from kfp_bento.runtime.local.processes import (
    LIVE,
    free_port,
    last_lines,
    log_size,
    wait_until_answers,
)
from kfp_bento.runtime.local.relay import INSIDE, SOCKET, relay
from kfp_bento.runtime.local.request import CheckedRelease
from kfp_bento.runtime.programs import start_program
from kfp_bento.runtime.proof import locked_environment

if TYPE_CHECKING:
    import subprocess

NETWORK_VARIABLE = "KFP_BENTO_LOCAL_NETWORK"
NETWORKS = ("host", "none")
# Where a container without network finds the directory that it shares with our relay.
SHARED = "/kfp-bento"
INNER_PORT = 3000


@dataclass(frozen=True)
class Service:
    """A release that answers on this machine.

    Attributes:
        url: Base URL on the loopback address.
        runtime: podman, docker or process.
        note: Why the image itself does not run, when the runtime is process; else empty.
    """

    url: str
    runtime: str
    note: str = ""


def chosen_network(wanted: str = "") -> str:
    """Give the network that services get: what is wanted, else what the environment says.

    Raises:
        InvalidInput: No such network.
    """
    network = wanted or os.environ.get(NETWORK_VARIABLE, "") or NETWORKS[0]
    if network not in NETWORKS:
        raise InvalidInput(
            f"network: {network!r} is none that a local service can have.",
            hint=f"Set {NETWORK_VARIABLE} or --network to host, or to none.",
        )
    return network


@dataclass(frozen=True)
class Services:
    """How releases are served here.

    Attributes:
        directory: Scratch space of ours for logs and engine storage.
        stopped: Ends a start-up early when set.
        network: `host`, or `none`: what runs reaches nothing but itself.
        engine: The container engine that is usable here, if one is.
        note: Why none is.
        cache: Where environments of processes are kept; see `locked_environment`.
        path: What is asked until a service answers.
    """

    directory: Path
    stopped: threading.Event
    network: str
    engine: Engine | None
    note: str = ""
    cache: Path | None = None
    path: str = LIVE

    @classmethod
    @contextlib.contextmanager
    def at(
        cls,
        directory: Path,
        stopped: threading.Event,
        network: str,
        cache: Path | None = None,
    ) -> Iterator[Services]:
        """Look for an engine, and keep what it needs for the length of a block."""
        with contextlib.ExitStack() as stack:
            try:
                engine = stack.enter_context(usable_engine(directory / "containers", stopped))
            except LocalRunError as error:
                yield cls(directory, stopped, network, None, error.message.splitlines()[0], cache)
            else:
                yield cls(directory, stopped, network, engine, cache=cache)

    @contextlib.contextmanager
    def serve(self, release: CheckedRelease) -> Iterator[Service]:
        """Serve a release for the length of a block.

        The image runs in podman or docker where one is usable; otherwise the same bento with the
        same locked dependencies runs as a process, and the note says why.

        Raises:
            ImageError: The image is another than was asked for.
            LocalRunError: The service does not become ready, or could not be kept from the
                network.
        """
        with contextlib.ExitStack() as stack:
            note = self.note
            service = None
            if self.engine is not None:
                try:
                    service = stack.enter_context(self._in_container(self.engine, release))
                except LocalRunError as error:
                    stack.close()
                    if self.stopped.is_set() or self.network == "none":
                        raise
                    note = error.message.splitlines()[0]
            if service is None:
                if self.network == "none":
                    raise LocalRunError(
                        f"The release cannot be kept from the network here: {note}",
                        hint="That takes podman or docker. To let it run as a process that "
                        f"reaches every network, set {NETWORK_VARIABLE}=host.",
                    )
                bento = stack.enter_context(self._whole(release))
                service = stack.enter_context(self._as_process(bento, note))
            yield service

    @contextlib.contextmanager
    def _in_container(self, engine: Engine, release: CheckedRelease) -> Iterator[Service]:
        with self.run(engine, taken(engine, release)) as url:
            yield Service(url, engine.name)

    def run(self, engine: Engine, image: str) -> contextlib.AbstractContextManager[str]:
        """Run an image for the length of a block, which is given its URL.

        Args:
            engine: Runs it.
            image: What `taken` gave.
        """
        start = self._cut_off if self.network == "none" else self._on_host_network
        return start(engine, image)

    @contextlib.contextmanager
    def _on_host_network(self, engine: Engine, image: str) -> Iterator[str]:
        port = free_port()
        name = f"kfp-bento-{os.getpid()}-{port}"
        log = self.directory / "service.log"
        argv = engine.run_arguments(image, name, _variables_inside(port))
        source = Path(listening.__file__).read_text()

        def listens() -> bool | None:
            if (found := listening.listens(port, ())) is not False:
                return found
            # Only inside it can be seen which of them it is.
            asked = ("python3", "-I", "-c", source, str(port))
            return {"ours": True, "other": False}.get(engine.ask(name, *asked) or "")

        since = log_size(log)
        with _container(engine, argv, name, log) as process:
            yield self._ready(port, process, log, f"The image in {engine.name}", listens, since)

    @contextlib.contextmanager
    def _cut_off(self, engine: Engine, image: str) -> Iterator[str]:
        """Run an image without network, and relay connections to it."""
        name = f"kfp-bento-{os.getpid()}-{time.monotonic_ns()}"
        log = self.directory / "service.log"
        inside = ("python3", "-I", "-c", INSIDE, f"{SHARED}/{SOCKET}", str(INNER_PORT))
        with (
            # Of mode 0700; what runs inside may leave there what only it can remove.
            tempfile.TemporaryDirectory(
                prefix="relay-", dir=self.directory, ignore_cleanup_errors=True
            ) as place,
            relay(shared := Path(place) / "shared") as port,
        ):
            shared.mkdir()
            shared.chmod(0o777)  # the user inside is another one
            argv = engine.run_arguments(
                image, name, _variables_inside(INNER_PORT), network="none", shared={shared: SHARED}
            )
            since = log_size(log)
            with _container(engine, argv, name, log) as process:
                self._await_container(engine, name, process)
                with start_program(
                    engine.exec_arguments(name, *inside),
                    environment=engine.environment,
                    directory=Path("/"),
                    log=self.directory / "relay.log",
                ):
                    what = f"The image in {engine.name}"
                    yield self._ready(port, process, log, what, since=since)

    def _await_container(self, engine: Engine, name: str, process: subprocess.Popen[bytes]) -> None:
        """Wait until a program can be started in a container."""
        deadline = time.monotonic() + START_SECONDS
        while engine.ask(name, "python3", "-I", "-c", "") is None:
            late = time.monotonic() > deadline or self.stopped.is_set()
            if late or process.poll() is not None:
                said = last_lines(self.directory / "service.log")
                raise LocalRunError(f"The image in {engine.name} did not start.\n{said}")
            time.sleep(0.1)

    @contextlib.contextmanager
    def _whole(self, release: CheckedRelease) -> Iterator[Bento]:
        """Give a bento with all its files: of a short road only the image has them."""
        if is_whole(release.bento):
            yield release.bento
            return
        layout = release.layout
        image = f"oci:{layout.directory}:{layout.tag}" if layout else release.image
        with tempfile.TemporaryDirectory(prefix="bento-", dir=self.directory) as place:
            unpack_bento(image.removesuffix(":"), Path(place))
            yield load_bento(Path(place))

    @contextlib.contextmanager
    def _as_process(self, bento: Bento, note: str) -> Iterator[Service]:
        with (
            locked_environment(
                bento, cache=self.cache, error=LocalRunError, cancelled=self.stopped
            ) as environment,
            bento_process(
                bento, environment, Listening(free_port()), self.directory, self.stopped
            ) as started,
        ):
            yield Service(started.wait(), "process", note)

    def _ready(
        self,
        port: int,
        process: subprocess.Popen[bytes],
        log: Path,
        what: str,
        listens: Callable[[], bool | None] = lambda: True,
        since: int = 0,
    ) -> str:
        """Wait until the service answers on a port, and give its URL."""
        url = f"http://127.0.0.1:{port}"
        wait_until_answers(
            f"{url}{self.path}",
            process,
            log,
            seconds=START_SECONDS,
            what=what,
            cancelled=self.stopped,
            listens=listens,
            since=since,
        )
        return url


def taken(engine: Engine, release: CheckedRelease) -> str:
    """Have an engine take an image out of its layout or registry, and give the name to run it by.

    Raises:
        ImageError: It is another image than was asked for.
        LocalRunError: It cannot be had.
    """
    if release.layout is not None:
        return engine.load(release.layout)
    return engine.pull(release.image, release.bento.tag)


def _variables(port: int) -> dict[str, str]:
    return {"PORT": str(port), "BENTOML_HOST": "127.0.0.1", "BENTOML_DO_NOT_TRACK": "1"}


def _variables_inside(port: int) -> dict[str, str]:
    return {**_variables(port), **({API_TOKEN: ""} if os.environ.get(API_TOKEN) else {})}


@contextlib.contextmanager
def _container(
    engine: Engine, argv: list[str], name: str, log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    token = {API_TOKEN: os.environ.get(API_TOKEN, "")}
    environment = {**engine.environment, **token}
    try:
        with start_program(argv, environment=environment, directory=Path("/"), log=log) as process:
            yield process
    finally:
        engine.remove(name)
