"""What `apart` makes ends with what runs in it, however that ends; here it is one in another."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from real_node import missing

APART = Path(__file__).with_name("apart")
CGROUPS = Path("/sys/fs/cgroup")
IN_A_GROUP = """
mkdir -p /sys/fs/cgroup/pids/$KFP_BENTO_NODE_CGROUP/inner
echo $$ >/sys/fs/cgroup/pids/$KFP_BENTO_NODE_CGROUP/inner/cgroup.procs
touch "$TOLD"
exec sleep 3600
"""

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing() or "none")


def until(look: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where worlds have their files."""
    place = tmp_path / "worlds"
    place.mkdir()
    monkeypatch.setenv("TMPDIR", str(place))
    return place


@pytest.fixture
def world(folder: Path, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """One in which a process sleeps, in a cgroup that it made."""
    told = tmp_path / "told"
    with subprocess.Popen(
        [APART, "sh", "-c", IN_A_GROUP], env={**os.environ, "TOLD": str(told)}
    ) as process:
        until(told.exists)
        assert groups(folder)
        yield process
        process.kill()


def groups(folder: Path) -> list[Path]:
    """The cgroups of the worlds that are there."""
    names = [one.name for one in folder.iterdir()]
    return [one for name in names for one in CGROUPS.glob(f"*/{name}")]


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_nothing_is_left_of_a_world_that_is_ended(
    world: subprocess.Popen[bytes], folder: Path, sign: signal.Signals
) -> None:
    made = groups(folder)
    world.send_signal(sign)
    assert world.wait(60) == (-sign if sign is signal.SIGKILL else 130)
    until(lambda: not any(folder.iterdir()))
    assert [one for one in made if one.exists()] == []


def test_a_world_that_ends_takes_the_cgroups_of_no_other(
    world: subprocess.Popen[bytes], folder: Path
) -> None:
    made = groups(folder)
    assert subprocess.run([APART, "sh", "-c", "exit 3"], check=False).returncode == 3
    assert groups(folder) == made
    assert world.poll() is None


@pytest.mark.parametrize("program", ["unshare", "slirp4netns"])
def test_it_says_so_where_none_can_be_made(
    program: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / program).write_text("#!/bin/sh\necho not permitted >&2\nexit 1\n")
    (tmp_path / "bin" / program).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    done = subprocess.run([APART, "true"], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (1, "not permitted\n")
    assert [*folder.iterdir()] == []


def test_what_is_piped_in_gets_there() -> None:
    done = subprocess.run([APART, "cat"], input=b"words", capture_output=True, check=True)
    assert done.stdout == b"words"
