"""The local deployment target: what a cluster does with a release, done on this machine.

deploy_bento runs as a pipeline step, in a process that ends; a release has to outlive it. So the
step posts the release to this server, which owns the service until the run is over. It listens
on a socket in a directory of ours alone: nobody else on the machine, no browser and no container
can reach it, and whoever connects is asked for by the kernel's word besides.
"""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from kfp_bento.runtime.errors import InvalidInput, LocalRunError
from kfp_bento.runtime.local.endpoint import RELEASES, SETTLEMENTS, serve_endpoint
from kfp_bento.runtime.local.private import private_directory
from kfp_bento.runtime.local.processes import is_alive
from kfp_bento.runtime.local.request import (
    CheckedRelease,
    check_request,
    parse_request,
    parse_settlement,
)
from kfp_bento.runtime.local.services import Service, Services, chosen_network

ADDRESS_VARIABLE = "KFP_BENTO_LOCAL_TARGET"
# A socket's path has at most 107 bytes.
LONGEST_PATH = 90


@dataclass
class LocalTarget:
    """Releases that run on this machine, newest last.

    Attributes:
        directory: Scratch space for what is served.
        run: The directory of the run whose bentos may be served.
        address: What deploy_bento posts to, `unix:PATH`.
        services: What serves each release that was asked for, newest last; at most two still run:
            the one that was confirmed, and the one on trial.
        network: `host`, or `none` for services that must not reach any.
        cache: Where environments of processes are kept; see `Services`.
    """

    directory: Path
    run: Path
    address: str = ""
    network: str = ""
    cache: Path | None = None
    services: list[Service] = field(default_factory=list)
    _good: _Serving | None = None
    _trial: _Serving | None = None
    _engines: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _starter: Services | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _closing: threading.Event = field(default_factory=threading.Event)

    @property
    def serving(self) -> Service | None:
        """What serves now: the release on trial, else the one that was confirmed."""
        running = self._trial or self._good
        return running.service if running else None

    def release(self, body: bytes) -> dict[str, str]:
        """Start a release on trial and give its URL and runtime; another on trial ends for it.

        What already serves is left as it is, as an unchanged release is in a cluster.

        Raises:
            InvalidInput: The request is none, or names what this run did not make.
            KfpBentoError: The release cannot be started; the one before goes on.
        """
        checked = check_request(parse_request(body), self.run)
        with self._lock, contextlib.ExitStack() as starting:
            if self._closing.is_set():
                raise LocalRunError("The local target is shutting down.")
            if self._starter is None:
                self._starter = self._engines.enter_context(
                    Services.at(self.directory, self._closing, self.network, self.cache)
                )
            if self._trial is None and self._good is not None and self._good.is_still(checked):
                service = self._good.service
            else:
                service = starting.enter_context(self._starter.serve(checked))
                _end(self._trial)
                self._trial = _Serving(service, starting.pop_all(), checked)
            self.services.append(service)
        return {"url": service.url, "runtime": service.runtime}

    def settle(self, body: bytes) -> dict[str, str]:
        """Keep the release on trial and end the one before, or the other way round.

        Settling again the same way changes nothing.

        Returns:
            `url` of what serves now; empty where nothing does.

        Raises:
            InvalidInput: The request is none, or is about a release that does not run.
        """
        asked = parse_settlement(body)
        with self._lock:
            on_trial = self._trial is not None and self._trial.service.url == asked.url
            is_good = self._good is not None and self._good.service.url == asked.url
            if on_trial and asked.confirm:
                _end(self._good)
                self._good, self._trial = self._trial, None
            elif on_trial:
                _end(self._trial)
                self._trial = None
            elif asked.confirm and not is_good:
                raise InvalidInput(
                    "url: no release on trial has it.", hint="Deploy it again, and have it checked."
                )
        return {"url": self.serving.url if self.serving else ""}

    def close(self) -> None:
        """Stop whatever still runs, and start nothing more."""
        self._closing.set()
        with self._lock:
            _end(self._trial)
            _end(self._good)
            self._engines.close()


@dataclass(frozen=True)
class _Serving:
    """A service that runs, and what ends it."""

    service: Service
    running: contextlib.ExitStack
    release: CheckedRelease

    def is_still(self, asked: CheckedRelease) -> bool:
        """Say whether it is this release, and alive."""
        same = self.release.image, self.release.bento.digest
        return same == (asked.image, asked.bento.digest) and is_alive(self.service.url)


def _end(serving: _Serving | None) -> None:
    if serving is not None:
        serving.running.close()


@contextlib.contextmanager
def local_target(
    directory: Path, *, network: str = "", cache: Path | None = None
) -> Iterator[LocalTarget]:
    """Accept releases of a run for the length of a block, then stop them.

    Args:
        directory: Scratch space in the directory of the run, ours alone; kept for the next run.
        network: `none` keeps what is served from every network, `host` does not; default: what
            `KFP_BENTO_LOCAL_NETWORK` says, else host.
        cache: Where environments of processes are kept, as steps have it in `KFP_BENTO_CACHE`.

    Raises:
        LocalRunError: The directory is, or could be written by, somebody else's.
        InvalidInput: No such network.
    """
    directory = private_directory(directory)
    network = chosen_network(network)
    target = LocalTarget(directory, directory.resolve().parent, network=network, cache=cache)
    with (
        tempfile.TemporaryDirectory(prefix="kfp-bento-", dir=_short_place()) as place,  # 0700
        contextlib.closing(target),
        serve_endpoint(
            Path(place) / "target", {RELEASES: target.release, SETTLEMENTS: target.settle}
        ),
    ):
        target.address = f"unix:{place}/target"
        yield target


def _short_place() -> str:
    usual = tempfile.gettempdir()
    return usual if len(usual) < LONGEST_PATH - 30 else "/tmp"  # noqa: S108 - a directory of ours in it
