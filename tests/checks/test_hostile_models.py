"""A model that is asked for its own answers gets nothing of ours, and chooses no program."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from checked_models import make_model
from package_index import package_index
from spy import SECRET, kept_from_a_spy

from kfp_bento.runtime.checks.expected import expected_answers, unmet_requirement
from kfp_bento.runtime.errors import CheckError
from kfp_bento.runtime.programs import confinement

if TYPE_CHECKING:
    from kfp_bento.runtime.models import ModelVersion


@pytest.fixture
def model(tmp_path: Path) -> ModelVersion:
    return make_model(tmp_path)


def test_the_python_of_a_model_is_a_version_and_no_program(
    model: ModelVersion, tmp_path: Path
) -> None:
    marker = tmp_path / "ran"
    program = tmp_path / "python.sh"
    program.write_text(f"#!/bin/sh\ntouch {marker}\n")
    program.chmod(0o755)
    for version in (str(program), "3.11\n--help", "3.\u0661\u0661", "cpython@3.11", "--help"):
        with pytest.raises(CheckError, match="is no version"):
            expected_answers(replace(model, python_version=version), [{"inputs": []}])
    assert not marker.exists()


@pytest.mark.parametrize(
    "line",
    [
        "-e .",
        "--extra-index-url {there}",
        "evil @ {there}/files/evil-1.0.tar.gz",
        "-r /proc/self/environ",
    ],
)
def test_an_environment_is_made_of_names_and_versions(
    model: ModelVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    marker = tmp_path / "ran"
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", SECRET)
    with package_index() as server:
        server.has_sources("evil", str(marker))
        asked = line.format(there=server.address)
        with pytest.raises(CheckError, match="cannot be made") as refused:
            expected_answers(replace(model, requirements=("mlflow", asked)), [{"inputs": []}])
        assert server.arrived == []
    assert not marker.exists()
    assert SECRET not in str(refused.value)
    assert refused.value.hint


def test_a_reason_shows_no_password(model: ModelVersion) -> None:
    line = "--extra-index-url https://robot:hunter2@x.invalid/simple"
    assert "hunter2" not in unmet_requirement(replace(model, requirements=(line,)))


ASKED = """\
def _load_pyfunc(path):
    return Model()

class Model:
    def predict(self, inputs):
        return [float("nan")]
"""


@pytest.mark.skipif(not confinement._works("landlock"), reason="this kernel has no Landlock")
def test_the_code_of_a_model_sees_no_secrets_and_no_network(
    model: ModelVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "spy"
    (folder / "code").mkdir(parents=True)
    (folder / "MLmodel").write_text(
        "flavors:\n  python_function:\n    loader_module: spy\n    code: code\n"
    )
    with kept_from_a_spy(tmp_path, monkeypatch) as spy:
        (folder / "code/spy.py").write_text(spy.source + ASKED)
        changed: Any = replace(model, directory=folder, requirements=(), signature=None)
        (answer,) = expected_answers(changed, [{"inputs": [1]}])
    assert str(answer) == "[nan]"
    assert spy.environment["MLFLOW_DISABLE_TELEMETRY"] == "true"
