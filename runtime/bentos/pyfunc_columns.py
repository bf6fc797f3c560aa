"""The columns of a record class, and many rows read column by column.

This file lies beside the service in every bento that kfp-bento generates. An object for each of
thousands of rows costs more than the model takes for them. Where all rows have the same keys and
each column is of one plain type, `read_columns` looks at whole columns instead. It takes nothing
that the record class would not take, and leaves all that is not as plain as that to it.
"""

from __future__ import annotations

import json
import operator
import types
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

import bentoml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import from_json
from pyfunc_types import (  # type: ignore[import-not-found]
    LARGEST_FLOAT32,
    Dtype,
    Label,
    Missing,
    base64_bytes,
    moment,
)

with bentoml.importing():
    import numpy as np


class Column(NamedTuple):
    """One column of a record class.

    Attributes:
        name: Its field.
        key: Its key in JSON.
        label: Its label in the DataFrame.
        type: Its type, with marks.
        dtype: NumPy's name of its type; None where that is an array, an object, a map or any.
        required: Whether it has to be there.
    """

    name: str
    key: str
    label: Any
    type: Any
    dtype: str | None
    required: bool


class Columns:
    """Rows of a record class, which all have the same keys, as columns.

    Attributes:
        columns: The columns that are there.
        values: Those of each, checked: an array for numbers, else Python's values.
    """

    def __init__(self, columns: Sequence[Column], values: list[Any]) -> None:
        """Takes columns that have been checked."""
        self.columns, self.values = columns, values

    def __len__(self) -> int:
        """Gives the number of rows."""
        return len(self.values[0])


@cache
def columns_of(row_type: type[BaseModel]) -> tuple[Column, ...]:
    """Gives the columns of a record class."""
    found = []
    for name, field in row_type.model_fields.items():
        key, kind = field.alias or name, marked(field)
        label = next((m.value for m in field.metadata if isinstance(m, Label)), key)
        found.append(Column(name, key, label, kind, dtype_of(kind), field.is_required()))
    return tuple(found)


def unwrapped(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    """Splits a type into what it is and how it is marked, looking through `| None`."""
    if get_origin(annotation) is Annotated:
        inner, *marks = get_args(annotation)
        kind, deeper = unwrapped(inner)
        return kind, (*marks, *deeper)
    if get_origin(annotation) in (Union, types.UnionType):
        (inner,) = (arg for arg in get_args(annotation) if arg is not type(None))
        return unwrapped(inner)
    return annotation, ()


def marked(field: FieldInfo) -> Any:
    """Gives a field's type with the marks that pydantic keeps apart from it."""
    if not field.metadata:
        return field.annotation
    return operator.getitem(Annotated, (field.annotation, *field.metadata))


def dtype_of(annotation: Any) -> str | None:
    """Gives NumPy's name of a type of one value; None for any other."""
    return next((m.name for m in unwrapped(annotation)[1] if isinstance(m, Dtype)), None)


# --- many rows -----------------------------------------------------------------------------------


_NUMBERS = {int, float}
_TYPES: dict[str | None, set[type]] = {
    **{"bool": {bool}, "int32": {int}, "int64": {int}, "float32": _NUMBERS, "float64": _NUMBERS},
    **{"str": {str}, "bytes": {str}, "datetime64[ns]": {str}},
}
"""The types of values that a column may have, as JSON has them."""
_MADE: dict[str | None, Callable[[Any], Any]] = {"bytes": base64_bytes, "datetime64[ns]": moment}
_REACH = {"int32": 2**31, "int64": 2**63}


class _NotPlain(Exception):
    pass


def read_columns(body: Any, raw: bytes) -> Any:
    """Reads a body with many rows; None where it, or its class, is not plain enough.

    Args:
        body: A subclass of `Body`.
        raw: JSON, within the limits.
    """
    if _plain_rows(body) is None:
        return None
    try:
        whole = from_json(raw, cache_strings="keys")
        rows = whole.pop("inputs")
        keys = list(rows[0])
        if sum(map(len, rows)) != len(keys) * len(rows):
            return None
        by_row = map(operator.itemgetter(*keys), rows)
        by_column = zip(*by_row, strict=True) if len(keys) > 1 else [tuple(by_row)]
        given = dict(zip(keys, by_column, strict=True))
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None
    return take_columns(body, given, whole)


def take_columns(body: Any, given: Mapping[str, Any], beside: Mapping[str, Any]) -> Any:
    """Gives a body with rows that come as columns; None where they are not plain enough.

    Args:
        body: A subclass of `Body`.
        given: Columns of one length, at least one row, by key: Python's values of JSON, or an array
            of numbers or booleans, in which NaN is missing.
        beside: What stands beside the inputs in the body.
    """
    row_type = _plain_rows(body)
    if row_type is None:
        return None
    try:
        columns = [column for column in columns_of(row_type) if column.key in given]
        values = [_checked(column, given[column.key]) for column in columns]
        made = {column.key: one for column, one in zip(columns, values, strict=True)}
        first = {
            key: made.get(key, one)[0].item() if isinstance(one, np.ndarray) else one[0]
            for key, one in given.items()
        }
        # What is beside the rows, and whether all columns are there that have to be.
        found = body.model_validate_json(json.dumps({**beside, "inputs": [first]}))
    except (_NotPlain, ValueError, TypeError, LookupError, OverflowError, RecursionError):
        return None
    found.inputs = Columns(columns, values)
    return found


@cache
def _plain_rows(body: Any) -> Any:
    """Gives the class of a body's rows, where all its columns are of plain types."""
    if not body.by_column:
        return None
    (row_type,) = get_args(body.model_fields["inputs"].annotation)
    plain = all(column.dtype in _TYPES for column in columns_of(row_type))
    return row_type if plain else None


def _checked(column: Column, given: Sequence[Any]) -> Any:
    """Gives the values of a column as its type makes them.

    Raises:
        _NotPlain: They do not fit, or may not.
    """
    nullable = any(isinstance(mark, Missing) for mark in unwrapped(column.type)[1])
    if isinstance(given, np.ndarray):
        return _checked_array(column.dtype, given, nullable)
    kinds = set(map(type, given))
    missing = given.count(None) if type(None) in kinds else 0
    if kinds - _TYPES[column.dtype] - ({type(None)} if nullable else set()):
        raise _NotPlain
    if column.dtype in ("float32", "float64"):
        return _floats(column.dtype, np.array(given, dtype="float64"), missing)
    if column.dtype in _REACH:
        numbers = np.array(given, dtype="int64")
        if numbers.max() >= _REACH[column.dtype] or numbers.min() < -_REACH[column.dtype]:
            raise _NotPlain
        return numbers.astype(column.dtype)
    make = _MADE.get(column.dtype)
    return given if make is None else [None if one is None else make(one) for one in given]


_KINDS = {"bool": "b", "int32": "iuf", "int64": "iuf", "float32": "iuf", "float64": "iuf"}
"""NumPy's kinds of arrays that a column may come from."""


def _checked_array(dtype: str | None, given: np.ndarray, nullable: bool) -> np.ndarray:
    if given.dtype.kind not in _KINDS.get(dtype or "", ""):
        raise _NotPlain
    if dtype in ("float32", "float64"):
        numbers = given.astype("float64")
        return _floats(dtype, numbers, int(np.isnan(numbers).sum()) if nullable else 0)
    if dtype in _REACH:
        whole = given.dtype.kind != "f" or np.array_equal(given, np.trunc(given))
        bounds = (given.min(), given.max())
        if not whole or bounds[1] >= _REACH[dtype] or bounds[0] < -_REACH[dtype]:
            raise _NotPlain
    return given.astype(dtype)


def _floats(dtype: str, numbers: np.ndarray, missing: int) -> np.ndarray:
    finite = np.isfinite(numbers)
    if len(numbers) - np.count_nonzero(finite) != missing:
        raise _NotPlain
    if dtype == "float32" and (np.abs(numbers[finite]) > LARGEST_FLOAT32).any():
        raise _NotPlain
    return numbers.astype(dtype)
