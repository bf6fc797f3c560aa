"""Foreign programs: what they see, how long they run, how much they say."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from kfp_bento.runtime.errors import BentoError
from kfp_bento.runtime.programs import (
    COMPUTING,
    NETWORK,
    Finished,
    clean_environment,
    cleaned,
    run_program,
    start_program,
)
from kfp_bento.runtime.programs.clean_room import LARGEST_COMPLAINT, LARGEST_OUTPUT, secrets_in


def run(source: str, directory: Path, **options: object) -> Finished:
    given: dict = {"environment": clean_environment(), "seconds": 60.0, **options}
    argv = [sys.executable, "-S", "-c", source]
    return run_program(argv, doing="The test", directory=directory, error=BentoError, **given)


def test_a_program_sees_only_what_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "secret")
    monkeypatch.setenv("HTTPS_PROXY", "http://user:password@proxy:3128")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("TF_VAR_password", "secret")
    monkeypatch.setenv("NVIDIA_API_KEY", "secret")
    source = "import os; print(sorted(os.environ))"
    assert "MLFLOW_TRACKING_TOKEN" not in run(source, tmp_path).output
    assert "HTTPS_PROXY" not in run(source, tmp_path).output
    shown = run(source, tmp_path, environment=clean_environment(NETWORK, COMPUTING, X="1")).output
    assert "TF_VAR_password" not in shown
    assert "NVIDIA_API_KEY" not in shown
    assert all(f"'{name}'" in shown for name in ("HTTPS_PROXY", "OMP_NUM_THREADS", "X", "PATH"))


def test_a_program_gets_what_it_is_given_and_nothing_of_ours(tmp_path: Path) -> None:
    source = "import sys; print(sys.stdin.read())"
    assert run(source, tmp_path, given=b"a body").output == "a body\n"
    assert run(source, tmp_path).output == "\n"


def test_a_program_that_does_not_read_is_no_failure(tmp_path: Path) -> None:
    assert run("pass", tmp_path, given=b"x" * 1_000_000).status == 0


def test_a_program_that_takes_too_long_ends_with_all_that_it_started(tmp_path: Path) -> None:
    source = (
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(600)'])\n"
        "open('child', 'w').write(str(child.pid))\n"
        "time.sleep(600)"
    )
    seconds = 1  # more where a busy machine has not started both by then
    while not (tmp_path / "child").exists():
        with pytest.raises(BentoError, match=rf"The test took more than {seconds} s and was"):
            run(source, tmp_path, seconds=seconds)
        seconds *= 4
    assert_ends(int((tmp_path / "child").read_text()))


def test_what_a_program_left_running_ends_with_it(tmp_path: Path) -> None:
    source = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(600)'])\n"
        "print(child.pid)"
    )
    assert_ends(int(run(source, tmp_path).output))


def assert_ends(process: int) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return
        if state == "Z":  # ended; who adopted it has not looked yet
            return
        time.sleep(0.02)
    pytest.fail(f"{process} runs on")


def test_a_program_that_says_too_much_is_stopped(tmp_path: Path) -> None:
    source = "import sys\nwhile True: sys.stdout.write('x' * 1_000_000)"
    with pytest.raises(BentoError, match=f"printed more than {LARGEST_OUTPUT} bytes"):
        run(source, tmp_path)


def test_of_complaints_the_end_is_kept(tmp_path: Path) -> None:
    source = "import sys\nfor n in range(200_000): print(n, file=sys.stderr)"
    done = run(source, tmp_path)
    assert done.last_lines(2) == "199998\n199999"
    assert len(done.complaint) <= LARGEST_COMPLAINT


def test_memory_is_limited(tmp_path: Path) -> None:
    source = (
        "import resource\n"
        "while resource.getrlimit(resource.RLIMIT_DATA)[0] == resource.RLIM_INFINITY: pass\n"
        "x = bytearray(400 << 20); print('had it')"
    )
    done = run(source, tmp_path, memory=200 << 20)
    assert "had it" not in done.output
    assert done.status != 0


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BentoError, match="no-such-program cannot be started: No such file") as told:
        run_program(
            ["no-such-program"],
            doing="The test",
            directory=tmp_path,
            environment=clean_environment(),
            seconds=1,
            error=BentoError,
        )
    assert told.value.hint == "Install no-such-program."


def test_secrets_that_a_program_was_given_do_not_come_back(tmp_path: Path) -> None:
    source = "import os, sys; print(os.environ['INDEX_PASSWORD'], file=sys.stderr); sys.exit(3)"
    done = run(source, tmp_path, environment=clean_environment(INDEX_PASSWORD="hunter22"))
    assert (done.status, done.complaint) == (3, "***\n")


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("one\rtwo", "one two"),
        ("a\x00b\u202ec", "a b c"),
        ("lines\n\tstay\n", "lines\n\tstay\n"),
        ("https://user:pass@host/x", "https://***@host/x"),
        ("\x9b31m", " 31m"),
        (
            "got 'https://h/x.tar?a=1&X-Amz-Signature=0f&b=2' (403)",
            "got 'https://h/x.tar?***' (403)",
        ),
        ("https://h/x?page=2&q=sig", "https://h/x?page=2&q=sig"),
    ],
)
def test_what_is_shown_is_clean(said: str, shown: str) -> None:
    assert cleaned(said) == shown


def test_a_started_program_ends_with_the_block(tmp_path: Path) -> None:
    argv = [sys.executable, "-S", "-c", "import time; print('up', flush=True); time.sleep(600)"]
    with start_program(argv, environment=clean_environment(), log=tmp_path / "log") as process:
        assert process.poll() is None
        assert os.getpgid(process.pid) == process.pid
    assert process.poll() is not None


def test_secrets_are_known_by_their_names_and_in_addresses() -> None:
    environment = {
        "UV_INDEX_X_PASSWORD": "pass-one",
        "HF_TOKEN": "token-two",
        "TOKENIZERS_PARALLELISM": "false",
        "UV_INDEX": "x=https://me:pass%2Dthree@host/simple",
        "PATH": "/usr/bin",
    }
    assert set(secrets_in(environment)) == {
        "pass-one",
        "token-two",
        "pass%2Dthree",
        "pass-three",
    }
