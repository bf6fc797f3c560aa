"""Locks come from the models' own requirements, and say why when they cannot be made."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING

import packed_models as samples
import pytest

from kfp_bento.runtime.bentos.lock import bento_constraints, bento_requirements, lock_requirements
from kfp_bento.runtime.errors import BentoError

if TYPE_CHECKING:
    from pathlib import Path

    from kfp_bento.runtime.models import ModelVersion

BENTOML = f"bentoml=={version('bentoml')}"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelVersion:
    return replace(samples.save_echo(tmp_path_factory.mktemp("m") / "echo"), mlflow_version="3.9.1")


@pytest.mark.parametrize(
    ("own", "wanted"),
    [
        (("mlflow==3.17.2", "scipy==1.0"), ["mlflow-skinny==3.17.2", "scipy==1.0"]),
        (("mlflow>=3 ; python_version > '3'",), ["mlflow-skinny>=3 ; python_version > '3'"]),
        (("MLflow",), ["mlflow-skinny==3.9.1"]),
        (("mlflow[langchain]==3.17.2",), ["mlflow[langchain]==3.17.2"]),
        (("mlflow-skinny==3.1",), ["mlflow-skinny==3.1"]),
        (("scipy==1.0",), ["scipy==1.0", "mlflow-skinny==3.9.1"]),
        (("mlflow==3.1", "-c constraints.txt"), ["mlflow-skinny==3.1"]),
    ],
)
def test_mlflow_becomes_mlflow_skinny(
    model: ModelVersion, own: tuple[str, ...], wanted: list[str]
) -> None:
    found = bento_requirements([replace(model, requirements=own)])
    assert found == [*wanted, "numpy", "pandas", BENTOML]


def test_a_package_the_model_names_is_not_named_again(model: ModelVersion) -> None:
    found = bento_requirements(
        [replace(model, requirements=("mlflow==3.1", "NumPy==2.1"))], ["Pandas<3", "bentoml>=1"]
    )
    assert found == ["mlflow-skinny==3.1", "NumPy==2.1", "Pandas<3", BENTOML]


@pytest.mark.parametrize("line", ["wheels/mine-1.0-py3-none-any.whl", "./mine", "/srv/mine.tar.gz"])
def test_a_package_in_a_local_file_is_refused(model: ModelVersion, line: str) -> None:
    with pytest.raises(BentoError, match="local file"):
        bento_requirements([replace(model, requirements=(line,))])


def test_conda_packages_are_locked_or_named(model: ModelVersion, tmp_path: Path) -> None:
    (tmp_path / "conda.yaml").write_text(
        "dependencies: [python=3.11, scikit-learn=1.9, openjdk=11, conda-forge::my_own=2, pip]\n"
    )
    asking = replace(model, directory=tmp_path, requirements=("mlflow==3.1",))
    with pytest.raises(BentoError, match="openjdk=11, conda-forge::my_own=2") as caught:
        bento_requirements([asking])
    assert "--requirement 'openjdk==…'" in caught.value.hint

    answers = ["openjdk; python_version < '3'", "My.Own==2.1"]
    assert set(answers) < set(bento_requirements([asking], answers))
    locked = lock_requirements(["six", answers[0]], [], "3.11", tmp_path)
    assert "openjdk" not in locked


def test_a_real_lock_has_hashes_and_no_index(model: ModelVersion, tmp_path: Path) -> None:
    (tmp_path / "constraints.txt").write_text("# why\nsix<1.17\nmlflow==3.1\n")
    constraints = bento_constraints([replace(model, directory=tmp_path)])
    text = lock_requirements(
        ["six", "colorama; sys_platform == 'win32'"], constraints, "3.11", tmp_path
    )
    lines = text.splitlines()
    assert constraints == ["six<1.17", "mlflow-skinny==3.1"]
    assert lines[0] == "six==1.16.0 \\"
    assert all(line.startswith("    --hash=sha256:") for line in lines[1:])


def test_requirements_that_contradict_each_other_are_named(tmp_path: Path) -> None:
    with pytest.raises(BentoError, match=r"six==1\.16\.0 and six==1\.17\.0") as raised:
        lock_requirements(["six==1.16.0", "six==1.17.0"], [], "3.11", tmp_path)
    assert "requirements" in raised.value.hint
    assert "\n" not in raised.value.message


def test_a_package_without_wheels_is_named(tmp_path: Path) -> None:
    with pytest.raises(BentoError, match=r"pandas==1\.0"):
        lock_requirements(["pandas==1.0"], [], "3.11", tmp_path)
