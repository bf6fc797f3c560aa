"""JSON in and out of an MLflow model: typed rows, checked tensors, plain answers.

This file lies beside `service.py` in every bento that kfp-bento generates. It needs nothing of
kfp-bento itself: only BentoML, pydantic, MLflow, NumPy and pandas, which the service has anyway.

- The names `Boolean` to `Datetime` are MLflow's column types, as pydantic types.
- `Row` and `Body` are the bases of records and request bodies: they refuse keys they do not know.
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
    ConfigDict,
    Field,
    TypeAdapter,
    WithJsonSchema,
)
from pydantic.fields import FieldInfo

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


class Row(BaseModel):
    """A JSON object with known keys and exact types: "5" is no number, 1.5 no integer."""

    model_config = ConfigDict(extra="forbid", strict=True, protected_namespaces=())


class Body(bentoml.IODescriptor):  # type: ignore[misc]
    """A request body with known keys."""

    model_config = ConfigDict(extra="forbid", strict=True)


def example(name: str = "example.json") -> list[Any]:
    """Gives the model's own input example for the API page, as a list of one request's inputs."""
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
    """
    if isinstance(inputs, list) and inputs and all(isinstance(row, dict) for row in inputs):
        return pd.DataFrame(inputs)
    try:
        if isinstance(inputs, dict):
            return {name: np.array(values) for name, values in inputs.items()}
        return np.array(inputs)
    except ValueError as error:
        raise InvalidArgument(f"inputs: the nested lists have no one shape ({error})") from error


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
        given = np.array(value)
    except ValueError:
        raise ValueError(f"the nested lists do not have one shape; expected {shape}") from None
    if len(given.shape) != len(shape) or any(
        want not in (-1, have) for want, have in zip(shape, given.shape, strict=True)
    ):
        raise ValueError(f"expected shape {shape}, got {given.shape}")
    if wanted.kind == "M":
        moments = [np.datetime64(_moment(text), "ns") for text in given.ravel()]
        return np.array(moments, dtype="datetime64[ns]").reshape(given.shape).astype(wanted)
    _check_elements(value, given, wanted)
    return _converted(value, wanted)


_PYTHON_KINDS: dict[str, tuple[type, ...]] = {
    "b": (bool,),
    "i": (int,),
    "u": (int,),
    "f": (int, float, type(None)),
    "U": (str,),
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
                raise ValueError(f"{_at(index)} is {json.dumps(item)}, not {wanted.name}")
    if kind in "iu":
        limits = np.iinfo(wanted)
        if int(given.min()) < limits.min or int(given.max()) > limits.max:
            raise ValueError(f"a number lies outside {limits.min} to {limits.max} ({wanted.name})")


def _converted(value: Any, wanted: np.dtype) -> np.ndarray:
    if wanted.kind != "f":
        return np.array(value, dtype=wanted)
    try:
        doubles = np.array(value, dtype="float64")
    except OverflowError:
        raise ValueError("a number does not fit into float64") from None
    with np.errstate(over="ignore"):
        array = doubles.astype(wanted)
    if (np.isinf(array) & np.isfinite(doubles)).any():
        raise ValueError(f"a number does not fit into {wanted.name}")
    return array


def _moment(text: Any) -> datetime:
    moment: datetime = TypeAdapter(Datetime).validate_json(json.dumps(text), strict=True)
    return moment


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
        raise InvalidArgument(str(error).rpartition("Error: ")[2].strip()) from error


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
