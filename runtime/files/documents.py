"""Small JSON and YAML files that somebody else wrote, read without trusting them.

What Python's parsers would let pass, other programs read differently or choke on: the same key
twice, `NaN`, lone surrogates, numbers without end, nesting without end, aliases that multiply.
All of that is a ValueError here.
"""

from __future__ import annotations

import json
import os
import stat
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from kfp_bento.runtime.errors import KfpBentoError

# Registries take manifests of up to 4 MiB (distribution specification 1.1).
JSON_LIMIT = 4 << 20
# Without libyaml the parser takes seconds for a mebibyte.
YAML_LIMIT = 1 << 20
# Whoever walks through a document needs a few of Python's 1,000 frames for each level.
DEEPEST = 128
_NODES = 1_000_000
_EVENTS = 400_000
_LONGEST_NUMBER = 400
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_small_file(file: Path, limit: int) -> bytes:
    """Read a regular file of at most `limit` bytes; never waits for a pipe.

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
    """Open a regular file for reading; never waits for a pipe.

    Raises:
        OSError: It cannot be opened.
        ValueError: It is no regular file.
    """
    handle = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise ValueError("it is no regular file")
    return os.fdopen(handle, "rb")


@contextmanager
def reading(problem: str, error: type[KfpBentoError], *, hint: str) -> Iterator[None]:
    """Turn a failure to read or to parse a file into an error that says why.

    Args:
        problem: What such a failure means, such as "The record x cannot be read".
        error: The class to raise.
        hint: What the reader can do next.
    """
    try:
        yield
    except (OSError, ValueError) as failure:
        said = (getattr(failure, "strerror", "") or str(failure)).strip().rstrip(".")
        why = said.splitlines()[0] if said else type(failure).__name__
        raise error(f"{problem}: {why}.", hint=hint) from failure


def parse_json(content: bytes) -> dict[str, Any]:
    """Parse a JSON object.

    Raises:
        ValueError: As `parse_json_value` says, or it is no object.
    """
    parsed = parse_json_value(content)
    if not isinstance(parsed, dict):
        raise ValueError("it is no JSON object")
    return parsed


def parse_json_value(content: bytes, *, nan: bool = False) -> Any:
    """Parse any JSON value.

    Args:
        content: The document.
        nan: Whether numbers may be `NaN` and infinite, as Python and MLflow write them.

    Raises:
        ValueError: It is no UTF-8, no JSON, nested deeper than `DEEPEST`, or holds a key twice
            or a value that JSON does not have.
    """
    try:
        parsed = json.loads(content.decode(), object_pairs_hook=_unique)
        # Finds infinite numbers and lone surrogates, which the parser takes.
        json.dumps(parsed, allow_nan=nan, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    # No need to look where the brackets could not even make it too deep.
    if content.count(b"[") + content.count(b"{") > DEEPEST:
        _check_depth(parsed)
    return parsed


def _check_depth(parsed: Any) -> None:
    level: list[Any] = [[parsed]]
    for _ in range(DEEPEST + 1):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    raise ValueError("it is nested too deeply")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("it holds a key twice")
    return found


def parse_toml(content: bytes) -> dict[str, Any]:
    """Parse a TOML document.

    Raises:
        ValueError: It is no UTF-8, no TOML, or nested too deeply.
    """
    try:
        return tomllib.loads(content.decode())
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def parse_yaml(content: bytes) -> Any:
    """Parse a YAML document made of plain values.

    Raises:
        ValueError: It is no YAML, asks for Python objects, is nested deeper than `DEEPEST`, holds
            a key twice, contains itself, or becomes huge through aliases or merge keys.
    """
    if _LOADER is yaml.SafeLoader and len(content) > YAML_LIMIT:
        raise ValueError(f"it is larger than {YAML_LIMIT} bytes, and PyYAML has no libyaml here")
    try:
        _check_events(content)
        parsed = yaml.load(content, Loader=_PlainLoader)  # noqa: S506 - a SafeLoader
        _count(parsed, {})
    except yaml.YAMLError as error:
        # Only the first line: the others quote the file.
        told = str(error).partition("\n")[0]
        # As newer libyamls say it, which count brackets themselves.
        deep = told.startswith("while increasing ")
        raise ValueError("it is nested too deeply" if deep else told) from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except (TypeError, LookupError, AttributeError, OverflowError) as error:
        raise ValueError(f"a value cannot be read ({type(error).__name__})") from None
    return parsed


def _check_events(content: bytes) -> None:
    """Look how deep and how large a document is before anything is made of it."""
    depth = 0
    for number, event in enumerate(yaml.parse(content, Loader=_LOADER)):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        # libyaml composes on the C stack, which ends the process when it is used up.
        if depth > DEEPEST:
            raise ValueError("it is nested too deeply")
        if number > _EVENTS:
            raise ValueError("it has too many values")


def yaml_lines(content: bytes) -> dict[tuple[str | int, ...], int]:
    """Give the line, counted from one, of every value of a YAML document, by its keys.

    Args:
        content: A document that `parse_yaml` has taken.
    """
    return dict(_lines(yaml.compose(content, Loader=yaml.SafeLoader), (), set()))


def _lines(
    node: Any, path: tuple[str | int, ...], seen: set[int]
) -> Iterator[tuple[tuple[str | int, ...], int]]:
    """Give path and line of every value below a node; of aliases only once."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield (*path, str(key.value)), key.start_mark.line + 1
            yield from _lines(value, (*path, str(key.value)), seen)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield (*path, index), value.start_mark.line + 1
            yield from _lines(value, (*path, index), seen)


class _PlainLoader(_LOADER):  # type: ignore[misc,valid-type]
    """Without merge keys: a few lines of them make a mapping with billions of pairs."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        if any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value):
            raise yaml.YAMLError("it has merge keys (<<), which are not supported")

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        made: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        if len(made) != len(node.value):
            raise yaml.YAMLError("it holds a key twice")
        return made

    def construct_number(self, node: yaml.ScalarNode) -> Any:
        # Numbers to the base of 60 (1:59:59) take time that grows with the square of their length.
        if len(node.value) > _LONGEST_NUMBER:
            raise yaml.YAMLError("it has a number without end")
        whole = node.tag == "tag:yaml.org,2002:int"
        return self.construct_yaml_int(node) if whole else self.construct_yaml_float(node)


for _tag in ("int", "float"):
    _PlainLoader.add_constructor(f"tag:yaml.org,2002:{_tag}", _PlainLoader.construct_number)


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
