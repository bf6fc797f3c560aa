"""Bentos of BentoML 1.0 to 1.3 with runners stay runnable: built by it, taken in, and asked."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from uv import find_uv_bin

from kfp_bento.runtime.bentos import import_bento
from kfp_bento.runtime.proof import golden_answers

SERVICE = """
import bentoml
from bentoml.io import JSON


class Doubler(bentoml.Runnable):
    SUPPORTED_RESOURCES = ("cpu",)
    SUPPORTS_CPU_MULTI_THREADING = True

    @bentoml.Runnable.method(batchable=False)
    def double(self, number):
        return 2 * number


runner = bentoml.Runner(Doubler, name="doubler")
svc = bentoml.Service("doubling", runners=[runner])


@svc.api(input=JSON(), output=JSON())
async def double(body):
    return {"number": await runner.double.async_run(body["number"])}
"""
# What that BentoML needs beside it to build at all.
BUILDS_WITH = {
    "1.0.25": ["setuptools<81", "cattrs<23.2"],
    "1.1.11": ["setuptools<81"],
    "1.2.20": ["setuptools<81", "pydantic<2.8"],
    "1.3.22": ["setuptools<81"],
}


def run(*command: object, cwd: Path, **variables: str) -> None:
    done = subprocess.run(
        [*map(str, command)],
        cwd=cwd,
        env=os.environ | {"BENTOML_DO_NOT_TRACK": "true"} | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("version", BUILDS_WITH)
def test_a_service_with_a_runner_answers_after_it_was_taken_in(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uv, environment, home = find_uv_bin(), tmp_path / "environment", tmp_path / "home"
    run(uv, "venv", "--quiet", "--python", sys.executable, environment, cwd=tmp_path)
    wanted = [f"bentoml=={version}", *BUILDS_WITH[version]]
    python = environment / "bin/python"
    run(uv, "pip", "install", "--quiet", "--python", python, *wanted, cwd=tmp_path)
    source = tmp_path / "source"
    source.mkdir()
    (source / "service.py").write_text(SERVICE)
    (source / "bentofile.yaml").write_text("service: service:svc\ninclude: ['*.py']\n")
    run(python, "-m", "bentoml", "build", cwd=source, BENTOML_HOME=str(home))
    monkeypatch.setenv("BENTOML_HOME", str(home))
    bento = import_bento("doubling:latest", tmp_path / "bento")
    assert bento.bentoml_version == version
    golden = golden_answers(bento, (), requests=[{"path": "/double", "body": {"number": 21}}])
    answer = golden.requests[0].answer
    assert answer is not None
    assert (answer.status, answer.content.value) == (200, {"number": 42})
