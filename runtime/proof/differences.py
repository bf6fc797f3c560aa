"""Differences between what was served and what was expected, value by value.

Numbers of a floating type may differ within a tolerance; everything else must be equal, and
so must types, lengths and keys. NaN equals NaN. JSON holds neither NaN nor infinity, so
`null` in an answer stands for both.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Tolerance:
    """How far a floating number may be away: `absolute + relative * |expected|`."""

    relative: float
    absolute: float


@dataclass(frozen=True)
class Difference:
    """One place where served and expected values are compared.

    Attributes:
        path: Keys and indexes that lead to the value.
        served: The value in the answer.
        expected: The value that the model gave.
        reason: Why the two do not match; empty for a float within the tolerance.
        absolute: Distance of two finite numbers.
        relative: The same in relation to the expected value; 0 when that is 0.
    """

    path: tuple[str | int, ...]
    served: Any
    expected: Any
    reason: str = ""
    absolute: float = 0.0
    relative: float = 0.0


def differences(
    served: Any, expected: Any, tolerance: Tolerance, path: tuple[str | int, ...] = ()
) -> Iterator[Difference]:
    """Give every mismatch, and every float that is not exactly the expected one."""
    if isinstance(expected, Mapping):
        yield from _keys(served, expected, tolerance, path)
    elif isinstance(expected, list):
        yield from _items(served, expected, tolerance, path)
    elif isinstance(expected, float):
        yield from _floats(served, expected, tolerance, path)
    elif type(served) is not type(expected):
        reason = f"{_kind(served)} instead of {_kind(expected)}"
        yield Difference(path, served, expected, reason)
    elif served != expected:
        yield Difference(path, served, expected, "other value")


def _keys(
    served: Any, expected: Mapping[str, Any], tolerance: Tolerance, path: tuple[str | int, ...]
) -> Iterator[Difference]:
    if not isinstance(served, Mapping) or set(served) != set(expected):
        reason = "other keys" if isinstance(served, Mapping) else f"{_kind(served)}, not an object"
        yield Difference(path, served, dict(expected), reason)
        return
    for key in expected:
        yield from differences(served[key], expected[key], tolerance, (*path, key))


def _items(
    served: Any, expected: list[Any], tolerance: Tolerance, path: tuple[str | int, ...]
) -> Iterator[Difference]:
    if not isinstance(served, list):
        yield Difference(path, served, expected, f"{_kind(served)} instead of a list")
        return
    if len(served) != len(expected):
        reason = f"{len(served)} values instead of {len(expected)}"
        yield Difference(path, served, expected, reason)
        return
    for index, (one, other) in enumerate(zip(served, expected, strict=True)):
        yield from differences(one, other, tolerance, (*path, index))


def _floats(
    served: Any, expected: float, tolerance: Tolerance, path: tuple[str | int, ...]
) -> Iterator[Difference]:
    if isinstance(served, bool) or not isinstance(served, int | float | None):
        yield Difference(path, served, expected, f"{_kind(served)} instead of a number")
        return
    if not math.isfinite(expected):
        same = (
            served is None
            or served == expected
            or (math.isnan(expected) and isinstance(served, float) and math.isnan(served))
        )
        if not same:
            yield Difference(path, served, expected, "other value")
        return
    number = _number(served)
    if not math.isfinite(number):
        yield Difference(path, served, expected, "no finite number")
        return
    absolute = min(abs(number - expected), sys.float_info.max)
    if absolute == 0:
        return
    relative = min(absolute / abs(expected), sys.float_info.max) if expected else 0.0
    allowed = tolerance.absolute + tolerance.relative * abs(expected)
    reason = "" if absolute <= allowed else f"{absolute:.3g} away, {allowed:.3g} allowed"
    yield Difference(path, served, expected, reason, absolute, relative)


def _number(served: int | float | None) -> float:
    try:
        return math.nan if served is None else float(served)
    except OverflowError:  # JSON integers have any length
        return math.inf


def _kind(value: Any) -> str:
    names = {
        dict: "an object",
        list: "a list",
        str: "a string",
        bool: "a boolean",
        int: "an integer",
        float: "a float",
    }
    return "null" if value is None else names.get(type(value), type(value).__name__)
