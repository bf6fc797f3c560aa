"""`bento.yaml`, read in this one place into values of known types, and settled.

Its fields are those of BentoML 1.1 to 1.4 (`_internal/bento/bento.py`, `build_config.py` and
`_bentoml_sdk/images.py`). Whoever hands a bento on can have written it.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from kfp_bento.runtime.errors import BentoError
from kfp_bento.runtime.files import YAML_LIMIT, parse_yaml, read_small_file, reading, yaml_lines
from kfp_bento.runtime.programs import cleaned

BENTO_FILE = "bento.yaml"
CREATION_TIME = "1970-01-01T00:00:00+00:00"
Place = tuple[str | int, ...]

_LONGEST_SHOWN = 300
_BUILD_AGAIN = "Build the bento again."


@dataclass(frozen=True)
class Listed:
    """A text of the file, and the keys that lead to it."""

    text: str
    place: Place

    @property
    def shown(self) -> str:
        """The text for people: one line without control characters."""
        return " ".join(cleaned(self.text[:_LONGEST_SHOWN]).split())


@dataclass(frozen=True)
class ListedModel:
    """A model that the bento needs.

    Attributes:
        tag: `name` or `name:version`.
        registry: Where BentoML would fetch it from; `bentoml` for what is in the bento.
        place: The keys that lead to it.
    """

    tag: str
    registry: str
    place: Place


@dataclass(frozen=True)
class Variable:
    """An environment variable; `stage` is `all`, `build` or `runtime`."""

    name: str
    value: str
    stage: str


@dataclass(frozen=True)
class Api:
    """A path at which the service answers, and the name of its method; as `Listed.shown`."""

    path: str
    name: str


@dataclass(frozen=True)
class BentoFile:
    """What a `bento.yaml` says.

    Attributes:
        name: Name.
        version: Version.
        service: BentoML's import string.
        entry_service: The name of the service that takes requests, or "" (of old services).
        bentoml_version: The BentoML that built it, or "".
        section: `image` for bentos of today, `docker` for those of BentoML 1.1 to 1.3.
        python_version: The interpreter that it is meant for, as it stands, or "".
        base_image: A base image, or "".
        models: Models at the top (of old services), then those of each service.
        runners: Of BentoML 1.1, as the operators of Yatai want them.
        commands: Of `image.commands`.
        post_commands: Of `image.post_commands`.
        docker: Settings of `docker` that are set, as texts: `distro`, `setup_script` …
        system_packages: Of `docker.system_packages`.
        conda: Settings of `conda` that are set, as texts.
        wheels: Of `python.wheels`, as a text; "" for none.
        pip_args: Of `python.pip_args`.
        environment: Of `docker.env`, then of `envs`.
        own_envs: Whether there are `envs`.
        created: When it was built, as it stands, or "".
        runs_legacy: Whether its service is one of BentoML 1.0 and 1.1, with runners or without.
        apis: What the service answers, as far as the file says it.
        content: The file's bytes.
    """

    name: str
    version: str
    service: str
    entry_service: str
    bentoml_version: str
    section: str
    python_version: str
    base_image: str
    models: tuple[ListedModel, ...]
    runners: tuple[dict[str, Any], ...]
    commands: tuple[Listed, ...]
    post_commands: tuple[Listed, ...]
    docker: Mapping[str, Listed]
    system_packages: tuple[Listed, ...]
    conda: Mapping[str, Listed]
    wheels: str
    pip_args: str
    environment: tuple[Variable, ...]
    own_envs: bool
    created: str
    runs_legacy: bool
    apis: tuple[Api, ...]
    content: bytes

    @property
    def tag(self) -> str:
        """BentoML's tag, `name:version`."""
        return f"{self.name}:{self.version}"

    @property
    def python_minor(self) -> str:
        """The interpreter without its patch version, such as "3.11", or ""."""
        return ".".join(self.python_version.split(".")[:2])

    def runtime_variables(self, taken: Container[str] = ()) -> dict[str, str]:
        """Give what the bento itself sets for its service, without names that are taken."""
        found = self.variables("all", "runtime")
        return {name: value for name, value in found.items() if name not in taken}

    def variables(self, *stages: str) -> dict[str, str]:
        """Give the variables of these stages that have a value."""
        return {
            variable.name: variable.value
            for variable in self.environment
            if variable.value and variable.stage in stages
        }

    def at(self, *place: str | int) -> str:
        """Give where a value stands, or the nearest one around it: `bento.yaml line 34`."""
        while place and place not in self._lines:
            place = place[:-1]
        return f"{BENTO_FILE} line {self._lines.get(place, 1)}"

    @cached_property
    def routes(self) -> tuple[dict[str, Any], ...]:
        """What the service answers, as BentoML describes it: name, path and JSON schemas.

        Empty for bentos of BentoML 1.0 to 1.3, and where nothing of the kind stands there.
        """
        data = parse_yaml(self.content)
        schema = data.get("schema") if isinstance(data, dict) else None
        routes = schema.get("routes") if isinstance(schema, dict) else None
        return tuple(route for route in routes or () if isinstance(route, dict))

    @cached_property
    def _lines(self) -> Mapping[Place, int]:
        return yaml_lines(self.content)


def read_bento_file(directory: Path) -> BentoFile:
    """Read the `bento.yaml` of a bento.

    Raises:
        BentoError: There is none, or it is not one that BentoML wrote.
    """
    path = directory / BENTO_FILE
    if directory.is_file():
        name = directory.name.partition(".")[0] or "bento"
        command = ["kfp-bento", "bento", "import", str(directory), "--to", name]
        raise BentoError(
            f"{directory} is a file, not the directory of a bento.",
            hint=f"Take the archive in first: {shlex.join(command)}",
        )
    if not os.path.lexists(path):
        raise BentoError(
            f"{directory} is not a bento: it has no {BENTO_FILE}.",
            hint="Give the directory that `kfp-bento bento build` or BentoML's export wrote.",
        )
    what = f"The {BENTO_FILE} in {directory}"
    with reading(f"{what} is not valid YAML", BentoError, hint=_BUILD_AGAIN):
        content = read_small_file(path, YAML_LIMIT)
    return parse_bento_file(content, what)


def parse_bento_file(content: bytes, what: str) -> BentoFile:
    """Read the text of a `bento.yaml`.

    Args:
        content: The text.
        what: What it is called in an error.

    Raises:
        BentoError: It is not one that BentoML wrote.
    """
    with reading(f"{what} is not valid YAML", BentoError, hint=_BUILD_AGAIN):
        data = parse_yaml(content)
    if not isinstance(data, dict):
        raise BentoError(f"{what} is not a mapping.", hint=_BUILD_AGAIN)
    try:
        return _bento_file(data, content)
    except _Unlike as error:
        raise BentoError(
            f"{what} is not one that BentoML wrote: {error}.", hint=_BUILD_AGAIN
        ) from None


def settled_bento_file(content: bytes, version: str, lock: str) -> bytes:
    """Give a `bento.yaml` with a version and a lock, and without a clock.

    Args:
        content: What BentoML wrote.
        version: The version to give it.
        lock: The text of the lock.

    Raises:
        BentoError: BentoML did not write it.
    """
    try:
        data = _mapping((), parse_yaml(content))
        data.update(version=version, creation_time=CREATION_TIME)
        for place, entry in [((), data), *_items((), data, "services")]:
            for _, model in _items(place, _mapping(place, entry), "models"):
                _mapping(place, model)["creation_time"] = CREATION_TIME
        if "image" in data:
            _mapping(("image",), data["image"])["python_requirements"] = lock
    except (ValueError, _Unlike) as error:
        raise BentoError(
            f"BentoML wrote a {BENTO_FILE} that cannot be read: {cleaned(str(error))}.",
            hint="Correct the service, or take another version of BentoML.",
        ) from error
    return written_yaml(data)


def change_bento_file(directory: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change something in a `bento.yaml`; every other value stays.

    Args:
        directory: The bento.
        change: Changes the document that it is given.

    Raises:
        BentoError: It cannot be read.
    """
    path = directory / BENTO_FILE
    with reading(f"The {BENTO_FILE} in {directory} cannot be read", BentoError, hint=_BUILD_AGAIN):
        data = _mapping((), parse_yaml(read_small_file(path, YAML_LIMIT)))
        change(data)
    path.unlink()  # it may be a link to another file
    path.write_bytes(written_yaml(data))


def written_yaml(data: dict[str, Any]) -> bytes:
    """Give YAML whose bytes depend on the values and their order alone."""
    text = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=False, width=4096)
    return text.encode("ascii")


class _Dumper(yaml.SafeDumper):
    """Writes text of several lines as a block, so that a lock can be read."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style="|" if "\n" in text else None
    )


_Dumper.add_representer(str, _represent_text)


class _Unlike(ValueError):
    """A value is not of the kind that BentoML writes there."""

    def __init__(self, place: Place, what: str) -> None:
        super().__init__(f"{'.'.join(map(str, place)) or 'the document'} {what}")


def _bento_file(data: dict[str, Any], content: bytes) -> BentoFile:
    image, docker, conda, python = (
        _mapping((name,), data.get(name) or {}) for name in ("image", "docker", "conda", "python")
    )
    section = "image" if image else "docker"
    chosen = image or docker
    return BentoFile(
        # Who makes something of the name says which names it takes.
        name=" ".join(cleaned(_scalar((), data, "name", needed=True)).split()),
        version=_name((), data, "version"),
        service=_name((), data, "service"),
        entry_service=_line((), data, "entry_service"),
        bentoml_version=_line((), data, "bentoml_version"),
        section=section,
        python_version=_line((section,), chosen, "python_version"),
        base_image=_line((section,), chosen, "base_image"),
        models=tuple(_models(data)),
        runners=tuple(_runners(data)),
        commands=tuple(_texts(("image",), image, "commands")),
        post_commands=tuple(_texts(("image",), image, "post_commands")),
        docker=_set(("docker",), docker, leave_out={"env", "system_packages", "python_version"}),
        system_packages=tuple(_texts(("docker",), docker, "system_packages")),
        conda=_set(("conda",), conda),
        wheels=str(python.get("wheels") or ""),
        pip_args=str(python.get("pip_args") or ""),
        environment=(*_docker_variables(docker), *_variables(data)),
        own_envs=bool(data.get("envs")),
        created=_line((), data, "creation_time"),
        runs_legacy=bool(data.get("apis") or data.get("runners")) and not data.get("services"),
        apis=tuple(_apis(data)),
        content=content,
    )


def _models(data: dict[str, Any]) -> Iterator[ListedModel]:
    """Models of old services stand at the top, those of new ones under `services`."""
    holders: list[tuple[Place, Any]] = [((), data), *_items((), data, "services")]
    for above, holder in holders:
        for place, entry in _items(above, _mapping(above, holder), "models"):
            model = _mapping(place, entry)
            registry = _line(place, model, "registry") or "bentoml"
            yield ListedModel(_name(place, model, "tag"), registry, place)


def _runners(data: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for place, entry in _items((), data, "runners"):
        runner = _mapping(place, entry)
        yield {**runner, "name": _line(place, runner, "name")}


def _apis(data: dict[str, Any]) -> Iterator[Api]:
    """Give the routes of a service of today, or the APIs of an old one; they are only shown."""
    schema = data.get("schema")
    found = schema.get("routes") if isinstance(schema, dict) else data.get("apis")
    for entry in found if isinstance(found, list) else ():
        name = entry.get("name") if isinstance(entry, dict) else None
        if isinstance(name, str):
            path = entry.get("route")
            path = path if isinstance(path, str) else f"/{name}"
            yield Api(Listed(path, ()).shown, Listed(name, ()).shown)


def _docker_variables(docker: dict[str, Any]) -> Iterator[Variable]:
    for name, value in _mapping(("docker", "env"), docker.get("env") or {}).items():
        if value:
            yield Variable(str(name), _value(("docker", "env", str(name)), value), "all")


def _variables(data: dict[str, Any]) -> Iterator[Variable]:
    for place, entry in _items((), data, "envs"):
        variable = _mapping(place, entry)
        value = _value(place, variable["value"]) if variable.get("value") else ""
        stage = _line(place, variable, "stage") or "all"
        yield Variable(_scalar(place, variable, "name"), value, stage)


def _mapping(place: Place, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _Unlike(place, "is no mapping")
    return value


def _items(above: Place, holder: Mapping[str, Any], key: str) -> Iterator[tuple[Place, Any]]:
    """Give the items of a list that may be missing, each with its place."""
    value = holder.get(key) or []
    if not isinstance(value, list):
        raise _Unlike((*above, key), "is no list")
    for index, item in enumerate(value):
        yield (*above, key, index), item


def _texts(above: Place, holder: Mapping[str, Any], key: str) -> Iterator[Listed]:
    for place, item in _items(above, holder, key):
        if isinstance(item, dict | list) or item is None:
            raise _Unlike(place, "is no text")
        yield Listed(str(item), place)


def _set(
    above: Place, holder: Mapping[str, Any], leave_out: Container[str] = ()
) -> dict[str, Listed]:
    """Give what is set, whatever its kind, as texts: it is only shown."""
    return {
        str(key): Listed(str(value), (*above, str(key)))
        for key, value in holder.items()
        if value and key not in leave_out
    }


def _scalar(above: Place, holder: Mapping[str, Any], key: str, *, needed: bool = False) -> str:
    """Give a text, number or date as a text; "" for what is missing."""
    value = holder.get(key)
    if value is None and needed:
        raise _Unlike((*above, key), "is missing")
    if value is None:
        return ""
    if not isinstance(value, str | int | float | date):
        raise _Unlike((*above, key), "is no text")
    return str(value)


def _line(above: Place, holder: Mapping[str, Any], key: str) -> str:
    """Give the same, in one line that can be shown as it is."""
    text = _scalar(above, holder, key)
    if not text.isprintable():
        raise _Unlike((*above, key), "holds control characters")
    return text


def _name(above: Place, holder: Mapping[str, Any], key: str) -> str:
    """Give the same, which must be there."""
    text = _line(above, holder, key)
    if not text:
        raise _Unlike((*above, key), "is missing")
    return text


def _value(place: Place, value: Any) -> str:
    """Give the value of an environment variable."""
    if not isinstance(value, str | int | float):
        raise _Unlike(place, "is no text")
    return str(value)
