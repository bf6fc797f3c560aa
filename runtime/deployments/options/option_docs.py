"""What a target's options mean, out of the docstrings of their models."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import docstring_parser
from pydantic import BaseModel

_WORDS: Mapping[str, str] = {
    "string": "text",
    "boolean": "true or false",
    "integer": "number",
    "number": "number",
    "object": "mapping",
    "array": "list",
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


def option_docs(options_type: type[BaseModel]) -> list[OptionDoc]:
    """Give every option of a model, inherited ones first, as its fields are ordered.

    A class says what an inherited option means if its own docstring has an entry for it.
    """
    meanings: dict[str, str] = {}
    for one in reversed(options_type.__mro__):
        meanings.update(_attributes(one))
    schema = options_type.model_json_schema()
    return [
        OptionDoc(name, _type(field, schema), _default(field), meanings.get(name, ""))
        for name, field in schema["properties"].items()
    ]


def _attributes(one: type) -> Iterable[tuple[str, str]]:
    told = docstring_parser.parse(one.__dict__.get("__doc__") or "").params
    return [(entry.arg_name, " ".join((entry.description or "").split())) for entry in told]


def _type(field: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    return " or ".join(dict.fromkeys(_words(field, schema)))


def _words(field: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[str]:
    for part in field.get("anyOf", [field]):
        defined = schema["$defs"][part["$ref"].rpartition("/")[2]] if "$ref" in part else part
        if defined["type"] != "null":
            yield _WORDS[defined["type"]]


def _default(field: Mapping[str, Any]) -> str:
    value = field.get("default")
    if isinstance(value, str) or value in (None, [], {}) or isinstance(value, dict):
        return value if isinstance(value, str) else ""
    return json.dumps(value)
