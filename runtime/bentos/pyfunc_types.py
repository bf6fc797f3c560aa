"""MLflow's column types as pydantic types: what JSON has to be, and what comes of it.

This file lies beside `service.py` in every bento that kfp-bento generates; `pyfunc_json` shows what
is in it to `service.py`.

- `Boolean` to `Datetime` are the types of one value.
- `Nullable[…]` is such a type where null is a missing value, and NaN, which is no JSON, too.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, NamedTuple

import bentoml
from pydantic_core import core_schema

with bentoml.importing():  # the image has it; the machine that builds the bento may not
    import numpy as np

LARGEST_FLOAT32 = (2 - 2**-23) * 2.0**127


class Dtype(NamedTuple):
    """Marks a type with the NumPy dtype that MLflow's signature asks for, and says what JSON fits.

    It asks nothing of other marks: inside of lists BentoML applies all marks of a type twice.
    """

    name: str

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        """Gives what pydantic checks."""
        return _SCHEMAS[self.name]()

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> Any:
        """Gives what the API page says."""
        return dict(_SHOWN.get(self.name) or handler(schema))


class Label(NamedTuple):
    """Marks a field whose column label is not a string, such as the number 0."""

    value: Any


class Missing:
    """Lets a type take null and NaN as well; what fits already is checked by pydantic alone."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        """Gives the schema of the type and what is missing."""
        inner = handler(source)
        kind = {"float": "finite_number", "str": "string_type"}.get(inner["type"])
        if kind is None:
            missing = core_schema.nullable_schema(inner)
            return core_schema.no_info_before_validator_function(_none_for_nan, missing)
        told: dict[str, Any] = {"custom_error_type": kind}
        if "le" in inner:
            text = "Input should be a finite number that fits into 32 bits"
            told = {"custom_error_type": "finite_float32", "custom_error_message": text}
        nan = core_schema.no_info_plain_validator_function(_only_nan)
        either: Any = core_schema.union_schema([inner, nan], mode="left_to_right", **told)
        return core_schema.nullable_schema(either)

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> Any:
        """Gives what the API page says: the type, or null."""
        while schema["type"] in ("nullable", "function-before"):
            schema = schema["schema"]
        inner = handler(schema["choices"][0] if schema["type"] == "union" else schema)
        return {"anyOf": [inner, {"type": "null"}]}


def _only_nan(value: Any) -> Any:
    if isinstance(value, float) and math.isnan(value):
        return value
    raise ValueError("not missing")


def _none_for_nan(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


class Nullable:
    """`Nullable[Double]` is a `Double` that may be missing."""

    def __class_getitem__(cls, kind: Any) -> Any:
        """Gives the type."""
        return Annotated[kind, Missing()]


def base64_bytes(value: Any) -> Any:
    """Gives what base64 text stands for.

    Raises:
        ValueError: It is something else.
    """
    if not isinstance(value, str):
        raise ValueError("binary data has to be a base64 string")
    return base64.b64decode("".join(value.split()), validate=True)  # MLflow breaks its lines


_MOMENT = re.compile(
    r"(?P<day>[0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:[Tt ](?P<clock>[0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]+)?)?)"
    r"(?P<offset>[Zz]|[+-][0-9]{2}(?::?[0-9]{2})?)?)?"
)
_LONGEST_CLOCK = len("00:00:00.123456789")


def moment(value: Any) -> Any:
    """Gives a datetime to the nanosecond: of a day alone its begin, with an offset in UTC.

    MLflow writes a missing one as the text "NaT".

    Raises:
        ValueError: It is no text in ISO 8601, or nanoseconds do not reach so far.
    """
    if value == "NaT":
        return np.datetime64("NaT", "ns")
    found = _MOMENT.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError("expected a datetime as text in ISO 8601, such as 2024-05-06T07:08:09")
    day, clock, offset = found.group("day", "clock", "offset")
    if not "1678" <= day[:4] <= "2261":
        raise ValueError("the year has to lie between 1678 and 2261")
    try:
        utc = np.datetime64(f"{day}T{(clock or '00:00')[:_LONGEST_CLOCK]}", "ns")
    except ValueError:
        raise ValueError("there is no such day or time") from None
    return utc if offset in (None, "Z", "z") else utc - _ahead(offset)


def _ahead(offset: str) -> Any:
    hours, minutes = int(offset[1:3]), int(offset[3:].lstrip(":") or 0)
    if hours > 23 or minutes > 59:
        raise ValueError("there is no such offset from UTC")
    return np.timedelta64((60 * hours + minutes) * (-1 if offset[0] == "-" else 1), "m")


_SCHEMAS: dict[str, Callable[[], Any]] = {
    "bool": core_schema.bool_schema,
    "int32": partial(core_schema.int_schema, ge=-(2**31), le=2**31 - 1),
    "int64": partial(core_schema.int_schema, ge=-(2**63), le=2**63 - 1),
    "float32": partial(
        core_schema.float_schema, ge=-LARGEST_FLOAT32, le=LARGEST_FLOAT32, allow_inf_nan=False
    ),
    "float64": partial(core_schema.float_schema, allow_inf_nan=False),
    "str": core_schema.str_schema,
    "bytes": partial(core_schema.no_info_plain_validator_function, base64_bytes),
    "datetime64[ns]": partial(core_schema.no_info_plain_validator_function, moment),
}
_SHOWN = {
    "float32": {"type": "number"},
    "bytes": {"type": "string", "contentEncoding": "base64"},
    "datetime64[ns]": {"type": "string", "format": "date-time"},
}

Boolean = Annotated[bool, Dtype("bool")]
Integer = Annotated[int, Dtype("int32")]
Long = Annotated[int, Dtype("int64")]
Float = Annotated[float, Dtype("float32")]
Double = Annotated[float, Dtype("float64")]
String = Annotated[str, Dtype("str")]
Binary = Annotated[bytes, Dtype("bytes")]
Datetime = Annotated[Any, Dtype("datetime64[ns]")]
