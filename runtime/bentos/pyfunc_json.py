"""JSON in and out of an MLflow model: typed rows, checked tensors, plain answers.

This file lies beside the service in every bento that kfp-bento generates. It needs nothing of
kfp-bento itself: only BentoML, pydantic, MLflow, NumPy and pandas, which the service has anyway,
and `pyfunc_body` and `pyfunc_guard`, which lie there too.

- The names `Boolean` to `Datetime` are MLflow's column types, as pydantic types.
- `Row` and `Body`, from `pyfunc_body`, are the bases of records and request bodies.
- `frame` and `table` make the DataFrame that MLflow's own check of the signature accepts.
- `tensor` makes the type of a NumPy array with a given dtype and shape; `arrays` names several.
- `answer` asks the model and gives plain JSON.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import operator
import re
import types
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

import bentoml
from bentoml.exceptions import InvalidArgument
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
)
from pydantic.fields import FieldInfo
from pyfunc_body import Body as Body  # type: ignore[import-not-found]
from pyfunc_body import Row as Row
from pyfunc_guard import LIMITS, switch  # type: ignore[import-not-found]

with bentoml.importing():  # the image has these; the machine that builds the bento may not
    import numpy as np
    import pandas as pd
    from mlflow.exceptions import MlflowException

LARGEST_FLOAT32 = (2 - 2**-23) * 2.0**127


class Dtype(NamedTuple):
    """Marks a type with the NumPy dtype that MLflow's signature asks for."""

    name: str


class Label(NamedTuple):
    """Marks a field whose column label is not a string, such as the number 0."""

    value: Any


def _from_base64(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError("binary data has to be a base64 string")
    return base64.b64decode("".join(value.split()), validate=True)  # MLflow breaks its lines


def _within_float32(value: float) -> float:
    if math.isfinite(value) and abs(value) > LARGEST_FLOAT32:
        raise ValueError("the number does not fit into 32 bits")
    return value


def _naive_utc(value: datetime) -> datetime:
    if value.tzinfo is not None:
        value = value.astimezone(timezone.utc).replace(tzinfo=None)  # noqa: UP017 (Python 3.10)
    if not 1678 <= value.year <= 2261:
        raise ValueError("the year has to lie between 1678 and 2261")
    return value


Boolean = Annotated[bool, Dtype("bool")]
Integer = Annotated[int, Field(ge=-(2**31), le=2**31 - 1), Dtype("int32")]
Long = Annotated[int, Field(ge=-(2**63), le=2**63 - 1), Dtype("int64")]
Float = Annotated[float, AfterValidator(_within_float32), Dtype("float32")]
Double = Annotated[float, Dtype("float64")]
String = Annotated[str, Dtype("str")]
Binary = Annotated[
    bytes,
    BeforeValidator(_from_base64),
    WithJsonSchema({"type": "string", "contentEncoding": "base64"}),
    Dtype("bytes"),
]
Datetime = Annotated[
    datetime,
    AfterValidator(_naive_utc),
    WithJsonSchema({"type": "string", "format": "date-time"}),
    Dtype("datetime64[ns]"),
]


def example(name: str = "example.json") -> list[Any] | None:
    """Gives the model's own input example for the API page, as a list of one request's inputs.

    None where `KFP_BENTO_SHOW_EXAMPLE` is false.
    """
    if not switch("KFP_BENTO_SHOW_EXAMPLE", default=True):
        return None
    return [json.loads(Path(__file__).with_name(name).read_text(encoding="utf-8"))["inputs"]]


# --- JSON to DataFrame ---------------------------------------------------------------------------


def frame(rows: Sequence[BaseModel]) -> pd.DataFrame:
    """Gives records as a DataFrame: one column per field, with the signature's dtypes.

    An optional value that is null or left out becomes NaN, NaT or None. An integer column has no
    such value: it is left out when no row has it, as MLflow's signature check wants it.

    Args:
        rows: At least one record, all of the same class.

    Raises:
        bentoml.exceptions.InvalidArgument: An integer column is given in some rows only.
    """
    columns: dict[Any, pd.Series] = {}
    for name, field in type(rows[0]).model_fields.items():
        label = next((m.value for m in field.metadata if isinstance(m, Label)), field.alias or name)
        column = _column(label, _marked(field), [getattr(row, name) for row in rows])
        if column is not None:
            columns[label] = column
    return pd.DataFrame(columns, index=range(len(rows)))


def table(rows: Sequence[Any], row_type: Any) -> pd.DataFrame:
    """Gives unnamed columns as a DataFrame with the columns 0, 1, 2 and so on.

    Args:
        rows: Tuples, or bare values where there is one column only.
        row_type: `tuple[…]` of the column types, or the one column's type.
    """
    kinds = get_args(row_type) if get_origin(row_type) is tuple else (row_type,)
    if len(kinds) == 1 and get_origin(row_type) is not tuple:
        rows = [(row,) for row in rows]
    columns = {n: _column(n, kind, [row[n] for row in rows]) for n, kind in enumerate(kinds)}
    return pd.DataFrame(columns, index=range(len(rows)))


def native(rows: Sequence[Any]) -> list[Any]:
    """Gives rows as Python values, for a model whose signature comes from its type hints."""
    return [
        row.model_dump(by_alias=True, exclude_unset=True) if isinstance(row, BaseModel) else row
        for row in rows
    ]


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
            return {name: _plain_array_of(values) for name, values in inputs.items()}
        return _plain_array_of(inputs)
    except ValueError as error:
        raise InvalidArgument(f"inputs: {error}") from None


def _column(label: Any, annotation: Any, values: list[Any]) -> pd.Series | None:
    dtype = _dtype(annotation)
    missing = [value is None for value in values]
    if dtype is None:
        return pd.Series([_cast(annotation, value) for value in values], dtype=object, name=label)
    if dtype in ("int32", "int64") and any(missing):
        if all(missing):
            return None
        raise InvalidArgument(
            f"inputs.{missing.index(True)}.{label}: missing, but given in other rows; MLflow's "
            "integer columns cannot hold missing values, so give it in every row or in none"
        )
    if dtype == "str":
        return pd.Series(values, name=label, dtype=object if all(missing) else None)
    if dtype == "bytes" or (dtype == "bool" and any(missing)):
        return pd.Series(values, name=label, dtype=object)
    return pd.Series(values, name=label, dtype=dtype)


def _unwrapped(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    """Splits a type into what it is and how it is marked, looking through `| None`."""
    if get_origin(annotation) is Annotated:
        inner, *marks = get_args(annotation)
        kind, deeper = _unwrapped(inner)
        return kind, (*marks, *deeper)
    if get_origin(annotation) in (Union, types.UnionType):
        (inner,) = (arg for arg in get_args(annotation) if arg is not type(None))
        return _unwrapped(inner)
    return annotation, ()


def _marked(field: FieldInfo) -> Any:
    """Gives a field's type with the marks that pydantic keeps apart from it."""
    if not field.metadata:
        return field.annotation
    return operator.getitem(Annotated, (field.annotation, *field.metadata))


def _dtype(annotation: Any) -> str | None:
    return next((m.name for m in _unwrapped(annotation)[1] if isinstance(m, Dtype)), None)


def _cast(annotation: Any, value: Any) -> Any:
    """Gives what lies inside arrays, objects and maps the exact NumPy type of the signature."""
    kind, marks = _unwrapped(annotation)
    dtype = next((m.name for m in marks if isinstance(m, Dtype)), None)
    if value is None or dtype in ("str", "bytes"):
        return value
    if dtype is not None:
        return np.datetime64(value, "ns") if dtype[0] == "d" else np.dtype(dtype).type(value)
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        return {
            fields[name].alias or name: _cast(_marked(fields[name]), getattr(value, name))
            for name in fields
            if name in value.model_fields_set
        }
    if get_origin(kind) is list:
        return [_cast(get_args(kind)[0], item) for item in value]
    if get_origin(kind) is dict:
        return {key: _cast(get_args(kind)[1], item) for key, item in value.items()}
    return value


# --- JSON to NumPy -------------------------------------------------------------------------------


def tensor(dtype: str, *shape: int) -> Any:
    """Gives the type of nested lists that become one NumPy array.

    Args:
        dtype: NumPy's name of the element type.
        shape: The length of each dimension; -1 is any length.
    """
    scalar = {"b": "boolean", "i": "integer", "u": "integer", "f": "number"}
    kind = {"bool": "b", "uint": "u", "int": "i", "float": "f"}.get(dtype.rstrip("0123456789"), "")
    schema: dict[str, Any] = {"type": scalar[kind]} if kind else {}
    for length in reversed(shape):
        bounds = {} if length < 0 else {"minItems": length, "maxItems": length}
        schema = {"type": "array", "items": schema, **bounds}
    schema["description"] = f"{dtype} tensor of shape ({', '.join(map(str, shape))}); -1 is free"
    return Annotated[Any, AfterValidator(partial(_array, dtype, shape)), WithJsonSchema(schema)]


def _array(dtype: str, shape: tuple[int, ...], value: Any) -> np.ndarray:
    wanted = np.dtype(dtype)
    try:
        given = _plain_array_of(value)
    except ValueError as error:
        raise ValueError(f"{error}; expected {shape}") from None
    if len(given.shape) != len(shape) or any(
        want not in (-1, have) for want, have in zip(shape, given.shape, strict=True)
    ):
        raise ValueError(f"expected shape {shape}, got {given.shape}")
    if wanted.kind == "M":
        moments = [_moment(index, text) for index, text in np.ndenumerate(given)]
        return np.array(moments, dtype="datetime64[ns]").reshape(given.shape).astype(wanted)
    _check_elements(value, given, wanted)
    return _converted(given, wanted)


_PYTHON_KINDS: dict[str, tuple[type, ...]] = {
    "b": (bool,),
    "i": (int,),
    "u": (int,),
    "f": (int, float, type(None)),
    "U": (str,),
}
_NAMES: dict[type, str] = {
    bool: "boolean",
    int: "integer",
    float: "float",
    str: "text",
    dict: "object",
    list: "list",
    type(None): "null",
}
_NUMPY_KINDS = {"b": "b", "i": "iu", "u": "iu", "f": "iuf", "U": "U"}


def _check_elements(value: Any, given: np.ndarray, wanted: np.dtype) -> None:
    """Refuses what NumPy would convert silently: text to numbers, 1.5 to 1, 300 to 44."""
    kind = wanted.kind
    if kind not in _PYTHON_KINDS or given.size == 0:
        return
    if given.dtype.kind not in _NUMPY_KINDS[kind]:
        for index, item in np.ndenumerate(np.array(value, dtype=object)):
            wrong_bool = isinstance(item, bool) and kind != "b"
            if wrong_bool or not isinstance(item, _PYTHON_KINDS[kind]):
                raise ValueError(f"{_at(index)} is of type {_NAMES[type(item)]}, not {wanted.name}")
    if kind in "iu":
        limits = np.iinfo(wanted)
        if int(given.min()) < limits.min or int(given.max()) > limits.max:
            raise ValueError(f"a number lies outside {limits.min} to {limits.max} ({wanted.name})")


def _converted(given: np.ndarray, wanted: np.dtype) -> np.ndarray:
    if wanted.kind != "f":
        return given.astype(wanted)
    try:
        doubles = given.astype("float64")
    except OverflowError:
        raise ValueError("a number does not fit into float64") from None
    with np.errstate(over="ignore"):
        array = doubles.astype(wanted)
    if (np.isinf(array) & np.isfinite(doubles)).any():
        raise ValueError(f"a number does not fit into {wanted.name}")
    return array


def _moment(index: tuple[int, ...], text: Any) -> Any:
    try:
        return np.datetime64(_DATETIME.validate_json(json.dumps(text), strict=True), "ns")
    except (ValidationError, TypeError):  # TypeError: NumPy's own numbers are no JSON
        raise ValueError(f"{_at(index)} is no datetime as text") from None


_DATETIME: TypeAdapter[datetime] = TypeAdapter(Datetime)
LARGEST_TEXTS = 256 * 2**20
LARGEST_MIXTURE = 500_000
STEP = 100_000


def _plain_array_of(value: Any) -> np.ndarray:
    """Gives nested lists as an array.

    Raises:
        ValueError: They have no one shape, or texts in them: NumPy gives each the longest's room.
    """
    number = texts = longest = 0
    left = [value]
    while left:
        item = left.pop()
        if isinstance(item, list):
            left += item
            continue
        number += 1
        if isinstance(item, str):
            texts += 1
            longest = max(longest, len(item))
    if 4 * number * longest > LARGEST_TEXTS:
        raise ValueError("the texts are too many for the length of the longest")
    mixed = 0 < texts < number
    if mixed and number > LARGEST_MIXTURE:
        raise ValueError("too many texts and other values in one array")
    try:
        return np.array(value) if mixed else _joined(value, number)
    except ValueError:
        raise ValueError("the nested lists do not have one shape") from None


def _joined(value: Any, number: int) -> np.ndarray:
    """Gives what `np.array(value)` gives, in steps: while NumPy reads lists, nothing else runs."""
    if number <= STEP or not isinstance(value, list):
        return np.array(value)
    size = STEP * len(value) // number
    if size > 1:
        parts = [np.array(value[at : at + size]) for at in range(0, len(value), size)]
    else:
        parts = [_joined(item, number // len(value))[np.newaxis] for item in value]
    if len({part.dtype.kind for part in parts}) == 1:
        return np.concatenate(parts)
    return np.array(value)  # of several kinds of numbers NumPy makes something else all at once


def _at(index: tuple[int, ...]) -> str:
    return "element " + "".join(f"[{n}]" for n in index) if index else "the value"


# --- the model's answer to JSON ------------------------------------------------------------------


def answer(model: Any, inputs: Any, params: BaseModel | None = None) -> Any:
    """Asks an MLflow model and gives its answer as plain JSON; see `plain`.

    Raises:
        bentoml.exceptions.InvalidArgument: MLflow refuses the input (HTTP status 400).
    """
    given = None if params is None else params.model_dump(by_alias=True)
    try:
        return plain(model.predict(inputs, params=given))
    except MlflowException as error:
        if error.error_code != "INVALID_PARAMETER_VALUE":
            raise
        reason = _MLFLOW_REASONS.search(str(error))
        told = f": {reason[0]}" if reason else ""
        raise InvalidArgument(f"MLflow finds that the input does not fit{told}") from error
    except ValidationError as error:
        raise RuntimeError("a check inside of the model failed") from error


# What MLflow says without quoting values.
_MLFLOW_REASONS = re.compile(
    r"(?:Model is missing|Missing required|Incompatible input types|Shape of input|dtype of input)"
    r"[^\n]{,200}"
)


def plain(value: Any) -> Any:
    """Gives an answer as plain JSON.

    A DataFrame becomes a list of records, a Series or an array a list, a datetime ISO 8601, bytes
    base64. JSON knows neither NaN nor infinity: they and all missing values become null.

    Raises:
        TypeError: The answer holds something that has no JSON form.
    """
    if isinstance(value, pd.DataFrame):
        columns = [plain(value.iloc[:, n]) for n in range(value.shape[1])]
        names = [str(name) for name in value.columns]
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    if isinstance(value, (pd.Series, pd.Index)):
        return plain(value.to_numpy())
    if isinstance(value, np.ndarray):
        return _plain_array(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if isinstance(value, BaseModel):
        return plain(value.model_dump())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain(dataclasses.asdict(value))
    if hasattr(value, "toarray"):  # a SciPy sparse matrix
        return plain(value.toarray())
    return _plain_scalar(value)


def _plain_array(array: np.ndarray) -> Any:
    if array.dtype.kind in "biuU" or (array.dtype.kind == "f" and np.isfinite(array).all()):
        return array.tolist()
    if array.dtype.kind == "M":
        array = array.astype("datetime64[us]")  # NumPy gives bare integers for nanoseconds
    return plain(array.tolist())


def _plain_scalar(value: Any) -> Any:
    if value is None or value is pd.NA or value is pd.NaT or isinstance(value, (bool, str)):
        return None if value is pd.NA or value is pd.NaT else value
    if isinstance(value, (np.datetime64, np.timedelta64)):
        return None if np.isnat(value) else plain(pd.Timestamp(value).to_pydatetime())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, int):
        return int(value)
    if isinstance(value, (float, Decimal)):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode("ascii")
    raise TypeError(f"the model answers with {type(value).__name__}, which has no JSON form")
