"""JSON to what an MLflow model takes: typed rows become DataFrames, tensors arrays.

This file lies beside the service in every bento that kfp-bento generates. It needs nothing of
kfp-bento itself: only BentoML, pydantic, MLflow, NumPy and pandas, which the service has anyway,
and the other `pyfunc_…` files, which lie there too. It shows what `service.py` uses of them:

- The names `Boolean` to `Datetime` are MLflow's column types, as pydantic types; `Nullable`.
- `Row` and `Body`, from `pyfunc_body`, and `FrameBody` are the bases of records and bodies.
- `frame` and `table` make the DataFrame that MLflow's own check of the signature accepts.
- `tensor` makes the type of a NumPy array with a given dtype and shape; `arrays` names several.
- `answer` asks the model and gives plain JSON.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_origin

import bentoml
from bentoml.exceptions import InvalidArgument
from pydantic import BaseModel
from pyfunc_answers import answer as answer  # type: ignore[import-not-found]
from pyfunc_answers import plain as plain
from pyfunc_body import Body as Body  # type: ignore[import-not-found]
from pyfunc_body import Row as Row
from pyfunc_columns import (  # type: ignore[import-not-found]
    Column,
    Columns,
    columns_of,
    dtype_of,
    marked,
    unwrapped,
)
from pyfunc_guard import LIMITS, switch  # type: ignore[import-not-found]
from pyfunc_tensors import free_array  # type: ignore[import-not-found]
from pyfunc_tensors import tensor as tensor
from pyfunc_types import Binary as Binary  # type: ignore[import-not-found]
from pyfunc_types import Boolean as Boolean
from pyfunc_types import Datetime as Datetime
from pyfunc_types import Double as Double
from pyfunc_types import Dtype
from pyfunc_types import Float as Float
from pyfunc_types import Integer as Integer
from pyfunc_types import Label as Label
from pyfunc_types import Long as Long
from pyfunc_types import Nullable as Nullable
from pyfunc_types import String as String

with bentoml.importing():  # the image has these; the machine that builds the bento may not
    import numpy as np
    import pandas as pd


def example(name: str = "example.json") -> list[Any] | None:
    """Gives the model's own input example for the API page, as a list of one request's inputs.

    None where `KFP_BENTO_SHOW_EXAMPLE` is false.
    """
    if not switch("KFP_BENTO_SHOW_EXAMPLE", default=True):
        return None
    return [json.loads(Path(__file__).with_name(name).read_text(encoding="utf-8"))["inputs"]]


class FrameBody(Body):  # type: ignore[misc]
    """A request body with rows for `frame`; many may be read column by column."""

    by_column = True


def frame(rows: Sequence[BaseModel] | Columns) -> pd.DataFrame:
    """Gives records as a DataFrame: one column per field, with the signature's dtypes.

    A column that no row has is left out, so that the model's own default holds. Where some rows
    have it, it is missing in the others. What is missing is NaN, NaT or None, as MLflow makes it.

    Args:
        rows: At least one record, all of the same class.

    Raises:
        bentoml.exceptions.InvalidArgument: An integer column is given in some rows only.
    """
    if isinstance(rows, Columns):
        return _of_columns(rows)
    row_type: Any = type(rows[0])
    alike = _alike(row_type)
    if alike is not None:
        labels, dtype, values_of = alike
        numbers = np.array([values_of(row) for row in rows], dtype=dtype).reshape(len(rows), -1)
        # Column by column, as in every frame of columns: the last bit of a sum depends on it.
        return pd.DataFrame(np.asfortranarray(numbers), columns=labels, copy=False)
    fields = columns_of(row_type)
    columns: dict[Any, Any] = {}
    for field, values in zip(fields, _by_column(rows, fields), strict=True):
        if not field.required and values[0] is None and not any(_has(row, field) for row in rows):
            continue
        if field.dtype == "str" or field.type is Any:  # null is null, and what is left out NaN
            values = [
                np.nan if value is None and not _has(row, field) else value
                for value, row in zip(values, rows, strict=True)
            ]
        column = _series(field.label, field.type, field.dtype, values)
        if column is not None:
            columns[field.label] = column
    return pd.DataFrame(columns, index=range(len(rows)))


def _of_columns(rows: Columns) -> pd.DataFrame:
    columns = {
        column.label: values
        if isinstance(values, np.ndarray)
        else _series(column.label, column.type, column.dtype, values)
        for column, values in zip(rows.columns, rows.values, strict=True)
    }
    return pd.DataFrame(columns, index=range(len(rows)))


@cache
def _alike(row_type: type[BaseModel]) -> tuple[pd.Index, str, Callable[[Any], Any]] | None:
    """Gives labels, dtype and what gives a row's values, where all columns are numbers of one kind.

    As one array they take a tenth of the time.
    """
    fields = columns_of(row_type)
    dtypes = {field.dtype for field in fields}
    numbers = len(dtypes) == 1 and dtypes <= {"float32", "float64", "int32", "int64"}
    if not numbers or not all(field.required for field in fields):
        return None
    labels = pd.DataFrame({field.label: [] for field in fields}).columns
    if len(labels) < len(fields):
        return None
    return labels, dtypes.pop() or "", operator.attrgetter(*(field.name for field in fields))


def _has(row: BaseModel, field: Column) -> bool:
    return field.name in row.model_fields_set


def _by_column(rows: Sequence[BaseModel], fields: Sequence[Column]) -> Iterator[Sequence[Any]]:
    if len(fields) == 1:
        return iter([[getattr(row, fields[0].name) for row in rows]])
    return zip(*map(operator.attrgetter(*(field.name for field in fields)), rows), strict=True)


def table(rows: Sequence[Any], row_type: Any) -> pd.DataFrame:
    """Gives unnamed columns as a DataFrame with the columns 0, 1, 2 and so on.

    Args:
        rows: Tuples, or bare values where there is one column only.
        row_type: `tuple[…]` of the column types, or the one column's type.
    """
    kinds = get_args(row_type) if get_origin(row_type) is tuple else (row_type,)
    if len(kinds) == 1 and get_origin(row_type) is not tuple:
        rows = [(row,) for row in rows]
    columns = {
        number: _series(number, kind, dtype_of(kind), values)
        for number, (kind, values) in enumerate(zip(kinds, zip(*rows, strict=True), strict=True))
    }
    return pd.DataFrame(columns, index=range(len(rows)))


def native(rows: Sequence[Any]) -> list[Any]:
    """Gives rows as Python values, for a model whose signature comes from its type hints."""
    return [
        _python(row.model_dump(by_alias=True, exclude_unset=True))
        if isinstance(row, BaseModel)
        else _python(row)
        for row in rows
    ]


def _python(value: Any) -> Any:
    if isinstance(value, np.datetime64):
        return value.astype("datetime64[us]").item()
    if isinstance(value, dict):
        return {key: _python(item) for key, item in value.items()}
    return [_python(item) for item in value] if isinstance(value, list) else value


def arrays(tensors: BaseModel) -> dict[str, np.ndarray]:
    """Gives named tensors as the dict of arrays that MLflow's signature check accepts."""
    fields = type(tensors).model_fields
    return {fields[name].alias or name: getattr(tensors, name) for name in fields}


def free_form(inputs: Any) -> Any:
    """Gives JSON to a model without a signature.

    A list of objects becomes a DataFrame, any other object a dict of arrays, the rest an array.

    Raises:
        bentoml.exceptions.InvalidArgument: It has no one shape, too many rows, or would become far
            larger.
    """
    if isinstance(inputs, list) and inputs and all(isinstance(row, dict) for row in inputs):
        if len(inputs) > LIMITS.max_rows:
            raise InvalidArgument(f"inputs: more than {LIMITS.max_rows} rows")
        if len(inputs) * len(set().union(*inputs)) > max(LIMITS.max_values, sum(map(len, inputs))):
            raise InvalidArgument("inputs: the rows have too many different keys")
        return pd.DataFrame(inputs)
    try:
        if isinstance(inputs, dict):
            return {name: free_array(values) for name, values in inputs.items()}
        return free_array(inputs)
    except ValueError as error:
        raise InvalidArgument(f"inputs: {error}") from None


def _series(label: Any, kind: Any, dtype: str | None, values: Sequence[Any]) -> Any:
    """Gives a column; None for an integer column that has no value at all."""
    if dtype is None:
        return pd.Series([_cast(kind, value) for value in values], dtype=object)
    if dtype == "str":
        if set(map(type, values)) == {str}:
            return pd.Series(values, dtype=object)
        # pandas decides how it is missing; `object` is what every MLflow takes under every pandas.
        return pd.Series(values).astype(object)
    if dtype in ("int32", "int64") and None in values:
        at = values.index(None)
        if all(value is None for value in values):
            return None
        raise InvalidArgument(
            f"inputs.{at}.{label}: missing, but given in other rows; MLflow's "
            "integer columns cannot hold missing values, so give it in every row or in none"
        )
    if dtype == "bytes" or (dtype == "bool" and None in values):
        return pd.Series(values, dtype=object)
    return np.array(values, dtype=dtype)


def _cast(annotation: Any, value: Any) -> Any:
    """Gives what lies inside arrays, objects and maps the exact NumPy type of the signature."""
    kind, marks = unwrapped(annotation)
    dtype = next((m.name for m in marks if isinstance(m, Dtype)), None)
    if dtype in ("float32", "float64"):
        return np.dtype(dtype).type(np.nan if value is None else value)
    if value is None or dtype in ("str", "bytes", "datetime64[ns]"):
        return value
    if dtype is not None:
        return np.dtype(dtype).type(value)
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        return {
            fields[name].alias or name: _cast(marked(fields[name]), getattr(value, name))
            for name in fields
            if name in value.model_fields_set
        }
    if get_origin(kind) is list:
        return [_cast(get_args(kind)[0], item) for item in value]
    if get_origin(kind) is dict:
        return {key: _cast(get_args(kind)[1], item) for key, item in value.items()}
    return value
