"""Small JSON and YAML files that somebody else wrote, read without trusting them.

What Python's parsers would let pass, other programs read differently or choke on: the same key
twice, ``NaN``, lone surrogates, aliases that multiply. All of that is a ValueError here.
"""

from __future__ import annotations

import json
import os
import stat
import tomllib
from pathlib import Path
from typing import Any, BinaryIO

import yaml

# Registries take manifests of up to 4 MiB (distribution specification 1.1).
JSON_LIMIT = 4 << 20
# The YAML parser takes seconds for a mebibyte.
YAML_LIMIT = 1 << 20
_NODES = 1_000_000


def read_small_file(file: Path, limit: int) -> bytes:
    """Reads a regular file of at most ``limit`` bytes; never waits for a pipe.

    Raises:
        OSError: It cannot be opened or read.
        ValueError: It is larger, or no regular file.
    """
    with open_plain_file(file) as opened:
        content = opened.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"it is larger than {limit} bytes")
    return content


def open_plain_file(file: Path) -> BinaryIO:
    """Opens a regular file for reading; never waits for a pipe.

    Raises:
        OSError: It cannot be opened.
        ValueError: It is no regular file.
    """
    handle = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise ValueError("it is no regular file")
    return os.fdopen(handle, "rb")


def parse_json(content: bytes) -> dict[str, Any]:
    """Parses a JSON object.

    Raises:
        ValueError: As `parse_json_value` says, or it is no object.
    """
    parsed = parse_json_value(content)
    if not isinstance(parsed, dict):
        raise ValueError("it is no JSON object")
    return parsed


def parse_json_value(content: bytes, *, finite: bool = True) -> Any:
    """Parses any JSON value.

    Args:
        content: The document.
        finite: Whether every number must be one that JSON has; otherwise NaN and infinite ones
            may be there as Python writes them.

    Raises:
        ValueError: It is no UTF-8, no JSON, nested too deeply, or holds a key twice or a value
            that JSON does not have.
    """
    try:
        parsed = json.loads(content.decode(), object_pairs_hook=_unique)
        # Finds NaN, infinite numbers and lone surrogates, which the parser takes.
        json.dumps(parsed, allow_nan=not finite, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return parsed


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("it holds a key twice")
    return found


def parse_toml(content: bytes) -> dict[str, Any]:
    """Parses a TOML document.

    Raises:
        ValueError: It is no UTF-8, no TOML, or nested too deeply.
    """
    try:
        return tomllib.loads(content.decode())
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def parse_yaml(content: bytes) -> Any:
    """Parses a YAML document made of plain values.

    Raises:
        ValueError: It is no YAML, asks for Python objects, is nested too deeply, contains itself,
            or becomes huge through aliases or merge keys.
    """
    try:
        parsed = yaml.load(content, Loader=_PlainLoader)  # noqa: S506 - a SafeLoader
        _count(parsed, {})
    except yaml.YAMLError as error:
        # Only the first line: the others quote the file.
        raise ValueError(str(error).partition("\n")[0]) from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except (TypeError, LookupError, AttributeError, OverflowError) as error:
        raise ValueError(f"a value cannot be read ({type(error).__name__})") from None
    return parsed


class _PlainLoader(yaml.SafeLoader):
    """Without merge keys: a few lines of them make a mapping with billions of pairs."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        if any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value):
            raise yaml.YAMLError("it has merge keys (<<), which are not supported")


def _count(value: Any, known: dict[int, int]) -> int:
    """How many values there are when every alias is written out."""
    if not isinstance(value, list | dict | tuple | set):
        return 1
    number = known.get(id(value))
    if number is None:
        known[id(value)] = -1
        inside = [*value, *value.values()] if isinstance(value, dict) else value
        number = known[id(value)] = 1 + sum(_count(item, known) for item in inside)
    if number < 0:
        raise ValueError("it contains itself")
    if number > _NODES:
        raise ValueError("its aliases multiply to a huge document")
    return number
