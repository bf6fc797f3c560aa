"""Models that MLflow wrote as it was once, from their folder to answers that are proven."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from uv import find_uv_bin

from kfp_bento.runtime.bentos import build_bento
from kfp_bento.runtime.models import load_model
from kfp_bento.runtime.proof import golden_answers
from kfp_bento.runtime.proof.golden import MODEL

SAVE = """
import inspect, warnings
warnings.simplefilter("ignore")
import mlflow.sklearn, pandas as pd
from mlflow.models import infer_signature
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
data = pd.DataFrame({
    "town": ["a", "b", "a", "b"], "street": ["x", "y", "y", "x"], "age": [31.5, None, 45, 52],
    "rooms": [1, 2, 3, 4],
})
places = OneHotEncoder(handle_unknown="ignore")
model = make_pipeline(
    make_column_transformer(
        (places, ["town", "street"]), (SimpleImputer(), ["age"]), ("passthrough", ["rooms"])
    ),
    LogisticRegression(),
)
model.fit(data, [0, 1, 0, 1])
signature = infer_signature(data, model.predict(data))
mlflow.sklearn.save_model(model, "with-signature", signature=signature, input_example=data)
source = inspect.getsource(mlflow.sklearn.save_model)
mlflow.sklearn.save_model(
    model, "without-signature", input_example=data,
    **({"signature": False} if "signature is False" in source else {}),
)
"""


def interpreter(minor: str) -> str:
    """Gives a Python of this machine; pyenv's shims answer for the versions of the moment only."""
    have = sorted(Path.home().glob(f".pyenv/versions/{minor}.*/bin/python{minor}"))
    found = str(have[-1]) if have else shutil.which(f"python{minor}")
    if found is None:
        pytest.skip(f"Python {minor} is not to be had here")
    return found


def install(place: Path, python: str, *needs: str) -> Path:
    """Makes a virtual environment; gives its interpreter."""
    uv = find_uv_bin()
    found = place / "bin" / "python"
    subprocess.run([uv, "venv", "-q", "--python", python, str(place)], check=True)
    command = [uv, "pip", "install", "-q", "--only-binary", ":all:", "--python", str(found)]
    subprocess.run([*command, *needs], check=True)
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
def test_a_model_of_an_old_mlflow_is_served_as_it_predicts(
    release: str, learn: str, python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = interpreter(python)
    monkeypatch.setenv("PATH", str(Path(chosen).parent), prepend=os.pathsep)
    wanted = (f"mlflow=={release}", f"scikit-learn=={learn}", "setuptools<81")
    old = install(tmp_path / "old", chosen, *wanted)
    subprocess.run([old, "-c", SAVE], check=True, cwd=tmp_path)
    for name in ("with-signature", "without-signature"):
        model = load_model(tmp_path / name)
        assert (model.signature is None) == (name == "without-signature")
        golden = golden_answers(build_bento([model], tmp_path / f"{name}-bento"), [model])
        answers = [one.answer for one in golden.requests]
        assert [answer and answer.content.value for answer in answers] == [
            [0, 1, 0, 1],
            *([0], [1], [0], [1]),
        ]
        assert {answer and answer.source for answer in answers} == {MODEL}
