"""How the script that asks MLflow reads JSON and writes predictions."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kfp_bento.runtime.proof.predict_with_mlflow import model_inputs, plain


def column(kind: str, *, required: bool = True) -> dict[str, Any]:
    return {"type": kind, "name": "c", "required": required}


@pytest.mark.parametrize(
    ("kind", "given", "dtype", "value"),
    [
        ("boolean", True, "bool", True),
        ("integer", 3, "int32", 3),
        ("long", 3, "int64", 3),
        ("float", 1, "float32", 1.0),
        ("double", 1, "float64", 1.0),
        ("binary", "AAE=", "object", b"\x00\x01"),
        ("datetime", "2026-01-02T03:04:05+01:00", "datetime64[ns]", datetime(2026, 1, 2, 2, 4, 5)),
    ],
)
def test_columns_get_the_types_of_the_signature(
    kind: str, given: Any, dtype: str, value: Any
) -> None:
    table = model_inputs([{"c": given}], [column(kind)])
    assert str(table["c"].dtype) == dtype
    assert table["c"][0] == value


@pytest.mark.parametrize(
    ("kind", "dtype"), [("boolean", "object"), ("double", "float64"), ("float", "float32")]
)
def test_a_missing_value_of_an_optional_column_stays_missing(kind: str, dtype: str) -> None:
    given = [{"c": None}, {"c": True if kind == "boolean" else 1}]
    table = model_inputs(given, [column(kind, required=False)])
    assert str(table["c"].dtype) == dtype
    assert table["c"].isna().tolist() == [True, False]


def test_an_optional_integer_column_without_values_is_left_out() -> None:
    given = [{"c": None, "d": 1.0}]
    table = model_inputs(given, [column("long", required=False), {"type": "double", "name": "d"}])
    assert list(table.columns) == ["d"]


def test_columns_whose_labels_are_numbers_get_them_back() -> None:
    specs = [{"type": "double", "name": 0}, {"type": "double", "name": 1}]
    table = model_inputs([{"0": 1.0, "1": 2.0}], specs)
    assert table.columns.tolist() == [0, 1]


@pytest.mark.parametrize(("inputs", "count"), [([1.0, 2.0], 1), ([[1.0, 2.0], [3.0, 4.0]], 2)])
def test_columns_without_names_are_counted(inputs: Any, count: int) -> None:
    table = model_inputs(inputs, [{"type": "double"}] * count)
    assert table.shape == (2, count)
    assert table.columns.tolist() == list(range(count))


def test_tensors_get_the_dtype_of_the_signature() -> None:
    spec = {"dtype": "float32", "shape": [-1, 2]}
    array = model_inputs([[1, None]], [{"type": "tensor", "tensor-spec": spec}])
    named = model_inputs({"x": [[1, 2]]}, [{"type": "tensor", "name": "x", "tensor-spec": spec}])
    assert array.dtype == named["x"].dtype == np.float32
    assert math.isnan(array[0, 1])


def test_what_is_left_out_is_not_null() -> None:
    specs = [column("string", required=False), {"type": "double", "name": "d"}]
    assert list(model_inputs([{"d": 1.0}], specs).columns) == ["d"]
    table = model_inputs([{"d": 1.0}, {"c": None, "d": 2.0}, {"c": "x", "d": 3.0}], specs)
    assert table["c"].dtype == object
    assert table["c"].isna().tolist() == [True, True, False]  # as pandas decides


def test_a_column_that_the_signature_has_not_is_refused() -> None:
    with pytest.raises(ValueError, match="x is no column of the signature"):
        model_inputs([{"c": 1.0, "x": 2}], [column("double")])


def test_moments_keep_their_nanoseconds_and_may_be_a_day() -> None:
    given = [{"c": "2024-01-01T10:00:00.123456789"}, {"c": "2024-01-02"}, {"c": None}]
    table = model_inputs(given, [column("datetime")])
    assert plain(table["c"]) == ["2024-01-01T10:00:00.123456789", "2024-01-02T00:00:00", None]


def test_bytes_of_a_tensor_are_base64() -> None:
    spec = {"dtype": "bytes", "shape": [-1]}
    array = model_inputs(["/w==", "AAE="], [{"type": "tensor", "tensor-spec": spec}])
    assert array.tolist() == [b"\xff", b"\x00\x01"]


def test_without_a_signature_records_are_a_table_and_the_rest_arrays() -> None:
    assert isinstance(model_inputs([{"a": 1}], None), pd.DataFrame)
    assert isinstance(model_inputs([1, 2], None), np.ndarray)
    assert isinstance(model_inputs({"a": [1]}, None)["a"], np.ndarray)
    assert math.isnan(model_inputs([1, None], None)[1])


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        (np.array([1, 2]), [1, 2]),
        (np.float64(0.5), 0.5),
        (pd.Series([True, False]), [True, False]),
        (pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}), [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), [{"a": 2}]),
        ({"p": np.array([[0.5]])}, {"p": [[0.5]]}),
        (["x", b"\x00\x01"], ["x", "AAE="]),
        (np.array(["2026-01-02"], dtype="datetime64[ns]"), ["2026-01-02T00:00:00"]),
        (np.array(["2026-01-02", "NaT"], dtype="datetime64[D]"), ["2026-01-02", None]),
        (np.datetime64("2026-01-02T03:04:05.000000006"), "2026-01-02T03:04:05.000000006"),
        (np.timedelta64(5, "s"), 5.0),
        (pd.Series([pd.Timedelta("1.5s"), pd.NaT]), [1.5, None]),
        ({None: 1, True: 2, 3: 4}, {"null": 1, "true": 2, "3": 4}),
        (pd.Series([pd.Timestamp("2026-01-02"), pd.NaT]), ["2026-01-02T00:00:00", None]),
    ],
)
def test_predictions_become_plain_json(answer: Any, value: Any) -> None:
    assert plain(answer) == value


def test_a_prediction_without_json_form_is_an_error() -> None:
    with pytest.raises(TypeError, match="no JSON form"):
        plain(object())
