"""Child processes that end with us: started in a group of their own, stopped as a group."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ..errors import LocalRunError

STOP_SECONDS = 8.0


def free_port() -> int:
    """Give a TCP port on the loopback address that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextlib.contextmanager
def running(
    argv: Sequence[str],
    log: Path,
    *,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command for the length of a block, its output in a log file.

    Args:
        argv: The command and its arguments.
        log: File that receives standard output and error.
        environment: The whole environment; none takes this process's own.
        directory: Working directory.

    Yields:
        The process, leader of its own group.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=None if environment is None else dict(environment),
            cwd=directory,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        stop(process)


def interrupt(process: subprocess.Popen[bytes]) -> None:
    """Ask a process and its group to end, and come back at once."""
    _signal_group(process.pid, signal.SIGINT)


def stop(process: subprocess.Popen[bytes] | subprocess.Popen[str]) -> None:
    """End a process and everything in its group: politely first, then for certain."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        if not _signal_group(process.pid, number):
            break
        if _group_ended(process, STOP_SECONDS if number != signal.SIGKILL else 2.0):
            break
    process.wait()


def _signal_group(group: int, number: int) -> bool:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True


def _group_ended(process: subprocess.Popen[bytes] | subprocess.Popen[str], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        process.poll()  # reaps the leader, which would otherwise keep the group alive
        if not _signal_group(process.pid, 0):
            return True
        time.sleep(0.02)
    return False


def last_lines(log: Path, count: int = 12) -> str:
    """Give the end of a log, for an error message."""
    if not log.exists():
        return ""
    return "\n".join(log.read_text(errors="replace").strip().splitlines()[-count:])


def wait_until_answers(
    url: str,
    process: subprocess.Popen[bytes],
    log: Path,
    *,
    seconds: float,
    what: str,
    cancelled: threading.Event | None = None,
) -> None:
    """Wait until a URL answers with a status below 400.

    Raises:
        LocalRunError: If the process ends first, the deadline passes or the wait is cancelled;
            with the end of the process's log.
    """
    import urllib3

    http = urllib3.PoolManager(retries=False, timeout=2.0)
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(urllib3.exceptions.HTTPError):
            if http.request("GET", url).status < 400:
                return
        if process.poll() is not None:
            raise LocalRunError(
                f"{what} ended with exit code {process.returncode} before it answered.\n"
                f"{last_lines(log)}",
                hint=f"The whole log is in {log}.",
            )
        if cancelled is not None and cancelled.is_set():
            raise LocalRunError(f"{what} was stopped before it answered.")
        if time.monotonic() > deadline:
            raise LocalRunError(
                f"{what} did not answer within {seconds:.0f} s.\n{last_lines(log)}",
                hint=f"The whole log is in {log}.",
            )
        time.sleep(0.1)
