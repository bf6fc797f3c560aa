"""Models of older MLflow: another API, signatures that do not know what is required."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import packed_models as samples
import pandas as pd
import pytest
import yaml
from bentoml.exceptions import InvalidArgument
from mlflow.exceptions import MlflowException
from mlflow.types import ColSpec, Schema
from test_guard import TRAVELLERS

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def answers() -> Any:
    """The module that travels with every service."""
    sys.path.insert(0, str(TRAVELLERS))
    try:
        import pyfunc_answers
    finally:
        sys.path.remove(str(TRAVELLERS))
    return pyfunc_answers


class Model:
    """As a model of MLflow before 2.6: no parameters, and its errors are those of a server."""

    def predict(self, data: pd.DataFrame) -> list[float]:
        if data["x"].dtype == object:
            raise MlflowException("Incompatible input types for column x. Can not safely convert")
        if data["x"].isna().any():
            raise MlflowException("the store is out of reach")
        return [2 * x for x in data["x"]]


def test_a_model_without_params_is_asked_without(answers: Any) -> None:
    assert answers.answer(Model(), pd.DataFrame({"x": [1.5]})) == [3.0]


def test_a_schema_error_is_the_callers_whatever_its_code(answers: Any) -> None:
    with pytest.raises(InvalidArgument, match="Incompatible input types for column x"):
        answers.answer(Model(), pd.DataFrame({"x": ["a"]}, dtype=object))
    with pytest.raises(MlflowException, match="out of reach"):
        answers.answer(Model(), pd.DataFrame({"x": [float("nan")]}))


def test_a_signature_of_mlflow_1_lets_values_be_missing(
    tmp_path: Path, generate: Any, ask: Any
) -> None:
    samples.save_echo(tmp_path / "old", Schema([ColSpec("double", "a"), ColSpec("string", "b")]))
    mlmodel = yaml.safe_load((tmp_path / "old" / "MLmodel").read_text())
    mlmodel["signature"] = {
        "inputs": '[{"name": "a", "type": "double"}, {"name": "b", "type": "string"}]',
        "outputs": None,
    }
    del mlmodel["model_uuid"]
    (tmp_path / "old" / "MLmodel").write_text(yaml.safe_dump(mlmodel))
    service = generate(samples.load_model(tmp_path / "old"))
    gaps, absent = ask(
        service, {"inputs": [{"a": None, "b": "x"}, {"a": 1, "b": None}]}, {"inputs": [{"a": 1}]}
    )
    assert gaps[1][0]["cells"] == {"a": ["float nan", "float 1.0"], "b": ["str x", "float nan"]}
    assert absent[0] == 400
