"""Whether a bento can become an image without running commands, decided before any work.

Layers are put together from files; there is nothing to run a Dockerfile's RUN with. What a bento
asks for and cannot get is an error here, with its line and a way out, never left out in silence.
How BentoML writes its wishes is known to `bentos/wishes.py`; most of what stands in the way is gone
once a bento was taken in by `kfp-bento bento import`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kfp_bento.runtime.bentos import (
    WHERE_EXPECTED,
    BentoFile,
    default_packages,
    is_default_command,
    listening_of,
    read_bento_file,
    unfulfilled_wishes,
    wanted_packages,
)
from kfp_bento.runtime.errors import ImageError
from kfp_bento.runtime.images.oci.image import Platform
from kfp_bento.runtime.images.python.lock import locked_names
from kfp_bento.runtime.images.python.requirements import LOCK, objections
from kfp_bento.runtime.images.python.selection import Wheel
from kfp_bento.runtime.programs import cleaned

_DEFAULT_BASE = re.compile(r"(?:docker\.io/)?(?:library/)?python:3\.\d+(?:\.\d+)?-slim(?:-\w+)?")
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?", re.ASCII)
_MODEL_TAG = re.compile(r"[a-z0-9][a-z0-9._-]*(?::[a-z0-9][a-z0-9._-]*)?")
_VARIABLE = re.compile(r"[A-Za-z_.-][A-Za-z0-9_.-]*")
_PYTHON_VERSION = re.compile(r"3\.\d+(?:\.\d+)?", re.ASCII)

_CLUSTER = (
    "Or let the cluster's own image builder build this bento as it is (target bento-request)."
)
_FETCH_BEFORE = (
    "Put the model into the BentoML store where the bento is built, and name it there "
    "(bentoml.models.BentoModel)."
)
_SAY_PYTHON = "Build the bento again with python_version set."
_BUILD_AGAIN = "Build the bento again."
_ADD_BENTOML = (
    "Lock once more with bentoml among the requirements: BentoML adds itself to the list when "
    "it builds a bento, and a lock of the project's own list has to name it."
)
_RENAME = "Build the bento again with other envs."
_SAY_BASE = "Give the base where the image is built (--base)."
_PLAIN_WHEEL = "Put the wheel itself into the bento's wheels/ folder."


@dataclass(frozen=True)
class ImageRequirements:
    """What a bento's `bento.yaml` says about its image.

    Attributes:
        base: A base image of its own, or an empty string for BentoML's default.
        environment: Variables to bake in (`envs` of stage `all` with a value), and those by which
            a service that wants to listen elsewhere does so where releases expect it.
        requirements: The lock file.
        system_packages: Debian packages that were asked for, with `=version` where pinned.
        notes: What was left out because an image of wheels does not need it, for people.
    """

    base: str
    environment: dict[str, str]
    requirements: Path
    system_packages: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Reason:
    """Why a bento cannot become an image.

    Attributes:
        place: Where that stands.
        what: What it is.
        way_out: What to do.
        imported: Whether taking the bento in is the way out, or a part of it.
        without: The wish that has to be left out then.
    """

    place: str
    what: str
    way_out: str = ""
    imported: bool = False
    without: str = ""


def qualify(directory: Path) -> ImageRequirements:
    """Read what the bento wants from its image, and refuses what cannot be done.

    Raises:
        ImageError: It wants commands, scripts, conda, a Dockerfile template, CUDA or another
            distribution than Debian, needs a model that is not in the directory, does not say
            its Python version, has its health where no probe would find it, or has requirements
            that are not wheels locked with hashes. All reasons are listed, each with its line; the
            hint has a way out for each.
        BentoError: The directory holds no readable `bento.yaml`.
    """
    file = read_bento_file(directory)
    requirements = _requirements(directory)
    reasons = list(_reasons(file, directory, requirements))
    if reasons:
        raise ImageError(
            f"The bento in {directory} cannot become an image as it is:\n"
            + "\n".join(f"- {reason.place}: {cleaned(reason.what)}" for reason in reasons),
            hint=_hint(directory, file, reasons),
        )
    return _wishes(file, requirements)


def require_bentoml(wheels: Iterable[Wheel], platform: Platform) -> None:
    """Refuse wheels that do not start a service.

    Raises:
        ImageError: Markers leave BentoML out for the image's platform and Python.
    """
    if all(wheel.name != "bentoml" for wheel in wheels):
        raise ImageError(
            f"The bento's lock gives no bentoml, which starts the service, for {platform} and the "
            "bento's Python: a condition behind the requirement leaves it out.",
            hint=_ADD_BENTOML,
        )


def _hint(directory: Path, file: BentoFile, reasons: list[_Reason]) -> str:
    """Give the command that takes the bento in, if that helps, and a way out for each reason."""
    ways = [reason.way_out for reason in reasons if reason.way_out]
    if any(reason.imported for reason in reasons):
        name = file.name if _NAME.fullmatch(file.name) else "bento"
        words = ["kfp-bento", "bento", "import", str(directory), "--to", f"{name}-imported"]
        for wish in dict.fromkeys(reason.without for reason in reasons if reason.without):
            words += ["--without", wish]
        ways.insert(
            0, f"Take it in, which locks it and brings its models along: {shlex.join(words)}"
        )
    if any(reason.without for reason in reasons):
        ways.append(_CLUSTER)
    return "\n".join(dict.fromkeys(ways))


def _reasons(file: BentoFile, directory: Path, requirements: Path) -> Iterator[_Reason]:
    yield from _python_reasons(file)
    yield from _name_reasons(file)
    for wish in unfulfilled_wishes(file):
        yield _Reason(wish.place, wish.what, wish.way_out, imported=True, without=wish.name)
    if file.wheels:
        what = f"python.wheels: {file.wheels}, which no lock names"
        yield _Reason(file.at("python", "wheels"), what, imported=True)
    yield from _model_reasons(file, directory)
    yield from _environment_reasons(file)
    for hidden, way_out in listening_of(file).hidden:
        yield _Reason(file.at(*hidden.place), hidden.shown, way_out)
    yield from _wheel_reasons(directory)
    name = requirements.relative_to(directory).as_posix()
    for line, what, way_out in objections(requirements):
        place, unlocked = f"{name} line {line}" if line else name, way_out == LOCK
        yield _Reason(place, what, "" if unlocked else way_out, imported=unlocked)
    if "bentoml" not in locked_names(requirements):
        yield _Reason(name, "bentoml is not in it, which starts the service", _ADD_BENTOML)


def _wishes(file: BentoFile, requirements: Path) -> ImageRequirements:
    return ImageRequirements(
        base="" if _DEFAULT_BASE.fullmatch(file.base_image) else file.base_image,
        environment=_environment(file),
        requirements=requirements,
        system_packages=tuple(dict.fromkeys(wanted_packages(file))),
        notes=tuple(dict.fromkeys(_notes(file))),
    )


# --- what stands in the way ----------------------------------------------------------------------


def _python_reasons(file: BentoFile) -> Iterator[_Reason]:
    section, python = file.section, file.python_version
    if not python:
        yield _Reason(
            file.at(section), f"{section}.python_version is missing: which Python?", _SAY_PYTHON
        )
    elif not _PYTHON_VERSION.fullmatch(python):
        what = f"{section}.python_version is {python[:100]!a}"
        yield _Reason(file.at(section, "python_version"), what, _SAY_PYTHON)


def _name_reasons(file: BentoFile) -> Iterator[_Reason]:
    """Refuse what lies on the builder's disk; a bento may ask for an image in a registry."""
    name, wanted = file.name, file.base_image
    if not _NAME.fullmatch(name):
        yield _Reason(file.at("name"), f"name is {name[:100]!a}", _BUILD_AGAIN)
    if wanted == "host" or wanted.startswith(("oci:", "docker-archive:")):
        what = (
            f"{file.section}.base_image is {wanted!a}, which only who builds the image can choose"
        )
        yield _Reason(file.at(file.section, "base_image"), what, _SAY_BASE)


def _model_reasons(file: BentoFile, directory: Path) -> Iterator[_Reason]:
    for model in file.models:
        tag, registry = model.tag, model.registry
        if registry != "bentoml":
            what = f"model {tag} is fetched from {registry} while the image is built"
            yield _Reason(file.at(*model.place), what, _FETCH_BEFORE)
        elif not _MODEL_TAG.fullmatch(tag):
            what = f"model {tag[:100]!a} has no name that BentoML gives"
            yield _Reason(file.at(*model.place), what, _BUILD_AGAIN)
        elif not (directory / "models" / tag.replace(":", "/")).is_dir():
            what = f"model {tag} is not in the directory (models/{tag.replace(':', '/')})"
            yield _Reason(file.at(*model.place), what, imported=True)


def _environment_reasons(file: BentoFile) -> Iterator[_Reason]:
    place = file.at("envs") if file.own_envs else file.at("docker", "env")
    for name, value in file.variables("all").items():
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


def _environment(file: BentoFile) -> dict[str, str]:
    own = file.variables("all")
    return {**own, **WHERE_EXPECTED} if listening_of(file).moved else own


# --- what can be had -----------------------------------------------------------------------------


def _notes(file: BentoFile) -> Iterator[str]:
    for command in file.commands:
        if is_default_command(command.text):
            yield f"left out, since wheels do not need them: {default_packages(command.text)}"
    if "base_image" in file.docker and file.system_packages:
        yield "docker.system_packages has no effect beside docker.base_image, as in BentoML"
    if file.pip_args:
        yield f"python.pip_args has no effect on locked wheels: {cleaned(file.pip_args)}"
    for moved in listening_of(file).moved:
        yield (
            f"{file.at(*moved.place)}: {moved.shown} is not followed: in its image the service "
            "listens on port 3000 of all addresses, where releases and their probes expect it"
        )
    for variable in file.environment:
        if variable.stage == "build":
            yield f"the build-stage variable {cleaned(variable.name)} is not needed"
        if variable.stage == "runtime" and variable.value:
            name = cleaned(variable.name)
            yield f"the runtime-stage variable {name} is not in the image; releases set it"
