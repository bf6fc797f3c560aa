"""A model's own input example becomes a request body, in whichever form MLflow kept it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kfp_bento.runtime.bentos import prediction_request
from kfp_bento.runtime.errors import BentoError
from kfp_bento.runtime.models import ModelSignature, ModelVersion

COLUMNS = ({"type": "double", "name": "a"}, {"type": "string", "name": "b"})
NESTED = ({"type": "array", "items": {"type": "double"}, "name": "a"},)
UNNAMED = ({"type": "double"}, {"type": "double"})
TENSOR = ({"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 2]}},)
FIXED = ({"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [2, 2]}},)
TENSORS = ({**TENSOR[0], "name": "x"}, {**TENSOR[0], "name": "y"})
SPLIT = {"columns": ["a", "b"], "data": [[1.5, "x"], [None, "y"]]}
RECORDS = [{"a": 1.5, "b": "x"}, {"a": None, "b": "y"}]


def model(directory: Path, inputs: tuple[dict[str, Any], ...]) -> ModelVersion:
    facts: dict[str, Any] = dict.fromkeys(
        ["uri", "name", "version", "alias", "run_id", "model_id", "source", "digest"], ""
    )
    return ModelVersion(
        **facts,
        content_digest="",
        flavors=(),
        python_version="",
        requirements=(),
        mlflow_version="",
        size=0,
        signature=ModelSignature.from_dict({"inputs": list(inputs)}) if inputs else None,
        aliases={},
        directory=directory,
    )


@pytest.mark.parametrize(
    ("inputs", "example", "wanted"),
    [
        (COLUMNS, {"dataframe_split": SPLIT}, RECORDS),
        (COLUMNS, {"dataframe_records": RECORDS}, RECORDS),
        (COLUMNS, {"inputs": RECORDS}, RECORDS),
        (COLUMNS, {"inputs": [{**row, "label": 1} for row in RECORDS]}, RECORDS),
        (COLUMNS, {"inputs": {"a": 1.5, "b": "x"}}, RECORDS[:1]),
        (COLUMNS, {"inputs": {"a": [1.5, None], "b": ["x", "y"]}}, RECORDS),
        (COLUMNS, SPLIT, RECORDS),
        (NESTED, {"inputs": {"a": [1, 2]}}, [{"a": [1, 2]}]),
        (UNNAMED, {"dataframe_split": {"columns": [0, 1], "data": [[1, 2]]}}, [[1, 2]]),
        (UNNAMED, {"inputs": [[1, 2]]}, [[1, 2]]),
        (({"type": "string"},), {"inputs": "hello"}, ["hello"]),
        (TENSOR, {"inputs": [[1, 2], [3, 4]]}, [[1, 2], [3, 4]]),
        (TENSOR, {"instances": [[1, 2]]}, [[1, 2]]),
        (TENSORS, {"inputs": {"x": [[1, 2]], "y": [[3, 4]]}}, {"x": [[1, 2]], "y": [[3, 4]]}),
        (TENSORS, {"instances": [{"x": [1, 2], "y": [3, 4]}]}, {"x": [[1, 2]], "y": [[3, 4]]}),
        ((), {"dataframe_split": SPLIT}, RECORDS),
        ((), {"inputs": [1, 2]}, [1, 2]),
        ((), [1, 2], [1, 2]),
    ],
)
def test_every_form_of_an_example_becomes_inputs(
    tmp_path: Path, inputs: tuple[dict[str, Any], ...], example: Any, wanted: Any
) -> None:
    (tmp_path / "serving_input_example.json").write_text(json.dumps(example))
    assert prediction_request(model(tmp_path, inputs)) == {"inputs": wanted}


def test_params_and_rows_are_taken_over(tmp_path: Path) -> None:
    example = {"dataframe_split": SPLIT, "params": {"k": 1}}
    (tmp_path / "serving_input_example.json").write_text(json.dumps(example))
    request = prediction_request(model(tmp_path, COLUMNS), rows=1)
    assert request == {"inputs": RECORDS[:1], "params": {"k": 1}}


def test_only_free_dimensions_are_shortened(tmp_path: Path) -> None:
    (tmp_path / "serving_input_example.json").write_text('{"inputs": [[1, 2], [3, 4]]}')
    assert prediction_request(model(tmp_path, TENSOR), rows=1)["inputs"] == [[1, 2]]
    assert prediction_request(model(tmp_path, FIXED), rows=1)["inputs"] == [[1, 2], [3, 4]]


def test_nan_becomes_null(tmp_path: Path) -> None:
    (tmp_path / "serving_input_example.json").write_text('{"inputs": [NaN, 1]}')
    assert prediction_request(model(tmp_path, ())) == {"inputs": [None, 1]}


def test_the_plain_example_serves_where_there_is_no_payload(tmp_path: Path) -> None:
    (tmp_path / "input_example.json").write_text(json.dumps(SPLIT))
    assert prediction_request(model(tmp_path, COLUMNS)) == {"inputs": RECORDS}


@pytest.mark.parametrize(("text", "message"), [(None, "has no input example"), ("{", "valid JSON")])
def test_a_model_without_a_readable_example_is_an_error(
    tmp_path: Path, text: str | None, message: str
) -> None:
    if text:
        (tmp_path / "serving_input_example.json").write_text(text)
    with pytest.raises(BentoError, match=message):
        prediction_request(model(tmp_path, COLUMNS))
