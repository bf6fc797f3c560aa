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
from kfp_bento.runtime.local.processes import (
    failed_start,
    free_port,
    last_lines,
    log_size,
    wait_until_answers,
)
from kfp_bento.runtime.programs.clean_room import clean_environment, start_program, stop_group

STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])
open(sys.argv[1], 'w').write(str(child.pid))
time.sleep(600)
"""
FAILING = """
import bentoml
@bentoml.service
class Failing:
    def __init__(self):
        import sklearn_
    @bentoml.api
    def ask(self, x: int) -> int:
        return x
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
    deadline = time.monotonic() + 300
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


def test_a_service_that_is_started_again_and_again_is_given_up_at_once(tmp_path: Path) -> None:
    """BentoML's parent process starts a worker that fails for as long as somebody waits."""
    (tmp_path / "service.py").write_text(FAILING)
    log = tmp_path / "log"
    log.write_text("ValueError: of yesterday\nApplication startup failed. Exiting.\n")
    port, since = free_port(), log_size(log)
    command = ["-m", "bentoml", "serve", "service:Failing", "--port", str(port)]
    with start_program(
        [sys.executable, *command, "--host", "127.0.0.1"],
        environment=clean_environment(
            ("PATH",), BENTOML_HOME=str(tmp_path), BENTOML_DO_NOT_TRACK="true", HOME=str(tmp_path)
        ),
        directory=tmp_path,
        log=log,
    ) as process:
        with pytest.raises(LocalRunError) as caught:
            wait_until_answers(
                f"http://127.0.0.1:{port}/livez",
                process,
                log,
                seconds=100,
                what="The bento's process",
                since=since,
            )
        assert process.poll() is None  # it would have gone on
    first = "The bento's process cannot start: ModuleNotFoundError: No module named 'sklearn_'"
    assert caught.value.message.splitlines()[0] == first


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        ("mlflow.exceptions.MlflowException: no\n[ERROR] Application startup failed.", "mlflow.e"),
        ("bentoml.exceptions.ImportServiceError: no 'pkg_resources'\n", "bentoml.exceptions.Impo"),
        ("Application startup failed. Exiting.\nValueError: later", "Application startup failed"),
        ("ValueError: that was caught and logged\nINFO: still going", None),
        ("", None),
    ],
)
def test_the_error_that_ended_a_start_is_named(
    tmp_path: Path, log: str, reason: str | None
) -> None:
    (tmp_path / "log").write_text(log)
    found = failed_start(tmp_path / "log")
    assert found is None if reason is None else found is not None and found.startswith(reason)


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
