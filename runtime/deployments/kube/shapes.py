"""Shapes of JSON: what an object may hold, and every place where a value differs from that.

Two readers: manifests are checked by them before they are sent, and what a user hands over is
brought into their form first, since a field that nothing knows would vanish without a word.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from kfp_bento.runtime.errors import InvalidInput


@dataclass(frozen=True)
class Value:
    """A single value: its JSON types and, where Kubernetes cares, what it may say."""

    type: type | tuple[type, ...]
    problem: Callable[[str], str] | None = None


@dataclass(frozen=True)
class Pairs:
    """A mapping with free keys and string values."""

    key_problem: Callable[[str], str] | None = None
    value_problem: Callable[[str], str] | None = None


@dataclass(frozen=True)
class Items:
    """A list of equal things: any number of them, exactly so many, or at least so many."""

    item: Shape
    count: int | None = None
    least: int = 0


@dataclass(frozen=True)
class Known:
    """An object of somebody else's: the fields that we read; a null list or object is none."""

    fields: Mapping[str, Shape]
    required: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True)
class Exactly:
    """One JSON value and no other."""

    value: Any


@dataclass(frozen=True)
class Also:
    """A shape, and what the check of an option says beyond it by raising `InvalidInput`."""

    shape: Shape
    check: Callable[[str, Any], object]


@dataclass(frozen=True)
class Fields:
    """An object with exactly these fields, some of them required."""

    fields: Mapping[str, Shape]
    required: frozenset[str] = field(default_factory=frozenset)

    def with_fields(self, more: Mapping[str, Shape]) -> Fields:
        """Give the same object with more fields."""
        return Fields({**self.fields, **more}, self.required)


@dataclass(frozen=True)
class Free:
    """Any object: its schema is left to the API server."""


Shape = Value | Pairs | Items | Fields | Known | Free | Exactly | Also


def shape_problems(value: Any, shape: Shape, path: str) -> Iterator[str]:
    """Give one sentence for each place where a value differs from its shape."""
    if isinstance(shape, Value):
        yield from _value_problems(value, shape, path)
    elif isinstance(shape, Exactly):
        # As text: True equals 1 in Python, and 1.0 too.
        if json.dumps(value, sort_keys=True) != json.dumps(shape.value, sort_keys=True):
            yield f"{path} is not {json.dumps(shape.value, sort_keys=True)}"
    elif isinstance(shape, Also):
        yield from _checked_problems(value, shape, path)
    elif isinstance(shape, Items):
        if not isinstance(value, list):
            yield f"{path} is {type(value).__name__}, not a list"
            return
        if shape.count is not None and len(value) != shape.count:
            yield f"{path} has {len(value)} entries, not {shape.count}"
        if len(value) < shape.least:
            yield f"{path} has {len(value)} entries, less than {shape.least}"
        for index, item in enumerate(value):
            yield from shape_problems(item, shape.item, f"{path}[{index}]")
    elif not isinstance(value, Mapping):
        yield f"{path or 'the manifest'} is {type(value).__name__}, not a mapping"
    elif isinstance(shape, Free):
        yield from _foreign_values(value, path)
    elif isinstance(shape, Pairs):
        yield from _pair_problems(value, shape, path)
    elif isinstance(shape, Known):
        for key, inner in shape.fields.items():
            absent = key not in value or (value[key] is None and not isinstance(inner, Value))
            if not absent:
                yield from shape_problems(value[key], inner, f"{path}.{key}")
            elif key in shape.required:
                yield f"{path}.{key} is missing"
    else:
        yield from _field_problems(value, shape, path)


def settled(field_name: str, given: Any, shape: Shape, hint: str = "") -> Any:
    """Give what a user wrote as the JSON that a manifest holds, or refuse it by its field.

    Integral floats (all that KFP knows of integers) become integers.

    Raises:
        InvalidInput: The value differs from its shape; the first place is named.
    """
    value = plain_json(field_name, given)
    for problem in shape_problems(value, shape, field_name):
        raise InvalidInput(f"{problem}.", hint=hint or _known(shape))
    return value


def plain_json(field_name: str, given: Any) -> Any:
    """Give nested JSON with integral floats as integers and nothing but JSON in it.

    Raises:
        InvalidInput: A value that JSON lacks, or a null, which server-side apply would take for
            "remove this".
    """
    if isinstance(given, Mapping):
        return {
            _text_key(field_name, key): plain_json(f"{field_name}.{key}", value)
            for key, value in given.items()
        }
    if isinstance(given, list | tuple):
        return [plain_json(f"{field_name}[{index}]", item) for index, item in enumerate(given)]
    if isinstance(given, float):
        if given.is_integer():
            return int(given)
        if math.isfinite(given):
            return given
    if isinstance(given, str | int) or given is True or given is False:
        return given
    raise InvalidInput(
        f"{field_name}: {given!r} is no JSON value that a manifest can hold.",
        hint="Leave the key out, or write text, a number, true or false.",
    )


def _text_key(field_name: str, key: Any) -> str:
    if isinstance(key, str):
        return key
    raise InvalidInput(f"{field_name}: the key {key!r} is no string.", hint="Quote the key.")


def _known(shape: Shape) -> str:
    inner = shape.item if isinstance(shape, Items) else shape
    if isinstance(inner, Fields):
        return f"Known: {', '.join(sorted(inner.fields))}."
    return "Write strings, in the form that Kubernetes gives them."


def _checked_problems(value: Any, shape: Also, path: str) -> Iterator[str]:
    problems = list(shape_problems(value, shape.shape, path))
    if not problems:
        try:
            shape.check(path, value)
        except InvalidInput as refused:
            problems = [refused.message.removesuffix(".")]
    yield from problems


def _field_problems(value: Mapping[Any, Any], shape: Fields, path: str) -> Iterator[str]:
    for key in sorted(shape.required - value.keys()):
        yield f"{path}.{key} is missing"
    for key, item in value.items():
        if key in shape.fields:
            yield from shape_problems(item, shape.fields[key], f"{path}.{key}")
        else:
            yield f"{path}.{key} is no field that every version has"


def _value_problems(value: Any, shape: Value, path: str) -> Iterator[str]:
    wanted = shape.type if isinstance(shape.type, tuple) else (shape.type,)
    # bool is an int in Python and is none in JSON.
    if type(value) not in wanted:
        names = " or ".join(one.__name__ for one in wanted)
        yield f"{path} is {type(value).__name__} {value!r}, not {names}"
    elif shape.problem and (problem := shape.problem(str(value))):
        yield f"{path} {value!r} {problem}"


def _pair_problems(value: Mapping[Any, Any], shape: Pairs, path: str) -> Iterator[str]:
    for key, item in value.items():
        place = f"{path}[{key}]"
        if not isinstance(key, str) or not isinstance(item, str):
            yield f"{place} is {type(item).__name__} {item!r}, not str"
            continue
        if shape.key_problem and (problem := shape.key_problem(key)):
            yield f"{place} {problem}"
        if shape.value_problem and (problem := shape.value_problem(item)):
            yield f"{place} {item!r} {problem}"


def _foreign_values(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                yield f"{path} has the key {key!r}, which is no string"
            yield from _foreign_values(item, f"{path}.{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _foreign_values(item, f"{path}[{index}]")
    elif not isinstance(value, str | int):
        yield f"{path} is {type(value).__name__} {value!r}, which no manifest holds"
