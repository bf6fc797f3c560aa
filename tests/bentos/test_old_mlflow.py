"""Models of any MLflow are locked to what that MLflow runs with."""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from package_index import Index, package_index

from kfp_bento.runtime.bentos.lock import bento_requirements, lock_requirements
from kfp_bento.runtime.models import load_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WHEEL = "mlflow-2.3.0-py3-none-any.whl"
MODULE = "mlflow/utils/requirements_utils.py"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    """An index with two generations of pandas, and an MLflow of the first."""
    with package_index() as found:
        found.has_wheel("pandas", "2.3.3")
        found.has_wheel("pandas", "3.0.6")
        found.has_wheel("setuptools", "80.9.0")
        found.has_wheel("setuptools", "82.0.0")
        found.has_wheel("mlflow_skinny", "2.3.0")
        found.has_wheel("mlflow", "2.3.0", ["pandas<3", "Flask<3", "six<2; extra == 'more'"])
        monkeypatch.setenv("UV_DEFAULT_INDEX", found.simple)
        monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
        yield found


@pytest.fixture
def locked(index: Index, tmp_path: Path) -> Callable[..., list[str]]:
    """Gives `locked(*lines, constraints=…)`: what is in the lock."""

    def pins(*lines: str, constraints: tuple[str, ...] = ()) -> list[str]:
        text = lock_requirements(lines, constraints, "3.11", tmp_path)
        return re.findall(r"^\S+==\S+", text, re.M)

    return pins


def add_module(index: Index, wheel: str, path: str, content: str) -> None:
    """Puts a module into a wheel, with its line in the record."""
    old, new = zipfile.ZipFile(io.BytesIO(index.files[wheel])), io.BytesIO()
    with zipfile.ZipFile(new, "w") as archive:
        for name in old.namelist():
            text = old.read(name).decode()
            archive.writestr(name, f"{path},,\n{text}" if name.endswith("/RECORD") else text)
        archive.writestr(path, content)
    index.files[wheel] = new.getvalue()


def test_the_bounds_of_the_full_mlflow_are_kept(locked: Callable[..., list[str]]) -> None:
    assert locked("mlflow-skinny==2.3.0", "pandas") == ["mlflow-skinny==2.3.0", "pandas==2.3.3"]
    assert locked("mlflow-skinny", "pandas") == ["mlflow-skinny==2.3.0", "pandas==2.3.3"]


@pytest.mark.parametrize("said", ["pandas==3.0.6", "pandas>=3", "pandas==3.*", "Pandas~=3.0"])
def test_what_somebody_says_of_a_package_counts_more(
    locked: Callable[..., list[str]], said: str
) -> None:
    assert locked("mlflow-skinny==2.3.0", said) == ["mlflow-skinny==2.3.0", "pandas==3.0.6"]


@pytest.mark.parametrize("said", ["pandas>=2", "pandas!=3.0.5", "pandas<4"])
def test_what_allows_both_is_no_word_against_the_bounds(
    locked: Callable[..., list[str]], said: str
) -> None:
    assert locked("mlflow-skinny==2.3.0", said)[1] == "pandas==2.3.3"


def test_pkg_resources_is_there_for_an_mlflow_that_imports_it(
    index: Index, locked: Callable[..., list[str]]
) -> None:
    module = "mlflow/utils/requirements_utils.py"
    add_module(
        index, "mlflow-2.3.0-py3-none-any.whl", module, "import json\nimport pkg_resources\n"
    )
    assert locked("mlflow-skinny==2.3.0")[-1] == "setuptools==80.9.0"
    assert locked("mlflow-skinny==2.3.0", "setuptools==82.0.0")[-1] == "setuptools==82.0.0"


def test_nothing_is_added_for_an_mlflow_that_does_not_need_it(
    index: Index, locked: Callable[..., list[str]]
) -> None:
    add_module(index, WHEEL, MODULE, "# no pkg_resources\n")
    assert locked("mlflow-skinny==2.3.0") == ["mlflow-skinny==2.3.0"]


def test_the_newest_are_locked_and_it_is_said_where_the_bounds_cannot_be_had(
    index: Index, locked: Callable[..., list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    del index.files[WHEEL]
    assert locked("mlflow-skinny==2.3.0", "pandas")[1] == "pandas==3.0.6"
    assert "has no mlflow 2.3.0 to read its bounds" in caplog.text


def test_an_mlflow_before_2_1_gets_the_packaging_that_bentoml_takes(
    index: Index, locked: Callable[..., list[str]]
) -> None:
    for wheel, needs in (("mlflow_skinny", "<22"), ("bentoml", ">=22.0")):
        index.has_wheel(wheel, "1.30.0", [f"packaging{needs}"])
    index.has_wheel("mlflow", "1.30.0", ["packaging<22", "pandas<3"])
    index.has_wheel("packaging", "21.3")
    index.has_wheel("packaging", "26.4")
    pins = locked("mlflow-skinny==1.30.0", "bentoml", "pandas")
    assert {"packaging==26.4", "pandas==2.3.3"} < set(pins)


@pytest.mark.parametrize(
    ("line", "logged_by", "asked"),
    [
        ("mlflow", "2.3.2", "mlflow-skinny==2.3.2"),
        ("mlflow", "3.18.0.dev0", "mlflow-skinny"),
        ("mlflow==1.12.1", "1.12.1", "mlflow-skinny~=1.30.0"),
        ("mlflow==1.30.1", "1.30.1", "mlflow-skinny==1.30.1"),
        ("mlflow>=1.2", "1.12.1", "mlflow-skinny>=1.2"),
        ("six", "1.12.1", "mlflow-skinny~=1.30.0"),
    ],
)
def test_the_mlflow_that_logged_a_model_serves_it(
    tmp_path: Path, line: str, logged_by: str, asked: str
) -> None:
    (tmp_path / "MLmodel").write_text(
        f"flavors: {{python_function: {{loader_module: x}}}}\nmlflow_version: {logged_by}\n"
    )
    (tmp_path / "requirements.txt").write_text(line)
    assert asked in bento_requirements([load_model(tmp_path)])
