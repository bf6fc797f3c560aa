"""A program that was killed says so, and what helps, whatever it had said before."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest
from small_models import TWICE, small_model

from kfp_bento.runtime.bentos import build_bento
from kfp_bento.runtime.errors import BentoError
from kfp_bento.runtime.programs import clean_environment, endings, how_ended, run_program
from kfp_bento.runtime.proof import golden_answers

KILLED = "__import__('os').kill(__import__('os').getpid(), 9)"
ELSEWHERE = "'bentoml' in __import__('sys').modules"
BUILT = f"""\
import bentoml, sys
print("a warning of no matter", file=sys.stderr, flush=True)
{KILLED}

@bentoml.service
class Greeter:
    pass
"""


@pytest.fixture
def cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(endings, "_CGROUP", tmp_path)
    return tmp_path


def ended(code: str) -> str:
    done = run_program(
        [sys.executable, "-c", code],
        doing="Trying",
        directory=Path("/"),
        environment=clean_environment(),
        seconds=30,
        error=BentoError,
    )
    return done.last_lines(1)


def test_the_last_words_of_what_was_killed_are_not_the_reason() -> None:
    said = ended(f"import sys; print('a warning', file=sys.stderr, flush=True); {KILLED}")
    assert said.startswith("it was killed (SIGKILL), ")
    assert "for want of memory" in said
    assert ended("import sys; sys.exit('no such thing')") == "no such thing"
    assert ended("raise SystemExit(3)") == "it ended with status 3 without a word"
    assert ended("import os; os.abort()").startswith("it was ended by SIGABRT")


def test_a_limit_is_named_and_what_the_kernel_counted_makes_it_certain(cgroup: Path) -> None:
    assert how_ended(-9) == "it was killed (SIGKILL), probably for want of memory"
    (cgroup / "memory.max").write_text("268435456\n")
    (cgroup / "memory.events").write_text("oom 0\noom_kill 0\n")
    limited = "for want of memory; the limit is 256 MiB"
    assert how_ended(-9) == f"it was killed (SIGKILL), probably {limited}"
    (cgroup / "memory.events").write_text("oom 1\noom_kill 2\n")
    assert how_ended(128 + signal.SIGKILL) == f"it was killed (SIGKILL), {limited}"


def test_cgroups_of_before_are_read_too(cgroup: Path) -> None:
    (cgroup / "memory").mkdir()
    (cgroup / "memory/memory.limit_in_bytes").write_text(f"{(1 << 63) - 4096}\n")
    assert endings.memory_limit() is None
    (cgroup / "memory/memory.limit_in_bytes").write_text("134217728\n")
    (cgroup / "memory/memory.oom_control").write_text("under_oom 0\noom_kill 1\n")
    assert how_ended(-9).endswith("), for want of memory; the limit is 128 MiB")


def test_a_service_that_is_killed_while_it_is_built_is_not_called_wrong(tmp_path: Path) -> None:
    service = tmp_path / "service.py"
    service.write_text(BUILT)
    with pytest.raises(BentoError, match="cannot build the service: it was killed") as caught:
        build_bento([], tmp_path / "bento", service=service)
    assert caught.value.hint.startswith("Give the step, or this machine, more memory")


@pytest.mark.parametrize(
    ("where", "told"),
    [
        (f"not {ELSEWHERE}", "cannot be loaded here: it was killed"),
        pytest.param(ELSEWHERE, "does not start: it was killed", marks=pytest.mark.slow),
    ],
    ids=["by MLflow", "as a bento"],
)
def test_a_model_that_is_killed_while_it_is_loaded_is_not_called_wrong(
    tmp_path: Path, where: str, told: str
) -> None:
    models = [small_model(tmp_path / "small", f"if {where}: {KILLED}\n{TWICE}")]
    with pytest.raises(BentoError, match=told) as caught:
        golden_answers(build_bento(models, tmp_path / "bento"), models)
    assert caught.value.hint.startswith("Give the step, or this machine, more memory")
