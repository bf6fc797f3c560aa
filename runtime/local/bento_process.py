"""A bento as a process of this machine, in an environment of its own, confined."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from kfp_bento.runtime.bentos import read_bento_file, require_found
from kfp_bento.runtime.errors import LocalRunError
from kfp_bento.runtime.local import listening
from kfp_bento.runtime.local.descendants import descendants, kill_left
from kfp_bento.runtime.local.private import private_directory
from kfp_bento.runtime.local.processes import LIVE, log_size, wait_until_answers
from kfp_bento.runtime.programs import COMPUTING, clean_environment, confined, start_program

if TYPE_CHECKING:
    import subprocess

    from kfp_bento.runtime.bentos import Bento

# What generated services want to be told by their callers; the steps of a run tell it.
API_TOKEN = "KFP_BENTO_API_TOKEN"  # noqa: S105 - its name
START_SECONDS = 120.0
LOOPBACK = "127.0.0.1"
ALL_ADDRESSES = ("0.0.0.0", "::")  # noqa: S104 - only where the user asks for it
START_COMMAND = ("sh", "-c", "./env/docker/entrypoint.sh bentoml serve . --production")


# What BentoML can address in an option; other names have no workers of our choosing.
_SERVICE = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Listening:
    """How a bento's process listens.

    Attributes:
        port: The TCP port.
        host: The address.
        workers: Processes that answer; 0 for what the bento says.
        variables: Names of more variables of ours that it gets.
    """

    port: int
    host: str = LOOPBACK
    workers: int = 0
    variables: Iterable[str] = ()

    @property
    def url(self) -> str:
        """The URL at which this machine reaches it."""
        host = LOOPBACK if self.host in ALL_ADDRESSES else self.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def is_seen(self) -> bool:
        """Whether the system can be asked who listens there; see `listening`."""
        return self.host in (LOOPBACK, *ALL_ADDRESSES)


@dataclass
class BentoProcess:
    """A bento's process that was started.

    Attributes:
        how: How it listens.
        process: The leader of its processes.
        log: What they say.
        stopped: Ends a wait early when set.
    """

    how: Listening
    process: subprocess.Popen[bytes]
    log: Path
    since: int = 0
    stopped: threading.Event = field(default_factory=threading.Event)

    def wait(self, seconds: float = START_SECONDS) -> str:
        """Wait until it answers, and give its URL.

        Raises:
            LocalRunError: It does not become ready, or another program has its port.
        """
        wait_until_answers(
            f"{self.how.url}{LIVE}",
            self.process,
            self.log,
            seconds=seconds,
            what="The bento's process",
            cancelled=self.stopped,
            listens=self._listens,
            since=self.since,
        )
        return self.how.url

    def _listens(self) -> bool | None:
        if not self.how.is_seen:
            return True
        return listening.listens(self.how.port, listening.session(self.process.pid))


@contextlib.contextmanager
def bento_process(
    bento: Bento,
    environment: Path,
    how: Listening,
    directory: Path,
    stopped: threading.Event | None = None,
) -> Iterator[BentoProcess]:
    """Start a bento for the length of a block; it may not answer yet.

    Args:
        bento: The bento.
        environment: See `locked_environment`.
        how: How it listens.
        directory: Scratch space of ours, for its log and its home.
        stopped: Ends waits early when set.

    Raises:
        LocalRunError: It cannot be started.
        BentoError: Nobody would find that it answers.
    """
    require_found(bento.tag, bento.listening)
    home = private_directory(directory / "bentoml-home")
    log = directory / "service.log"
    file = read_bento_file(bento.directory)
    # Nothing of ours but how to compute: the code that runs is the model's.
    ours = {
        "PATH": f"{environment / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "VIRTUAL_ENV": str(environment),
        **dict.fromkeys(("HOME", "TMPDIR", "BENTOML_HOME"), str(home.resolve())),
        "BENTO_PATH": str(bento.directory.resolve()),
        # What is written beside the service would make another bento of it.
        "PYTHONDONTWRITEBYTECODE": "1",
        **_listening(how, file.entry_service),
    }
    variables = clean_environment(COMPUTING, (API_TOKEN, *how.variables), **ours)
    variables.pop("XDG_RUNTIME_DIR", None)
    # It has our uid: what else there is of ours, other processes and logins, is kept from it.
    command = confined(
        START_COMMAND,
        error=LocalRunError,
        network=True,
        variables=file.runtime_variables(taken=ours),
    )
    since = log_size(log)
    started = start_program(command, environment=variables, directory=bento.directory, log=log)
    with contextlib.ExitStack() as ending, started as process:
        try:
            yield BentoProcess(how, process, log, since, stopped or threading.Event())
        finally:
            ending.callback(kill_left, descendants(process.pid))


def _listening(how: Listening, service: str) -> dict[str, str]:
    """Give the variables by which BentoML is told how to listen."""
    told = {"PORT": str(how.port), "BENTOML_HOST": how.host, "BENTOML_DO_NOT_TRACK": "1"}
    if how.workers:
        told["BENTOML_API_WORKERS"] = str(how.workers)  # for services of BentoML 1.1
        if _SERVICE.fullmatch(service):
            told["BENTOML_CONFIG_OPTIONS"] = f"services.{service}.workers={how.workers}"
    return told
