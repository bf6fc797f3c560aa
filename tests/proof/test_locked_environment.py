"""Environments are whole or not there, made once, and not kept without end."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from small_models import requirements

from kfp_bento.runtime.bentos import Bento
from kfp_bento.runtime.errors import BentoError
from kfp_bento.runtime.proof import environment, locked_environment

MINOR = f"{sys.version_info.major}.{sys.version_info.minor}"


def bento(folder: Path, lock: str = "", python: str = MINOR) -> Bento:
    (folder / "src").mkdir(parents=True)
    file = folder / "env/python/requirements.txt"
    file.parent.mkdir(parents=True)
    file.write_text(lock)
    facts: dict[str, Any] = dict.fromkeys(("service", "bentoml_version", "digest"), "")
    return Bento("a", "1", folder, python_version=python, models=(), runners=(), **facts)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_of_several_that_need_the_same_environment_one_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, together = [], threading.Barrier(4)
    make = environment._make

    def counted(*arguments: Any) -> None:
        made.append(1)
        make(*arguments)

    monkeypatch.setattr(environment, "_make", counted)
    needed = bento(tmp_path / "bento")

    def use(_: int) -> Path:
        together.wait(20)
        with locked_environment(needed, cache=tmp_path / "cache") as found:
            assert (found / "bin/python").exists()
            return found

    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(use, range(4)))
    assert len(made) == len(found) == 1
    assert names(tmp_path / "cache/environments") == [found.pop().name]


def test_another_python_is_looked_for_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    # By its whole version our own is another one, too.
    monkeypatch.setenv("PATH", f"{sys.base_prefix}/bin", prepend=os.pathsep)
    found = environment.find_python(platform.python_version())
    said = subprocess.run([found, "--version"], check=True, capture_output=True, text=True)
    assert said.stdout.split()[1] == platform.python_version()


def test_what_cannot_be_installed_leaves_nothing_behind(tmp_path: Path) -> None:
    lock = f"no-such-thing-here==1 --hash=sha256:{'ab' * 32}\n"
    with (
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(BentoError, match="no-such-thing-here") as refused,
    ):
        patch.setenv("UV_OFFLINE", "1")
        with locked_environment(bento(tmp_path / "bento", lock), cache=tmp_path / "cache"):
            pytest.fail("there is no such package")
    assert refused.value.hint
    assert names(tmp_path / "cache/environments") == []


def test_one_that_a_killed_process_left_half_made_is_not_used(tmp_path: Path) -> None:
    needed = bento(tmp_path / "bento")
    source = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "sys.path[:0] = sys.argv[3:]\n"
        "from test_locked_environment import bento\n"
        "from kfp_bento.runtime.proof import environment\n"
        "make = environment._make\n"
        "def killed(*arguments):\n"
        "    make(*arguments)\n"
        "    os.kill(os.getpid(), 9)\n"
        "environment._make = killed\n"
        "with environment.locked_environment(bento(Path(sys.argv[1])), cache=Path(sys.argv[2])):\n"
        "    pass\n"
    )
    arguments = [str(tmp_path / "other"), str(tmp_path / "cache")]
    arguments += [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    done = subprocess.run([sys.executable, "-c", source, *arguments], check=False)
    assert done.returncode == -9
    assert any(".partial-" in name for name in names(tmp_path / "cache/environments"))
    with locked_environment(needed, cache=tmp_path / "cache") as found:
        assert names(tmp_path / "cache/environments") == [found.name]


def test_the_ones_that_nobody_used_for_longest_go_and_one_in_use_stays(tmp_path: Path) -> None:
    folder = tmp_path / "cache/environments"
    with locked_environment(bento(tmp_path / "used"), cache=tmp_path / "cache") as used:
        os.utime(used, (1, 1))
        for number in range(environment.MOST_KEPT + 1):
            (folder / f"{number:016}").mkdir()
            os.utime(folder / f"{number:016}", (100 + number, 100 + number))
        with locked_environment(bento(tmp_path / "new", "# another\n"), cache=tmp_path / "cache"):
            left = names(folder)
    assert used.name in left
    assert f"{0:016}" not in left
    assert f"{environment.MOST_KEPT:016}" in left


def test_a_cache_that_others_can_write_is_not_used(tmp_path: Path) -> None:
    folder = tmp_path / "cache/environments"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    with locked_environment(bento(tmp_path / "bento"), cache=tmp_path / "cache") as found:
        assert not found.is_relative_to(folder)
    assert names(folder) == []
    assert not found.exists()


@pytest.mark.slow
def test_bytecode_of_the_same_sources_is_lent(tmp_path: Path) -> None:
    from kfp_bento.runtime.bentos.lock import lock_requirements

    lock = lock_requirements(requirements(), [], MINOR, tmp_path)
    with locked_environment(bento(tmp_path / "bento", lock), cache=tmp_path / "cache") as found:
        command = [str(found / "bin/python"), "-v", "-c", "import pandas"]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    assert f"matches {found}" in said
    assert "could not" not in said
    assert "wrote" not in "\n".join(line for line in said.splitlines() if "/numpy/" in line)
