"""What we start is waited for, told from others, and quoted where it fails."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from kfp_bento.runtime.errors import LocalRunError
from kfp_bento.runtime.local import listening
from kfp_bento.runtime.local.processes import free_port, last_lines, wait_until_answers
from kfp_bento.runtime.programs.clean_room import clean_environment, start_program, stop_group

STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])
open(sys.argv[1], 'w').write(str(child.pid))
time.sleep(600)
"""
SERVE = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        open(sys.argv[2], 'a').write(str(self.headers) + '.')
        self.send_response(200); self.end_headers()
http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), Handler).serve_forever()
"""


def wait_for(path: Path) -> str:
    deadline = time.monotonic() + 20
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return path.read_text()


def python(code: str, *arguments: object) -> list[str]:
    return [sys.executable, "-c", code, *map(str, arguments)]


def test_a_process_that_ignores_the_first_signal_ends_with_its_children(tmp_path: Path) -> None:
    marker = tmp_path / "pid"
    with start_program(
        python(STUBBORN, marker), environment=clean_environment(), log=tmp_path / "log"
    ) as process:
        child = int(wait_for(marker))
        stop_group(process, seconds=0.5)
    assert process.returncode is not None
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_a_server_that_ends_early_is_quoted_without_control_characters(tmp_path: Path) -> None:
    log = tmp_path / "log"
    code = "raise SystemExit('no \\x1b[31msuch\\x1b]0;title\\x07 database')"
    with (
        start_program(python(code), environment=clean_environment(), log=log) as process,
        pytest.raises(LocalRunError, match="no such database"),
    ):
        wait_until_answers("http://127.0.0.1:9/", process, log, seconds=20, what="The server")


def test_only_the_end_of_a_log_is_read(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"x" * (1 << 22) + b"\nlast\n")
    assert len(last_lines(tmp_path / "log")) < 1 << 17
    assert last_lines(tmp_path / "log").endswith("last")


def test_a_wait_can_be_cancelled(tmp_path: Path) -> None:
    log = tmp_path / "log"
    cancelled = threading.Event()
    cancelled.set()
    code = "import time; time.sleep(60)"
    with (
        start_program(python(code), environment=clean_environment(), log=log) as process,
        pytest.raises(LocalRunError, match="was stopped"),
    ):
        wait_until_answers(
            "http://127.0.0.1:9/", process, log, seconds=60, what="It", cancelled=cancelled
        )


def test_a_free_port_is_free() -> None:
    def can_be_had(port: int) -> bool:
        with socket.socket() as server, contextlib.suppress(OSError):
            server.bind(("127.0.0.1", port))
            return True
        return False

    # Of one, a neighbour may be quicker.
    assert any(can_be_had(free_port()) for _ in range(5))


def test_a_stranger_who_took_the_port_is_told_nothing(tmp_path: Path) -> None:
    """Its answers would be taken for those of the model, and it would get our requests."""
    port, told = free_port(), tmp_path / "told"
    with (
        subprocess.Popen(python(SERVE, port, told), stderr=subprocess.DEVNULL) as stranger,
        start_program(
            python("import time; time.sleep(60)"),
            environment=clean_environment(),
            log=tmp_path / "log",
        ) as process,
    ):
        try:
            with pytest.raises(LocalRunError, match="another program of this machine"):
                wait_until_answers(
                    f"http://127.0.0.1:{port}/livez",
                    process,
                    tmp_path / "log",
                    seconds=30,
                    what="It",
                    headers={"Authorization": "Bearer secret"},
                    listens=lambda: listening.listens(port, listening.session(process.pid)),
                )
        finally:
            stranger.kill()
    assert not told.exists()


def test_our_own_is_known_by_its_session(tmp_path: Path) -> None:
    port, told = free_port(), tmp_path / "told"
    with start_program(
        python(SERVE, port, told), environment=clean_environment(), log=tmp_path / "log"
    ) as process:
        wait_until_answers(
            f"http://127.0.0.1:{port}/livez",
            process,
            tmp_path / "log",
            seconds=30,
            what="It",
            headers={"Authorization": "Bearer secret"},
            listens=lambda: listening.listens(port, listening.session(process.pid)),
        )
    assert "Bearer secret" in told.read_text()


def test_who_names_the_address_comes_before_who_takes_any() -> None:
    with socket.create_server(("0.0.0.0", 0)) as wide:
        port = wide.getsockname()[1]
        assert listening.listens(port, [os.getpid()]) is True
        assert listening.listens(port, [1]) is False
    assert listening.listens(port, [os.getpid()]) is None


def test_the_same_program_asks_inside_a_container() -> None:
    """There it runs from its source, without kfp-bento."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        source = Path(listening.__file__).read_text()
        asked = subprocess.run(
            [sys.executable, "-I", "-c", source, str(port)], capture_output=True, text=True
        )
    assert asked.stdout in ("ours\n", "other\n")  # root sees all processes
    asked = subprocess.run(
        [sys.executable, "-I", "-c", source, str(port)], capture_output=True, text=True
    )
    assert asked.stdout == "nobody\n"
