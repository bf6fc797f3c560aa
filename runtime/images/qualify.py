"""Whether a bento can become an image without running commands, decided before any work.

Layers are put together from files; there is nothing to run a Dockerfile's RUN with. What a bento
asks for and cannot get is an error here, with its line and a way out, never left out in silence.
How BentoML writes these wishes: ``_bentoml_sdk/images.py`` (``image:``) and
``_internal/bento/build_config.py`` (``docker:``, ``conda:``, ``python:``) of BentoML 1.4.39.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kfp_bento.runtime.errors import BentoError, ImageError
from kfp_bento.runtime.files import YAML_LIMIT, parse_yaml, read_small_file
from kfp_bento.runtime.images.requirements import LOCK, objections

# The two commands with which BentoML installs Debian packages: its own set, and what was asked for.
_DEFAULT_COMMAND = re.compile(
    r"apt-get update && apt-get install -q -y --no-install-recommends --allow-remove-essential "
    r"[a-z0-9 -]+"
)
_INSTALL_COMMAND = "apt-get install -q -y -o Dpkg::Options::=--force-confdef "
_DEFAULT_PACKAGES = {"ca-certificates", "gnupg2", "bash", "build-essential", "git"}
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+(:any)?(=[A-Za-z0-9.+:~-]+)?")
_OTHER_MANAGERS = ("apk add", "yum ", "dnf ", "microdnf ")
_DEFAULT_BASE = re.compile(r"(?:docker\.io/)?(?:library/)?python:3\.\d+(?:\.\d+)?-slim(?:-\w+)?")
_SCRIPT = "env/docker/script__"
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?", re.ASCII)
_MODEL_TAG = re.compile(r"[a-z0-9][a-z0-9._-]*(?::[a-z0-9][a-z0-9._-]*)?")
_VARIABLE = re.compile(r"[A-Za-z_.-][A-Za-z0-9_.-]*")
_PYTHON_VERSION = re.compile(r"3\.\d+(?:\.\d+)?", re.ASCII)

_CLUSTER = "let the cluster's own image builder build this bento (request_bento)."
_PREPARED = f"Put the command into a base image once and pass that image as the base, or {_CLUSTER}"
_NO_CONDA = f"List the packages for pip (python.packages) instead of conda, or {_CLUSTER}"
_NO_CUDA = (
    "Drop cuda_version: frameworks bring CUDA's libraries along as wheels. Or pass a base image "
    f"that has CUDA, or {_CLUSTER}"
)
_DEBIAN = f"Build the bento for Debian (distro debian, the default), or {_CLUSTER}"
_BRING_MODELS = f"Build the bento with its models inside (`kfp-bento bento build`), or {_CLUSTER}"
_SAY_PYTHON = "Build the bento again with python_version set."
_BUILD_AGAIN = "Build the bento again."
_RENAME = "Build the bento again with other envs."
_SAY_BASE = "Give the base where the image is built (--base)."
_PLAIN_WHEEL = "Put the wheel itself into the bento's wheels/ folder."


@dataclass(frozen=True)
class Wishes:
    """What a bento's ``bento.yaml`` says about its image.

    Attributes:
        base: A base image of its own, or an empty string for BentoML's default.
        environment: Variables to bake in (``envs`` of stage ``all`` with a value).
        requirements: The lock file.
        system_packages: Debian packages that were asked for, with ``=version`` where pinned.
        notes: What was left out because an image of wheels does not need it, for people.
    """

    base: str
    environment: dict[str, str]
    requirements: Path
    system_packages: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Reason:
    """Why a bento cannot become an image: where that stands, what it is, and the way out."""

    place: str
    what: str
    way_out: str


@dataclass(frozen=True)
class _File:
    """A parsed ``bento.yaml`` that knows on which line each of its values stands."""

    facts: dict[str, Any]
    lines: dict[tuple[str | int, ...], int]

    def at(self, *path: str | int) -> str:
        """The place of a value, or of the nearest one around it: ``bento.yaml line 34``."""
        while path and path not in self.lines:
            path = path[:-1]
        return f"bento.yaml line {self.lines.get(path, 1)}"

    def section(self, name: str) -> dict[str, Any]:
        """A mapping of the file; empty where there is none."""
        found = self.facts.get(name)
        return found if isinstance(found, dict) else {}


def qualify(directory: Path) -> Wishes:
    """Reads what the bento wants from its image, and refuses what cannot be done.

    Raises:
        ImageError: It wants commands, scripts, conda, a Dockerfile template, CUDA or another
            distribution than Debian, needs a model that is not in the directory, does not say
            its Python version, or has requirements that are not wheels locked with hashes. All
            reasons are listed, each with its line; the hint has a way out for each.
        BentoError: The directory holds no readable ``bento.yaml``.
    """
    file = _read(directory)
    requirements = _requirements(directory)
    try:
        reasons = list(_reasons(file, directory, requirements))
        wishes = _wishes(file, requirements)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BentoError(
            f"{directory / 'bento.yaml'} is not one that BentoML wrote ({type(error).__name__}).",
            hint=_BUILD_AGAIN,
        ) from error
    if reasons:
        raise ImageError(
            f"The bento in {directory} cannot become an image without running commands:\n"
            + "\n".join(f"- {reason.place}: {reason.what}" for reason in reasons),
            hint="\n".join(dict.fromkeys(reason.way_out for reason in reasons)),
        )
    return wishes


def _reasons(file: _File, directory: Path, requirements: Path) -> Iterator[_Reason]:
    yield from _python_reasons(file)
    yield from _name_reasons(file)
    yield from _command_reasons(file)
    yield from _old_style_reasons(file)
    yield from _model_reasons(file, directory)
    yield from _environment_reasons(file)
    yield from _wheel_reasons(directory)
    name = requirements.relative_to(directory).as_posix()
    for line, what, way_out in objections(requirements):
        yield _Reason(f"{name} line {line}" if line else name, what, way_out)


def _wishes(file: _File, requirements: Path) -> Wishes:
    wanted = _base_image(file)
    return Wishes(
        base="" if _DEFAULT_BASE.fullmatch(wanted) else wanted,
        environment=_environment(file),
        requirements=requirements,
        system_packages=tuple(dict.fromkeys(_system_packages(file))),
        notes=tuple(dict.fromkeys(_notes(file))),
    )


def _read(directory: Path) -> _File:
    try:
        text = read_small_file(directory / "bento.yaml", YAML_LIMIT)
        facts = parse_yaml(text)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise BentoError(
            f"{directory} is no bento: its bento.yaml cannot be read ({reason}).",
            hint="Build one with `kfp-bento bento build MODEL_DIR --to DIR`.",
        ) from error
    if not isinstance(facts, dict):
        raise BentoError(f"{directory / 'bento.yaml'} holds no mapping.")
    return _File(facts, dict(_lines(node, (), set())))


def _lines(
    node: Any, path: tuple[str | int, ...], seen: set[int]
) -> Iterator[tuple[tuple[str | int, ...], int]]:
    """Path and line, counted from one, of every value below a YAML node; of aliases only once."""
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


def _base_image(file: _File) -> str:
    return str((file.section("image") or file.section("docker")).get("base_image") or "")


# --- what stands in the way ----------------------------------------------------------------------


def _python_reasons(file: _File) -> Iterator[_Reason]:
    section = "image" if file.section("image") else "docker"
    python = file.section(section).get("python_version")
    if not python:
        yield _Reason(
            file.at(section), f"{section}.python_version is missing: which Python?", _SAY_PYTHON
        )
    elif not _PYTHON_VERSION.fullmatch(str(python)):
        what = f"{section}.python_version is {str(python)[:100]!a}"
        yield _Reason(file.at(section, "python_version"), what, _SAY_PYTHON)


def _name_reasons(file: _File) -> Iterator[_Reason]:
    """A bento may ask for an image in a registry, but not for what lies on the builder's disk."""
    name, wanted = str(file.facts.get("name")), _base_image(file)
    if not _NAME.fullmatch(name):
        yield _Reason(file.at("name"), f"name is {name[:100]!a}", _BUILD_AGAIN)
    if wanted == "host" or wanted.startswith(("oci:", "docker-archive:")):
        section = "image" if file.section("image") else "docker"
        what = f"{section}.base_image is {wanted!a}, which only who builds the image can choose"
        yield _Reason(file.at(section, "base_image"), what, _SAY_BASE)


def _command_reasons(file: _File) -> Iterator[_Reason]:
    image = file.section("image")
    for key in ("commands", "post_commands"):
        for index, command in enumerate(image.get(key) or ()):
            if key == "commands" and (_is_default(command) or _installed_by(command)):
                continue
            place = file.at("image", key, index)
            if command.startswith(_OTHER_MANAGERS):
                what = f"image.{key} installs packages of another distribution than Debian"
                yield _Reason(place, f"{what}: {command}", _DEBIAN)
                continue
            what = "a script" if _SCRIPT in command else "a command"
            yield _Reason(place, f"image.{key} runs {what}: {command}", _PREPARED)


def _old_style_reasons(file: _File) -> Iterator[_Reason]:
    docker = file.section("docker")
    ways = {
        "setup_script": _PREPARED,
        "dockerfile_template": _PREPARED,
        "cuda_version": _NO_CUDA,
    }
    for key, way_out in ways.items():
        if value := docker.get(key):
            yield _Reason(file.at("docker", key), f"docker.{key}: {value}", way_out)
    distribution = docker.get("distro") or "debian"
    if distribution != "debian":
        yield _Reason(file.at("docker", "distro"), f"docker.distro: {distribution}", _DEBIAN)
    for index, package in enumerate(docker.get("system_packages") or ()):
        if not _PACKAGE.fullmatch(str(package)):
            what = f"docker.system_packages: '{package}' is no name of a Debian package"
            yield _Reason(file.at("docker", "system_packages", index), what, _PREPARED)
    for key, value in file.section("conda").items():
        if value:
            yield _Reason(file.at("conda", key), f"conda.{key}: {value}", _NO_CONDA)
    if wheels := file.section("python").get("wheels"):
        what = f"python.wheels: {wheels}, which no lock names"
        yield _Reason(file.at("python", "wheels"), what, LOCK)


def _is_default(command: str) -> bool:
    normal = " ".join(command.split())
    if not _DEFAULT_COMMAND.fullmatch(normal):
        return False
    return set(normal.partition("--allow-remove-essential ")[2].split()) <= _DEFAULT_PACKAGES


def _installed_by(command: str) -> list[str]:
    """The packages of the command that ``Image.system_packages`` writes; [] for any other."""
    if not command.startswith(_INSTALL_COMMAND) or "\n" in command:
        return []
    try:
        names = shlex.split(command.removeprefix(_INSTALL_COMMAND))
    except ValueError:
        return []
    return names if all(_PACKAGE.fullmatch(name) for name in names) else []


def _model_reasons(file: _File, directory: Path) -> Iterator[_Reason]:
    facts = file.facts
    listed: list[tuple[tuple[str | int, ...], Any]] = [
        (("models", index), item) for index, item in enumerate(facts.get("models") or ())
    ]
    for number, service in enumerate(facts.get("services") or ()):
        for index, item in enumerate(service.get("models") or ()):
            listed.append((("services", number, "models", index), item))
    for path, model in listed:
        tag, registry = str(model.get("tag", "")), model.get("registry") or "bentoml"
        if registry != "bentoml":
            what = f"model {tag} is fetched from {registry} while the image is built"
            yield _Reason(file.at(*path), what, _BRING_MODELS)
        elif not _MODEL_TAG.fullmatch(tag):
            what = f"model {tag[:100]!a} has no name that BentoML gives"
            yield _Reason(file.at(*path), what, _BUILD_AGAIN)
        elif not (directory / "models" / tag.replace(":", "/")).is_dir():
            what = f"model {tag} is not in the directory (models/{tag.replace(':', '/')})"
            yield _Reason(file.at(*path), what, _BRING_MODELS)


def _environment_reasons(file: _File) -> Iterator[_Reason]:
    place = file.at("envs" if file.facts.get("envs") else "docker", "env")
    for name, value in _environment(file).items():
        if not _VARIABLE.fullmatch(name):
            yield _Reason(place, f"{name!a} is no name of an environment variable", _RENAME)
        elif name == "PATH":
            what = "PATH is made of the base's and the virtual environment's"
            yield _Reason(place, what, _RENAME)
        elif "\0" in value:
            yield _Reason(place, f"the value of {name} holds a NUL", _RENAME)


def _wheel_reasons(directory: Path) -> Iterator[_Reason]:
    root = directory.resolve()
    for wheel in sorted((*directory.glob("src/wheels/*"), *directory.glob("env/python/wheels/*"))):
        place = f"{wheel.relative_to(directory).as_posix()!a}"
        if not wheel.resolve().is_relative_to(root):
            yield _Reason(place, "it is a symlink that leaves the bento", _PLAIN_WHEEL)
        elif not wheel.is_file():
            yield _Reason(place, "it is no file", _PLAIN_WHEEL)


def _requirements(directory: Path) -> Path:
    folder = directory / "env" / "python"
    for name in ("requirements.lock.txt", "requirements.txt"):
        if (folder / name).is_file():
            return folder / name
    raise ImageError(
        f"The bento in {directory} lists no Python requirements (env/python/requirements.txt).",
        hint=LOCK,
    )


# --- what can be had -----------------------------------------------------------------------------


def _system_packages(file: _File) -> Iterator[str]:
    for command in file.section("image").get("commands") or ():
        yield from _installed_by(command)
    docker = file.section("docker")
    if not docker.get("base_image"):
        yield from map(str, docker.get("system_packages") or ())


def _notes(file: _File) -> Iterator[str]:
    for command in file.section("image").get("commands") or ():
        if _is_default(command):
            names = " ".join(command.split()).partition("--allow-remove-essential ")[2]
            yield f"left out, since wheels do not need them: {names}"
    docker = file.section("docker")
    if docker.get("base_image") and docker.get("system_packages"):
        yield "docker.system_packages has no effect beside docker.base_image, as in BentoML"
    if arguments := file.section("python").get("pip_args"):
        yield f"python.pip_args has no effect on locked wheels: {arguments}"
    for variable in file.facts.get("envs") or ():
        if variable.get("stage") == "build":
            yield f"the build-stage variable {variable.get('name')} is not needed"


def _environment(file: _File) -> dict[str, str]:
    options = file.section("docker").get("env")
    found = {str(name): _text(value) for name, value in (options or {}).items() if value}
    for variable in file.facts.get("envs") or ():
        if variable.get("stage", "all") == "all" and variable.get("value"):
            found[str(variable["name"])] = _text(variable["value"])
    return found


def _text(value: Any) -> str:
    if not isinstance(value, str | int | float):
        raise TypeError("the value of a variable is no text")
    return str(value)
