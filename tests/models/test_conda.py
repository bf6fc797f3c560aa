"""What a model asks of conda is asked of pip, or named."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from kfp_bento.runtime.models import load_model, unknown_conda_packages
from kfp_bento.runtime.models.conda import parse_conda_package

MLMODEL = "flavors: {python_function: {loader_module: mlflow.sklearn}}\nmlflow_version: 1.12.1\n"


def model(tmp_path: Path, *packages: object, **files: str) -> Path:
    """A model as MLflow 1.x wrote it: `conda.yaml` alone says what it needs."""
    made = tmp_path / "model"
    made.mkdir()
    (made / "MLmodel").write_text(MLMODEL)
    (made / "conda.yaml").write_text(
        yaml.safe_dump({"channels": ["defaults"], "dependencies": [*packages], "name": "e"})
    )
    for name, text in files.items():
        (made / name.replace("__", ".")).write_text(text)
    return made


@pytest.mark.parametrize(
    ("written", "asked"),
    [
        ("scikit-learn=1.9.1", "scikit-learn==1.9.1.*"),
        ("scikit-learn==1.9.1", "scikit-learn==1.9.1"),
        ("scikit-learn=1.9", "scikit-learn==1.9.*"),
        ("numpy=1.26.4=py311h64a7726_0", "numpy==1.26.4"),
        ("numpy 1.26.4 py311h64a7726_0", "numpy==1.26.4"),
        ("numpy 1.26.*", "numpy==1.26.*"),
        ("conda-forge::scipy >=1.9,<2", "scipy>=1.9,<2"),
        ("conda-forge/linux-64::pandas", "pandas"),
        ("pytorch==2.1.0", "torch==2.1.0"),
        ("pytorch::pytorch=2.1", "torch==2.1.*"),
        ("py-xgboost=1.7", "xgboost==1.7.*"),
        ("xgboost!=1.6.*", "xgboost!=1.6.*"),
        ("Pandas~=2.1", "Pandas~=2.1"),
        ("pandas[version='>=2,<3',build=py39*]", "pandas>=2,<3"),
        ("pandas[version=2.1.4]", "pandas==2.1.4"),
        ("matplotlib-base", "matplotlib"),
        ("ruamel.yaml=0.18.6", "ruamel.yaml==0.18.6.*"),
        ("numpy *", "numpy"),
    ],
)
def test_a_package_that_pip_has_is_asked_of_pip(written: str, asked: str) -> None:
    found = parse_conda_package(written)
    assert Requirement(found.requirement) == Requirement(asked.lower())
    assert not found.is_provided


@pytest.mark.parametrize(
    "written",
    [
        "openjdk=11",
        "cudatoolkit=11.3",
        "r-base",
        "mycorp-features=1.0",
        "numpy=1.2|1.3",
        "numpy ^1",
    ],
)
def test_what_pip_may_not_have_is_guessed_by_nobody(written: str) -> None:
    found = parse_conda_package(written)
    assert (found.requirement, found.is_provided) == ("", False)


@pytest.mark.parametrize(
    "written",
    ["pip<=23", "libgcc-ng=13.2.0=h807b86f_3", "_libgcc_mutex=0.1", "openssl=3", "mkl=2023.1"],
)
def test_what_comes_with_an_interpreter_and_wheels_is_left_out(written: str) -> None:
    assert parse_conda_package(written).is_provided


def test_conda_packages_of_an_old_model_are_its_requirements(tmp_path: Path) -> None:
    pip = {"pip": ["mlflow", "cloudpickle==3.1.2"]}
    made = model(tmp_path, "python=3.11.7", "scikit-learn=1.9.1", "pip", pip)
    found = load_model(made)
    assert found.requirements == ("mlflow", "cloudpickle==3.1.2", "scikit-learn==1.9.1.*")
    assert found.python_version == "3.11.7"
    assert unknown_conda_packages(made) == ()


def test_the_pip_part_comes_first_where_both_files_are_there(tmp_path: Path) -> None:
    made = model(
        tmp_path,
        *("python=3.11", "scikit-learn=1.9", "Cloud_Pickle=2.0", "cloudpickle=2.0"),
        requirements__txt="mlflow==3.17.2\ncloudpickle==3.1.2\n",
    )
    assert load_model(made).requirements == (
        *("mlflow==3.17.2", "cloudpickle==3.1.2", "scikit-learn==1.9.*"),
    )
    assert unknown_conda_packages(made) == ("Cloud_Pickle=2.0",)


@pytest.mark.parametrize(
    ("entry", "version"),
    [("python=3.8.5", "3.8.5"), ("python==3.11", "3.11"), ("python=3.10.*", "3.10"),
     ("python=3.9.7=h12debd9_1", "3.9.7"), ("python>=3.8", ""), ("python", "")],
)  # fmt: skip
def test_the_python_of_an_old_model_is_known(tmp_path: Path, entry: str, version: str) -> None:
    assert load_model(model(tmp_path, entry)).python_version == version


def test_a_package_counts_as_known_once_somebody_names_it(tmp_path: Path) -> None:
    made = model(tmp_path, "openjdk=11", "mycorp_features=1.0", "libgcc-ng")
    assert unknown_conda_packages(made) == ("openjdk=11", "mycorp_features=1.0")
    assert unknown_conda_packages(made, ["MyCorp.Features"]) == ("openjdk=11",)
