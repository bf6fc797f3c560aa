"""Ports of this machine, and waiting until what we started answers on one."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from kfp_bento.runtime.errors import LocalRunError
from kfp_bento.runtime.http import NoAnswerError, NoConnectionError, ask
from kfp_bento.runtime.programs import MEMORY_HINT, cleaned, how_ended, was_killed

if TYPE_CHECKING:
    import subprocess

_LAST_BYTES = 1 << 16
_LAST_LINES = 12
# A service's parent starts such a worker again and again; it never serves.
_START_FAILED = re.compile(r"Application startup failed|^\S*ImportServiceError: ", re.M)
_EXCEPTION = re.compile(
    r"^(?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*(?:Error|Exception|Exit|Warning)\b.*", re.M
)
_LONGEST_REASON = 300


def free_port() -> int:
    """Give a TCP port on the loopback address that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def last_lines(log: Path) -> str:
    """Give the end of a log, for an error message."""
    return "\n".join(_end(log).strip().splitlines()[-_LAST_LINES:])


def log_size(log: Path) -> int:
    """Give where a program that is started now begins to write in a log."""
    return log.stat().st_size if log.exists() else 0


def _end(log: Path, since: int = 0) -> str:
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(since, log.stat().st_size - _LAST_BYTES))
        return cleaned(file.read().decode("utf-8", "replace"))


def failed_start(log: Path, since: int = 0) -> str | None:
    """Give the error that ended a service's start, as its log tells it; None if it tells none.

    Args:
        log: What the service writes.
        since: Where it began to.
    """
    text = _end(log, since)
    told = _START_FAILED.search(text)
    if told is None:
        return None
    errors = _EXCEPTION.findall(text[: told.end()])
    if told[0].endswith(": "):
        errors = [text[told.start() :].partition("\n")[0]]
    return (errors[-1] if errors else told[0]).strip()[:_LONGEST_REASON]


def _status(url: str, headers: Mapping[str, str] | None) -> int:
    return ask("GET", url, seconds=2.0, largest=1 << 20, headers=headers).status


LIVE = "/livez"
"""BentoML's path that says whether a service is alive."""


def is_alive(url: str) -> bool:
    """Say whether the service at a URL answers that it is alive."""
    with contextlib.suppress(NoConnectionError, NoAnswerError):
        return _status(f"{url}{LIVE}", None) < 400
    return False


def _ended(what: str, status: int, log: Path) -> LocalRunError:
    if was_killed(status):
        return LocalRunError(f"{what} did not start: {how_ended(status)}.", hint=MEMORY_HINT)
    return LocalRunError(
        f"{what} ended with exit code {status} before it answered.\n{last_lines(log)}",
        hint=f"The whole log is in {log}.",
    )


def wait_until_answers(
    url: str,
    process: subprocess.Popen[bytes],
    log: Path,
    *,
    seconds: float,
    what: str,
    cancelled: threading.Event | None = None,
    headers: Mapping[str, str] | None = None,
    listens: Callable[[], bool | None] = lambda: True,
    since: int = 0,
) -> None:
    """Wait until a URL answers with a status below 400.

    Args:
        url: On the loopback address.
        process: Who is to answer.
        log: What it says.
        seconds: How long it may take.
        what: What it is called in an error.
        cancelled: Ends the wait early when set.
        headers: Sent with each request.
        listens: Whether it is the process that listens there; None while nobody does.
        since: Where in the log the process began to write.

    Raises:
        LocalRunError: If the process ends first or its log says that it cannot start, somebody
            else listens there, the deadline passes or the wait is cancelled; with the end of the
            process's log.
    """
    hint = f"The whole log is in {log}."
    deadline = time.monotonic() + seconds
    while True:
        ours = listens()
        if ours is False and process.poll() is None:
            raise LocalRunError(
                f"{what} did not get its port: another program of this machine took it first.",
                hint="Start the run again; if that happens again, ask who else is on this machine.",
            )
        with contextlib.suppress(NoConnectionError, NoAnswerError):
            if ours and _status(url, headers) < 400:
                return
        if process.poll() is not None:
            raise _ended(what, process.returncode, log)
        if (reason := failed_start(log, since)) is not None:
            raise LocalRunError(f"{what} cannot start: {reason}\n{last_lines(log)}", hint=hint)
        if cancelled is not None and cancelled.is_set():
            raise LocalRunError(f"{what} was stopped before it answered.")
        if time.monotonic() > deadline:
            raise LocalRunError(
                f"{what} did not answer within {seconds:.0f} s.\n{last_lines(log)}", hint=hint
            )
        time.sleep(0.1)
