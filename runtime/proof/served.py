"""A bento that is started in its own environment, and reached by nobody but us.

It runs as BentoML's worker, the very process that answers in the image; only its socket is another
one: a file in a directory of ours, so that it can be asked although it has no network. A service of
BentoML 1.0 and 1.1 has its runners in the same process; in the image they have their own.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kfp_bento.runtime.bentos import is_generated, read_bento_file
from kfp_bento.runtime.errors import BentoError
from kfp_bento.runtime.http import HttpAnswer, NoAnswerError, NoConnectionError, ask
from kfp_bento.runtime.programs import (
    MEMORY_HINT,
    clean_environment,
    code_variables,
    confined,
    confinement_hint,
    ended_within,
    how_ended,
    memory_for_code,
    start_program,
    was_killed,
)
from kfp_bento.runtime.proof.reasons import essential_line

if TYPE_CHECKING:
    import subprocess

    from kfp_bento.runtime.bentos import Bento
    from kfp_bento.runtime.proof.golden import GoldenRequest

START_SECONDS = 900.0
ANSWER_SECONDS = 300.0
LARGEST_ANSWER = 64 << 20

_WORKER = "_bentoml_impl.worker.service"
_LEGACY = Path(__file__).with_name("serve_legacy.py")
_LOG_END = 64 << 10
_PAUSE = 0.05
_LONGEST_PLACE = 100
_ENDING = 1.0
"""Seconds in which a process is gone whose connection has ended."""
_TRY_SECONDS = 5.0


@dataclass(frozen=True)
class Served:
    """A bento that answers.

    Attributes:
        tag: The bento's tag.
        place: The socket.
        log: What it says.
        process: The worker.
    """

    tag: str
    place: Path
    log: Path
    process: subprocess.Popen[bytes]

    def ask(self, request: GoldenRequest) -> HttpAnswer:
        """Send a request.

        Raises:
            BentoError: No whole answer comes.
        """
        content = request.content
        headers = dict(request.headers)
        if content is not None and content.media_type:
            headers["Content-Type"] = content.media_type
        body = None if content is None else content.to_bytes()
        asked = f"{request.place} ({request.label})"
        return self._answered(asked, request.method, request.path, body, headers)

    def post(self, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> HttpAnswer:
        """Send JSON to a path, or what the headers say that it is.

        Raises:
            BentoError: No whole answer comes.
        """
        return self._answered(path, "POST", path, body, dict(headers or {}))

    def _answered(
        self, asked: str, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> HttpAnswer:
        try:
            return self._send(method, path, ANSWER_SECONDS, body, headers)
        except (NoAnswerError, NoConnectionError) as error:
            why = self._reason(_ENDING) or error
            raise BentoError(
                f"The bento {self.tag} gives no answer to {asked}: {why}.",
                hint=self._hint(),
            ) from error

    def wait(self, seconds: float = START_SECONDS) -> None:
        """Wait until it is ready.

        Raises:
            BentoError: It ends before, or the time is over; with the essential line of its log.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with contextlib.suppress(NoAnswerError, NoConnectionError):
                if self._send("GET", "/readyz", _TRY_SECONDS).status == 200:
                    return
            if self.process.poll() is not None:
                raise BentoError(
                    f"The bento {self.tag} does not start: {self._reason()}.", hint=self._hint()
                )
            time.sleep(_PAUSE)
        raise BentoError(
            f"The bento {self.tag} was not ready after {seconds:g} s.",
            hint=f"{essential_line(log_end(self.log))}. {_hint()}",
        )

    def _send(
        self,
        method: str,
        path: str,
        seconds: float,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> HttpAnswer:
        def connect() -> socket.socket:
            found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            found.settimeout(seconds)
            with _short(self.place) as place:
                found.connect(place)
            return found

        return ask(
            method,
            f"http://localhost{path}",
            seconds=seconds,
            largest=LARGEST_ANSWER,
            body=body,
            headers=headers,
            connect=connect,
        )

    def _hint(self) -> str:
        return MEMORY_HINT if was_killed(self.process.poll()) else _hint()

    def _reason(self, seconds: float = 0) -> str:
        """Say why it ended, if it did, or does so in a moment."""
        status = ended_within(self.process, seconds)
        said = "" if was_killed(status) else essential_line(log_end(self.log))
        return said or ("" if status is None else how_ended(status))


@contextlib.contextmanager
def started(bento: Bento, environment: Path, scratch: Path, **more: str) -> Iterator[Served]:
    """Start a bento in an environment for the length of a block; it may not be ready yet.

    Args:
        bento: The bento.
        environment: See `locked_environment`.
        scratch: A directory of ours.
        more: Variables that its service gets besides.

    Raises:
        BentoError: It cannot be started, or not be kept from the network where that is a must.
    """
    place, log, home = scratch / "socket", scratch / "service.log", scratch / "home"
    home.mkdir()
    directory = bento.directory.absolute()
    ours = {
        "PATH": f"{environment / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "VIRTUAL_ENV": str(environment),
        **dict.fromkeys(("HOME", "TMPDIR", "BENTOML_HOME"), str(home)),
        "BENTO_PATH": str(directory),
        "BENTOML_DO_NOT_TRACK": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PYTHONNOUSERSITE": "1",
        # What is written beside the model would not be ours.
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    variables = clean_environment(code_variables(), **{**_tracking(bento, home), **more, **ours})
    variables.pop("XDG_RUNTIME_DIR", None)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        with _short(place) as short:
            listener.bind(short)
        listener.listen(64)
        command = _worker(directory, environment / "bin" / "python", listener.fileno())
        with start_program(
            confined(
                command,
                error=BentoError,
                variables=read_bento_file(directory).runtime_variables(taken={**more, **ours}),
            ),
            environment=variables,
            directory=home,
            log=log,
            memory=memory_for_code(),
            inherited=[listener.fileno()],
        ) as process:
            listener.close()  # or connections would be taken after the worker's end
            yield Served(bento.tag, place, log, process)


def _worker(directory: Path, python: Path, handle: int) -> list[str]:
    """Give the command of the process that answers at a socket."""
    if read_bento_file(directory).runs_legacy:
        return [str(python), str(_LEGACY), str(directory), str(handle)]
    command = [str(python), "-m", _WORKER, str(directory)]
    return [*command, "--fd", str(handle), "--worker-id", "1"]


@contextlib.contextmanager
def _short(place: Path) -> Iterator[str]:
    """Give a socket's path; it may have 107 bytes, which directories of runs exceed."""
    if len(os.fsencode(place)) < _LONGEST_PLACE:
        yield str(place)
        return
    folder = os.open(place.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{place.name}"
    finally:
        os.close(folder)


def _tracking(bento: Bento, home: Path) -> dict[str, str]:
    """Give where the code of a service of one's own may make runs and traces while it is proven.

    MLflow makes a store in the working directory otherwise, which for BentoML is the bento's own
    source; 2.14 to 3.6 do so when a model is loaded. Services that are generated make none.
    """
    if is_generated(bento):
        return {}
    return {
        "MLFLOW_TRACKING_URI": (home / "mlruns").as_uri(),
        "MLFLOW_ALLOW_FILE_STORE": "true",  # newer ones refuse files without
    }


def log_end(log: Path) -> str:
    """Give the end of a log."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LOG_END))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


def _hint() -> str:
    return (
        "Correct the model's requirements or the service; with verify off it is built unproven. "
        f"{confinement_hint()}"
    )
