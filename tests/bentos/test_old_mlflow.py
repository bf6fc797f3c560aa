"""Models of any MLflow are locked to what that MLflow runs with."""

from __future__ import annotations

import io
import re
import subprocess
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from package_index import Index, package_index
from uv import find_uv_bin

from kfp_bento.runtime.bentos.lock import bento_requirements, lock_requirements
from kfp_bento.runtime.models import load_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WHEEL = "mlflow-2.3.0-py3-none-any.whl"
MODULE = "mlflow/utils/requirements_utils.py"
SAVE = """
import sys, warnings
warnings.simplefilter("ignore")
import mlflow.sklearn, pandas as pd
from mlflow.models import infer_signature
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
data = pd.DataFrame({"town": ["a", "b", "a", "b"], "street": ["x", "y", "y", "x"]})
model = make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression())
model.fit(data, [0, 1, 0, 1])
mlflow.sklearn.save_model(
    model, sys.argv[1], signature=infer_signature(data, model.predict(data)), input_example=data
)
"""
PREDICT = """
import sys, warnings
warnings.simplefilter("ignore")
import bentoml, mlflow.pyfunc, pandas as pd
data = pd.DataFrame({"town": ["a", "b"], "street": ["x", "y"]}, dtype=object)
print(mlflow.pyfunc.load_model(sys.argv[1]).predict(data).tolist())
"""


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


# From here on: MLflow as it was, and the real index.


def make_environment(place: Path, python: str, *install: str) -> Path:
    """Makes a virtual environment by a command of uv's; gives its interpreter."""
    uv = find_uv_bin()
    found = place / "bin" / "python"
    # pyenv's shims answer for the versions of the moment only.
    have = sorted(Path.home().glob(f".pyenv/versions/{python}.*/bin/python"))
    chosen = str(have[-1]) if have else python
    subprocess.run([uv, "venv", "-q", "--python", chosen, str(place)], check=True)
    subprocess.run(
        [uv, "pip", *install, "-q", "--only-binary", ":all:", "--python", str(found)],
        check=True,
    )
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("release", "learn", "python"),
    [
        ("1.30.0", "1.1.3", "3.10"),
        ("2.3.2", "1.2.2", "3.11"),
        ("2.8.1", "1.2.2", "3.11"),
        ("2.14.3", "1.4.2", "3.11"),
        ("2.22.0", "1.5.2", "3.12"),
        ("3.1.4", "1.6.1", "3.12"),
        ("3.6.0", "1.7.2", "3.13"),
    ],
)
def test_a_model_of_an_old_mlflow_predicts_in_its_lock(
    release: str, learn: str, python: str, tmp_path: Path
) -> None:
    wanted = (f"mlflow=={release}", f"scikit-learn=={learn}", "setuptools<81")
    try:
        old = make_environment(tmp_path / "old", python, "install", *wanted)
    except subprocess.CalledProcessError:
        pytest.skip(f"Python {python} is not to be had here")
    subprocess.run([old, "-c", SAVE, tmp_path / "model"], check=True, cwd=tmp_path)

    model = load_model(tmp_path / "model")
    lock = tmp_path / "lock.txt"
    lock.write_text(lock_requirements(bento_requirements([model]), [], python, tmp_path))
    new = make_environment(tmp_path / "new", python, "sync", "--require-hashes", str(lock))
    done = subprocess.run(
        [new, "-c", PREDICT, tmp_path / "model"],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.stdout.strip() == "[0, 1]"
