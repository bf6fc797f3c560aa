"""JSON to NumPy: nested lists as arrays of a given dtype and shape, without silent conversions.

This file lies beside `service.py` in every bento that kfp-bento generates.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import bentoml
from pydantic import AfterValidator, WithJsonSchema
from pyfunc_types import base64_bytes, moment  # type: ignore[import-not-found]

with bentoml.importing():  # the image has it; the machine that builds the bento may not
    import numpy as np

LARGEST_TEXTS = 256 * 2**20
LARGEST_MIXTURE = 500_000
STEP = 100_000


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
    if wanted.kind == "O":
        return _objects(shape, value)
    try:
        given = _plain_array_of(value)
    except ValueError as error:
        raise ValueError(f"{error}; expected {shape}") from None
    _check_shape(given.shape, shape)
    if wanted.kind in _READ:
        return _read_each(np.array(value, dtype=object), wanted)
    _check_elements(value, given, wanted)
    try:
        return _converted(given, wanted)
    except (TypeError, OverflowError):  # of dtypes that JSON has no values for
        raise ValueError(f"a value does not fit into {wanted.name}") from None


def array_as(dtype: str, shape: tuple[int, ...], given: np.ndarray) -> np.ndarray:
    """Gives an array of numbers or booleans as one of a dtype and a shape.

    It takes what nested lists of the same values would be taken for.

    Raises:
        ValueError: It does not fit, or that is not clear at once.
    """
    wanted = np.dtype(dtype)
    _check_shape(given.shape, shape)
    if wanted.kind not in "biuf" or given.dtype.kind not in _NUMPY_KINDS[wanted.kind]:
        raise ValueError(f"{given.dtype.name} is not {wanted.name}")
    _check_elements(given, given, wanted)
    return _converted(given, wanted)


def _objects(shape: tuple[int, ...], value: Any) -> np.ndarray:
    """Gives values as they are, and where there is one free dimension of any shape, as MLflow."""
    array = np.array(value, dtype=object)
    if shape != (-1,):
        _check_shape(array.shape, shape)
    return array


def _check_shape(given: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    if len(given) != len(wanted) or any(
        want not in (-1, have) for want, have in zip(wanted, given, strict=True)
    ):
        raise ValueError(f"expected shape {wanted}, got {given}")


def _timedelta(value: Any) -> Any:
    """Gives a number of the dtype's own units, or "NaT" for a missing one."""
    if value in (None, "NaT"):
        return "NaT"
    if type(value) is not int or not -(2**63) < value < 2**63:
        raise ValueError("expected a whole number")
    return value


def _moment_or_missing(value: Any) -> Any:
    return np.datetime64("NaT", "ns") if value is None else moment(value)


_READ: dict[str, tuple[Any, str]] = {
    "M": (_moment_or_missing, "datetime64[ns]"),
    "m": (_timedelta, ""),
    "S": (base64_bytes, ""),
}
"""How one element becomes a value, and the dtype that it has then."""


def _read_each(elements: np.ndarray, wanted: np.dtype) -> np.ndarray:
    read, first = _READ[wanted.kind]
    found = []
    for index, item in np.ndenumerate(elements):
        try:
            found.append(read(item))
        except ValueError as error:
            raise ValueError(f"{_at(index)}: {error}") from None
    return np.array(found, dtype=first or wanted).reshape(elements.shape).astype(wanted)


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
    mixed = kind == "U" and set(map(type, np.array(value, dtype=object).flat)) != {str}
    if mixed or given.dtype.kind not in _NUMPY_KINDS[kind]:
        for index, item in np.ndenumerate(np.array(value, dtype=object)):
            wrong_bool = isinstance(item, bool) and kind != "b"
            if wrong_bool or not isinstance(item, _PYTHON_KINDS[kind]):
                raise ValueError(f"{_at(index)} is of type {_NAMES[type(item)]}, not {wanted.name}")
    if kind in "iu":
        limits = np.iinfo(wanted)
        if int(given.min()) < limits.min or int(given.max()) > limits.max:
            raise ValueError(f"a number lies outside {limits.min} to {limits.max} ({wanted.name})")


def _converted(given: np.ndarray, wanted: np.dtype) -> np.ndarray:
    if given.size == 0:
        return np.zeros(given.shape, dtype=wanted)
    if wanted.kind != "f":
        return given.astype(wanted)
    try:
        doubles = given.astype("float64")
    except OverflowError:
        raise ValueError("a number does not fit into float64") from None
    with np.errstate(over="ignore"):
        array = doubles.astype(wanted)
    endless = np.isinf(array)
    if endless.any():
        place = tuple(int(n) for n in np.argwhere(endless)[0])
        raise ValueError(f"{_at(place)} is no finite number of {wanted.name}")
    return array


def free_array(value: Any) -> np.ndarray:
    """Gives nested lists as an array; among numbers null is NaN, for which JSON has no number.

    Raises:
        ValueError: They have no one shape, or texts in them: NumPy gives each the longest's room.
    """
    array = _plain_array_of(value)
    if array.dtype == object:
        kinds = set(map(type, array.flat))
        if type(None) in kinds and kinds & {int, float} and kinds <= {int, float, type(None)}:
            return _converted_or_kept(array)
    return array


def _converted_or_kept(array: np.ndarray) -> np.ndarray:
    try:
        return array.astype("float64")
    except OverflowError:
        return array


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
