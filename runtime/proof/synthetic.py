"""Inputs made up from a signature, for models that were logged without an input example."""

from __future__ import annotations

import math
from typing import Any

from kfp_bento.runtime.models import Column, ModelSignature, Tensor, ValueType

MOST_VALUES = 1_000_000
ROWS = 2

_SCALARS: dict[str, tuple[Any, Any]] = {
    "boolean": (True, False),
    "integer": (1, 2),
    "long": (1, 2),
    "float": (0.5, 1.5),
    "double": (0.5, 1.5),
    "string": ("a", "b"),
    "binary": ("YQ==", "Yg=="),
    "datetime": ("2024-01-01T00:00:00", "2024-01-02T12:00:00"),
    "any": ("a", "b"),
}
_DTYPES: dict[str, tuple[Any, Any]] = {
    "bool": (True, False),
    "int": (1, 2),
    "uint": (1, 2),
    "float": (0.5, 1.5),
    "bfloat": (0.5, 1.5),
    "datetime": ("2024-01-01T00:00:00", "2024-01-02T12:00:00"),
    "bytes": ("YQ==", "Yg=="),
    "str": ("a", "b"),
    "object": ("a", "b"),
}


def synthetic_inputs(signature: ModelSignature | None) -> Any:
    """Give `inputs` that a signature allows: two rows, or None where none can be made of it.

    The values mean nothing: a model may well refuse them, or answer nonsense.
    """
    if signature is None or not signature.inputs:
        return None
    try:
        return _inputs(signature)
    except (KeyError, ValueError):  # a type that nobody can make a value of
        return None


def _inputs(signature: ModelSignature) -> Any:
    if signature.kind == "tensor":
        return _array(signature.tensors[0], 0)
    if signature.kind == "tensors":
        return {tensor.key: _array(tensor, 0) for tensor in signature.tensors}
    columns = [field for field in signature.inputs if isinstance(field, Column)]
    if signature.kind == "columns":
        return [{column.key: _value(column.type, row) for column in columns} for row in range(ROWS)]
    if len(columns) == 1:
        return [_value(columns[0].type, row) for row in range(ROWS)]
    return [[_value(column.type, row) for column in columns] for row in range(ROWS)]


def _value(kind: ValueType, row: int) -> Any:
    if kind.kind == "object":
        return {field.key: _value(field.type, row) for field in kind.properties}
    if kind.kind == "array" and kind.item is not None:
        return [_value(kind.item, row)]
    if kind.kind == "map" and kind.item is not None:
        return {"key": _value(kind.item, row)}
    return _SCALARS[kind.kind][row % 2]


def _array(tensor: Tensor, row: int) -> Any:
    if not tensor.shape:
        return _element(tensor.dtype, row)
    first = ROWS if tensor.shape[0] == -1 else tensor.shape[0]
    rest = [1 if length == -1 else length for length in tensor.shape[1:]]
    if first * math.prod(rest) > MOST_VALUES:
        raise ValueError("too many values")
    return [_filled(rest, _element(tensor.dtype, index)) for index in range(first)]


def _filled(shape: list[int], value: Any) -> Any:
    if not shape:
        return value
    return [_filled(shape[1:], value) for _ in range(shape[0])]


def _element(dtype: str, row: int) -> Any:
    start = next(name for name in (*_DTYPES, "") if dtype.startswith(name))
    return _DTYPES[start][row % 2]
