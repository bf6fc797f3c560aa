"""What a user says of a target's options: in a file, by --set, by options of their own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints

from kfp_bento.runtime.errors import InvalidInput
from kfp_bento.runtime.files import YAML_LIMIT, parse_json_value, parse_yaml, read_small_file

_DOT = re.compile(r"(?<!\\)\.")
_WORDS = ("true", "false", "null")
# A scalar that starts otherwise is a number, a word of JSON, or text as it stands: what YAML 1.1
# makes of `on`, `12:30` or `2026-01-01` nobody expects on a command line.
_FLOW = ("{", "[", '"', "'")


def option_values(
    options_type: type,
    *,
    file: Path | None = None,
    settings: Sequence[str] = (),
    named: Mapping[str, Any] | None = None,
    variables: Sequence[str] = (),
) -> dict[str, Any]:
    """Give the options of a target as its renderer takes them; their types are checked there.

    What --set says is put into what the file says, key by key; a named option replaces it, and
    variables of --env come beside those of the file.

    Args:
        options_type: The model of the options; where it wants text, text is what is set.
        file: A YAML or JSON mapping.
        settings: `key.sub=value`, each from one --set.
        named: Values of options that have a flag of their own, empty ones left out.
        variables: `NAME=VALUE`, each from one --env.

    Raises:
        InvalidInput: The file is no mapping, something is no assignment, or a key is given twice.
    """
    values = mapping_in(file) if file else {}
    named = {key: value for key, value in (named or {}).items() if value not in ("", None)}
    given = {key: f"--{key}" for key in named} | ({"envs": "--env"} if variables else {})
    texts = {key for key, kind in get_type_hints(options_type).items() if kind is str}
    seen: set[tuple[str, ...]] = set()
    for setting in settings:
        path, text = _assignment(setting)
        if path[0] in given:
            raise InvalidInput(
                f"{path[0]}: it is given by --set and by {given[path[0]]}.",
                hint="Give one of them.",
            )
        if any(path[: len(one)] == one or one[: len(path)] == path for one in seen):
            raise InvalidInput(f"--set {setting}: the key is set twice.", hint="Keep one of them.")
        seen.add(path)
        _put(values, path, _value(setting, text, as_text=len(path) == 1 and path[0] in texts))
    if variables:
        values["envs"] = _with_variables(values.get("envs"), variables)
    return {**values, **named}


def mapping_in(file: Path, option: str = "--options") -> dict[str, Any]:
    """Read a file with a YAML or JSON mapping of plain values, which an option names.

    Raises:
        InvalidInput: It cannot be read, or holds something else.
    """
    try:
        found = parse_yaml(read_small_file(file, YAML_LIMIT))
    except OSError as error:
        raise InvalidInput(
            f"{option} {file} cannot be read: {error.strerror}.", hint="Check the path."
        ) from error
    except ValueError as error:
        raise InvalidInput(
            f"{option} {file} is no YAML or JSON: {error}.", hint="Write key: value."
        ) from error
    return _mapping(f"{option} {file}", found)


def mapping_of(option: str, text: str) -> dict[str, Any] | None:
    """Give the mapping that an option's text is, in JSON or YAML; None where it is empty.

    Raises:
        InvalidInput: It is something else.
    """
    if not text:
        return None
    return _mapping(option, _parsed(f"{option} {text}", text))


def assignments(option: str, texts: Iterable[str]) -> dict[str, str]:
    """Give what an option that takes NAME=VALUE and may be repeated says.

    Raises:
        InvalidInput: One is no assignment, or a name is given twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InvalidInput(
                f"{option} {text} is not NAME=VALUE.", hint=f"Write {option} NAME=VALUE."
            )
        if name in found:
            raise InvalidInput(f"{option} {name} is given twice.", hint="Keep one of them.")
        found[name] = value
    return found


def _assignment(setting: str) -> tuple[tuple[str, ...], str]:
    key, found, text = setting.partition("=")
    path = tuple(part.replace("\\.", ".") for part in _DOT.split(key))
    if not found or not all(path):
        raise InvalidInput(
            f"--set {setting} is not KEY=VALUE.",
            hint="Write --set resources.limits.cpu=2; a dot that belongs to a key as \\.",
        )
    return path, text


def _value(setting: str, text: str, *, as_text: bool) -> Any:
    if text.startswith(_FLOW):
        value = _plain(f"--set {setting}", _parsed(f"--set {setting}", text))
    else:
        value = _scalar(text)
    return text if as_text and value is not None and not isinstance(value, str) else value


def _scalar(text: str) -> Any:
    word = text.lower()
    try:
        return parse_json_value((word if word in _WORDS else text).encode())
    except ValueError:
        return text


def _put(values: dict[str, Any], path: Sequence[str], value: Any) -> None:
    *outer, last = path
    for depth, key in enumerate(outer, start=1):
        inner = values.get(key)
        if inner is not None and not isinstance(inner, dict):
            raise InvalidInput(
                f"--set {'.'.join(path)}: {'.'.join(path[:depth])} is no mapping in the file.",
                hint="Set all of it: --set key={...}.",
            )
        values[key] = values = dict(inner or {})
    values[last] = value


def _with_variables(found: Any, variables: Sequence[str]) -> list[Any]:
    """Put literal variables beside those of a file, in place of those of the same name."""
    if isinstance(found, Mapping):
        found = [{"name": name, "value": value} for name, value in found.items()]
    elif not isinstance(found or [], list):
        raise InvalidInput(
            f"envs: {found!r} is neither a mapping nor a list.", hint="Write NAME: value."
        )
    literal = [_variable(text) for text in variables]
    names = {one["name"] for one in literal}
    kept = [one for one in found or [] if not (isinstance(one, dict) and one.get("name") in names)]
    return [*kept, *literal]


def _variable(text: str) -> dict[str, str]:
    name, found, value = text.partition("=")
    if not found or not name:
        raise InvalidInput(f"--env {text} is not NAME=VALUE.", hint="Write --env THREADS=4.")
    return {"name": name, "value": value}


def _parsed(place: str, text: str) -> Any:
    try:
        return parse_yaml(text.encode())
    except ValueError as error:
        raise InvalidInput(
            f"{place} is neither JSON nor YAML: {error}.",
            hint="Write '{\"key\": value}', and quote it for the shell.",
        ) from error


def _mapping(place: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidInput(f"{place} is no mapping.", hint="Write {key: value}.")
    return dict(_plain(place, value))


def _plain(place: str, value: Any) -> Any:
    """Give values that JSON has too; YAML has dates, sets and keys of any kind as well."""
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise InvalidInput(f"{place}: the key {key!r} is no text.", hint="Quote it.")
        return {key: _plain(f"{place}: {key}", inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(place, inner) for inner in value]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise InvalidInput(f"{place}: {value} is a {type(value).__name__}.", hint="Quote it.")
