"""What a target's options mean, out of the docstrings of their dataclasses."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields
from types import NoneType, UnionType
from typing import Any, NamedTuple, Union, get_args, get_origin, get_type_hints

import docstring_parser

_WORDS: Mapping[Any, str] = {
    str: "text",
    bool: "true or false",
    int: "number",
    float: "number",
    Mapping: "mapping",
    Sequence: "list",
}


class OptionDoc(NamedTuple):
    """One option.

    Attributes:
        name: Its name.
        type: text, number, true or false, mapping, list, or several of them.
        default: As it would be written; empty where nothing is the default.
        meaning: Its entry under `Attributes:`.
    """

    name: str
    type: str
    default: str
    meaning: str


def option_docs(options_type: type) -> list[OptionDoc]:
    """Give every option of a dataclass, inherited ones first, as its fields are ordered.

    A class says what an inherited option means if its own docstring has an entry for it.
    """
    meanings: dict[str, str] = {}
    for one in reversed(options_type.__mro__):
        meanings |= _attributes(one)
    hints = get_type_hints(options_type)
    return [
        OptionDoc(one.name, _type(hints[one.name]), _default(one), meanings.get(one.name, ""))
        for one in fields(options_type)
    ]


def _attributes(one: type) -> dict[str, str]:
    told = docstring_parser.parse(one.__dict__.get("__doc__") or "").params
    return {entry.arg_name: " ".join((entry.description or "").split()) for entry in told}


def _type(hint: Any) -> str:
    kind = get_origin(hint) or hint
    if kind in (Union, UnionType):
        parts = (_type(part) for part in get_args(hint) if part is not NoneType)
        return " or ".join(dict.fromkeys(parts))
    return _WORDS.get(kind, str(getattr(kind, "__name__", kind)))


def _default(one: Field[Any]) -> str:
    value = one.default_factory() if one.default_factory is not MISSING else one.default
    if value in ("", None, (), [], {}, MISSING):
        return ""
    return value if isinstance(value, str) else json.dumps(value)
