"""Child processes end with us, and so do theirs."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from pathlib import Path

import pytest

from kfp_bento.runtime.errors import LocalRunError
from kfp_bento.runtime.local.processes import free_port, running, wait_until_answers

STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])
open(sys.argv[1], 'w').write(str(child.pid))
time.sleep(600)
"""


def wait_for(path: Path) -> str:
    deadline = time.monotonic() + 20
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return path.read_text()


def test_a_process_that_ignores_the_first_signal_ends_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kfp_bento.runtime.local.processes.STOP_SECONDS", 0.5)
    marker = tmp_path / "pid"
    with running([sys.executable, "-c", STUBBORN, str(marker)], tmp_path / "log") as process:
        child = int(wait_for(marker))
    assert process.returncode is not None
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_a_server_that_ends_early_is_quoted(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with (
        running([sys.executable, "-c", "raise SystemExit('no such database')"], log) as process,
        pytest.raises(LocalRunError, match="no such database"),
    ):
        wait_until_answers("http://127.0.0.1:9/", process, log, seconds=20, what="The server")


def test_a_wait_can_be_cancelled(tmp_path: Path) -> None:
    log = tmp_path / "log"
    cancelled = threading.Event()
    cancelled.set()
    with (
        running([sys.executable, "-c", "import time; time.sleep(60)"], log) as process,
        pytest.raises(LocalRunError, match="was stopped"),
    ):
        wait_until_answers(
            "http://127.0.0.1:9/", process, log, seconds=60, what="It", cancelled=cancelled
        )


def test_a_free_port_is_free() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", free_port()))
