"""The one place that starts foreign programs.

A program gets an environment by allowlist, so that a token meant for one server is not there for
whatever a model's requirements or a user's service make it run; a working directory of ours; no
standard input of ours; a time limit for itself and all that it started; and a limit to what it
may say. What it says is cleaned before anybody reads it.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from kfp_bento.runtime.errors import KfpBentoError, plain_text
from kfp_bento.runtime.programs.endings import how_ended, was_killed
from kfp_bento.runtime.programs.environment import BASIC, chosen

LARGEST_OUTPUT = 64 << 20
LARGEST_COMPLAINT = 64 << 10
_PIECE = 1 << 16
_STOP_SECONDS = 2.0
_READ_SECONDS = 20.0
_ACCOUNT = re.compile(r"(?<=://)[^/@\s]+@")
_SIGNED_QUERY = re.compile(
    r"\?[^\s\"'<>?]*\b(?:X-Amz-Signature|Signature|sig)=[^\s\"'<>]*", re.IGNORECASE
)
_PASSWORD = re.compile(r"://[^/@\s:]*:([^/@\s]+)@")
_SECRET_NAME = re.compile(
    r"(?:^|_)(?:[A-Z]*PASSWORD|PASSWD|TOKEN|SECRET|CREDENTIALS?|KEY)(?:_|$)", re.I
)


@dataclass(frozen=True)
class Finished:
    """What a program left behind.

    Attributes:
        status: Exit status; negative is the signal that ended it.
        output: Standard output, as it was.
        complaint: The end of standard error, cleaned: see `cleaned`.
    """

    status: int
    output: str
    complaint: str

    def last_lines(self, count: int = 12) -> str:
        """Give the last lines of the complaint that say something, or how it ended.

        What was killed had no last word: whatever it said before was about something else.
        """
        lines = [line.rstrip() for line in self.complaint.splitlines() if line.strip()]
        said = "" if was_killed(self.status) else "\n".join(lines[-count:])
        return said or how_ended(self.status)


def clean_environment(*passed: Iterable[str], **values: str) -> dict[str, str]:
    """Give the environment of a program: only what is listed, and what is set here.

    Args:
        passed: Lists of variables that are passed on where they are set, besides `BASIC`; a name
            that ends in `*` stands for all that begin so.
        values: Variables with the values to set; they win.
    """
    return {**chosen(os.environ, (*BASIC, *(name for names in passed for name in names))), **values}


def run_program(
    argv: Sequence[str],
    *,
    doing: str,
    directory: Path,
    environment: Mapping[str, str],
    seconds: float,
    given: bytes = b"",
    memory: int = 0,
    error: type[KfpBentoError],
    hint: str = "",
    cancelled: threading.Event | None = None,
) -> Finished:
    """Run a program to its end, and everything that it started too.

    Args:
        argv: The program and its arguments.
        doing: What it is run for, as in "Asking the model took too long": "Asking the model".
        directory: Its working directory.
        environment: The whole of it; see `clean_environment`.
        seconds: How long it may take.
        given: Its standard input.
        memory: Bytes of private memory that each of its processes may have; 0 is no limit.
        error: What to raise.
        hint: What to do where it cannot be started or takes too long.
        cancelled: Ends it early when set.

    Raises:
        error: It cannot be started, takes longer, is cancelled, or says more than
            `LARGEST_OUTPUT`.
    """
    stopped = cancelled or threading.Event()
    deadline = time.monotonic() + seconds
    try:
        process = _popen(argv, directory, environment, piped=bool(given))
    except OSError as failure:
        raise error(
            f"{doing} failed: {Path(argv[0]).name} cannot be started: {failure.strerror}.",
            hint=hint or f"Install {Path(argv[0]).name}.",
        ) from failure
    limit_memory(process.pid, memory)
    with process:
        talk = _Talk(process, given)
        try:
            late = talk.wait(deadline, stopped)
        finally:
            # Also what it left running when it ended: that would hold its pipes open.
            _kill_group(process.pid)
            process.wait()
        talk.end(deadline)
    if talk.output.overflow.is_set():
        raise error(f"{doing} failed: it printed more than {LARGEST_OUTPUT} bytes.", hint=hint)
    if late and stopped.is_set():
        raise error(f"{doing} was stopped.")
    if late:
        raise error(f"{doing} took more than {seconds:g} s and was stopped.", hint=hint)
    said = talk.complaint.text()
    return Finished(process.returncode, talk.output.text(), cleaned(said, secrets_in(environment)))


def ended_within(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    """Give the status of a program that has ended, or does so in a moment; None if it goes on."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        return process.wait(seconds)
    return None


def _popen(
    argv: Sequence[str], directory: Path, environment: Mapping[str, str], *, piped: bool
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        list(argv),
        stdin=subprocess.PIPE if piped else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(environment),
        cwd=directory,
        start_new_session=True,
    )


@contextlib.contextmanager
def start_program(
    argv: Sequence[str],
    *,
    environment: Mapping[str, str],
    directory: Path | None = None,
    log: Path | None = None,
    memory: int = 0,
    one_stream: bool = False,
    inherited: Sequence[int] = (),
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a program that goes on for the length of a block, the leader of its own group.

    Args:
        argv: The program and its arguments.
        environment: The whole of it; see `clean_environment`.
        directory: Its working directory.
        log: File that receives standard output and error; pipes for all three streams if none.
        memory: Bytes of private memory that each of its processes may have; 0 is no limit.
        one_stream: Send standard error down the pipe of standard output.
        inherited: Open files that it gets under the same numbers.

    Raises:
        OSError: It cannot be started.
    """
    with contextlib.ExitStack() as stack:
        streams: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
            output = stack.enter_context(log.open("ab"))
            streams = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": subprocess.STDOUT}
        if one_stream:
            streams["stderr"] = subprocess.STDOUT
        process = subprocess.Popen(
            list(argv),
            env=dict(environment),
            cwd=directory,
            start_new_session=True,
            pass_fds=inherited,
            **streams,
        )
    limit_memory(process.pid, memory)
    try:
        yield process
    finally:
        stop_group(process)


def stop_group(process: subprocess.Popen[Any], seconds: float = 8.0) -> None:
    """End a process and everything in its group: politely first, then for certain.

    Args:
        process: The leader of its group.
        seconds: How long each polite request may take.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        if not _signal_group(process.pid, number):
            break
        if _group_ended(process, seconds if number != signal.SIGKILL else _STOP_SECONDS):
            break
    process.wait()


def interrupt_group(process: subprocess.Popen[Any]) -> None:
    """Ask a process and its group to end, and come back at once."""
    _signal_group(process.pid, signal.SIGINT)


def limit_memory(process: int, memory: int) -> None:
    """Limit the private memory of a process and of those that it will start, where possible."""
    if memory and hasattr(resource, "prlimit"):
        with contextlib.suppress(OSError, ValueError):  # a stricter limit is there already
            resource.prlimit(process, resource.RLIMIT_DATA, (memory, memory))


def cleaned(text: str, secrets: Iterable[str] = ()) -> str:
    """Give text of a foreign program as it may be shown: no control characters, no accounts.

    Args:
        text: Any text.
        secrets: What must not be shown wherever it stands.
    """
    text = without_signatures(_ACCOUNT.sub("***@", plain_text(text)))
    for secret in secrets:
        text = text.replace(secret, "***")
    return text


def without_signatures(text: str) -> str:
    """Give text in which no presigned URL can be used: their queries are left out."""
    return _SIGNED_QUERY.sub("?***", text)


def names_secret(name: str) -> bool:
    """Say whether a variable's name promises a secret, such as `DB_PASSWORD` or `API_KEY`."""
    return _SECRET_NAME.search(name) is not None


def secrets_in(environment: Mapping[str, str]) -> list[str]:
    """Give the secrets in an environment: by the names of variables, and in addresses."""
    found = {value for name, value in environment.items() if names_secret(name)}
    for value in environment.values():
        for password in _PASSWORD.findall(value):
            found |= {password, urllib.parse.unquote(password)}
    return sorted({value for value in found if len(value) > 3}, key=len, reverse=True)


class _Talk:
    """What goes to and from a program, in threads, so that neither side waits for the other."""

    def __init__(self, process: subprocess.Popen[bytes], given: bytes) -> None:
        self.output, self.complaint = _Kept(LARGEST_OUTPUT), _Kept(LARGEST_COMPLAINT, end=True)
        self._process = process
        self._threads = [
            threading.Thread(target=target, args=arguments, daemon=True)
            for target, arguments in (
                (self.output.take, (process.stdout,)),
                (self.complaint.take, (process.stderr,)),
                (_give, (process.stdin, given)),
            )
        ]
        for thread in self._threads:
            thread.start()

    def wait(self, deadline: float, stopped: threading.Event) -> bool:
        """Wait for the program's end, too much output, the deadline or an order to stop.

        Returns:
            Whether the program goes on, for want of time or by the order.
        """
        while not (self.output.overflow.is_set() or stopped.is_set()):
            if time.monotonic() >= deadline:
                break
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(min(0.1, max(0.0, deadline - time.monotonic())))
                break
        return self._process.poll() is None and not self.output.overflow.is_set()

    def end(self, deadline: float) -> None:
        """Read what is left; but one that left the group may hold the pipes for ever."""
        for thread in self._threads:
            thread.join(max(_READ_SECONDS, deadline - time.monotonic()))


class _Kept:
    """What is kept of a stream: its beginning up to a limit, or its end."""

    def __init__(self, limit: int, *, end: bool = False) -> None:
        self.overflow = threading.Event()
        self._limit = limit
        self._end = end
        self._pieces = bytearray()

    def text(self) -> str:
        return self._pieces.decode("utf-8", "replace")

    def take(self, stream: IO[bytes]) -> None:
        with contextlib.suppress(OSError, ValueError):  # closed while it was read
            while piece := os.read(stream.fileno(), _PIECE):
                self._pieces += piece
                if len(self._pieces) <= self._limit:
                    continue
                if not self._end:
                    self.overflow.set()
                    return
                del self._pieces[: -self._limit]


def _give(stream: IO[bytes] | None, content: bytes) -> None:
    if stream is not None:
        with contextlib.suppress(OSError):  # it ended without reading
            stream.write(content)
        with contextlib.suppress(OSError):
            stream.close()


def _kill_group(group: int) -> None:
    _signal_group(group, signal.SIGKILL)


def _signal_group(group: int, number: int) -> bool:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _group_ended(process: subprocess.Popen[Any], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        process.poll()  # reaps the leader, which would otherwise keep the group alive
        if not _signal_group(process.pid, 0):
            return True
        time.sleep(0.02)
    return False
