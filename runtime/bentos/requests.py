"""A model's own input example as the JSON body of a prediction request."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.errors import BentoError, ModelError
from kfp_bento.runtime.models import Column, read_example

if TYPE_CHECKING:
    from kfp_bento.runtime.models import ModelVersion


def prediction_request(model: ModelVersion, rows: int | None = None) -> dict[str, Any]:
    """Give the body of `POST /predict` made of the model's own input example.

    Args:
        model: A pulled model.
        rows: At most so many rows; None is all of them.

    Returns:
        `{"inputs": …}`, with `"params"` where the example has some. NaN has become null.

    Raises:
        BentoError: The model has no input example, or one that cannot be read.
    """
    example = _example(model)
    try:
        return _request(model, example, rows)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise BentoError(
            "The model's input example has not the form that MLflow gives it "
            f"({type(error).__name__}), so no request can be made of it.",
            hint="Log the model again with input_example=…, or give a request of your own.",
        ) from error


def _request(model: ModelVersion, example: Any, rows: int | None) -> dict[str, Any]:
    inputs = _known(_shaped(_inputs(example, _kind(model)), model), model)
    body: dict[str, Any] = {"inputs": inputs if rows is None else _first(inputs, rows, model)}
    if isinstance(example, dict) and isinstance(example.get("params"), dict):
        body["params"] = example["params"]
    return _without_nan(body)  # type: ignore[no-any-return]


def _shaped(inputs: Any, model: ModelVersion) -> Any:
    """Give an example's values in the shape that the service takes."""
    kind = _kind(model)
    if kind == "columns" and isinstance(inputs, dict):
        return _records(inputs, model)
    if kind == "unnamed" and not isinstance(inputs, list):
        return [inputs]
    if kind == "tensors" and isinstance(inputs, list) and inputs and isinstance(inputs[0], dict):
        return {name: [row[name] for row in inputs] for name in inputs[0]}
    return inputs


def _known(inputs: Any, model: ModelVersion) -> Any:
    """Leave out columns that the signature has not: MLflow does so, a service refuses them."""
    if model.signature is None or _kind(model) != "columns":
        return inputs
    names = {field.key for field in model.signature.inputs}
    return [{name: value for name, value in row.items() if name in names} for row in inputs]


def _kind(model: ModelVersion) -> str:
    return model.signature.kind if model.signature else ""


def _example(model: ModelVersion) -> Any:
    try:
        example = read_example(model.directory)
    except ModelError as error:
        raise BentoError(error.message, hint=error.hint) from error
    if example is None:
        raise BentoError(
            "The model has no input example, so no request can be made for it.",
            hint="Log the model with input_example=…, or give a request of your own.",
        )
    return example


def _inputs(example: Any, kind: str) -> Any:
    if not isinstance(example, dict):
        return example
    if "dataframe_split" in example:
        return _split_rows(example["dataframe_split"], kind)
    for key in ("dataframe_records", "inputs", "instances"):
        if key in example:
            return example[key]
    if {"columns", "data"} <= example.keys():
        return _split_rows(example, kind)
    if kind == "" and "params" not in example:
        return example
    return {key: value for key, value in example.items() if key != "params"}


def _split_rows(split: dict[str, Any], kind: str) -> list[Any]:
    data: list[Any] = split["data"]
    if "columns" not in split or kind in ("unnamed", "tensor"):
        return data
    names = [str(column) for column in split["columns"]]
    return [dict(zip(names, row, strict=False)) for row in data]


def _records(inputs: dict[str, Any], model: ModelVersion) -> list[dict[str, Any]]:
    """Give one record per row; a mapping of lists is by column where no column holds lists."""
    scalar_columns = model.signature is not None and not any(
        isinstance(field, Column) and field.type.kind in ("array", "object", "map", "any")
        for field in model.signature.inputs
    )
    if not (scalar_columns and inputs and all(isinstance(v, list) for v in inputs.values())):
        return [inputs]
    return [dict(zip(inputs, row, strict=False)) for row in zip(*inputs.values(), strict=False)]


def _first(inputs: Any, rows: int, model: ModelVersion) -> Any:
    tensors = model.signature.tensors if model.signature else ()
    if not all(tensor.shape and tensor.shape[0] == -1 for tensor in tensors):
        return inputs  # a fixed first dimension has to stay as it is
    if _kind(model) == "tensors" and isinstance(inputs, dict):
        return {name: value[:rows] for name, value in inputs.items()}
    return inputs[:rows] if isinstance(inputs, list) else inputs


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
