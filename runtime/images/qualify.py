"""Whether a bento can become an image without running commands, decided before any work.

Layers are put together from files; there is nothing to run a Dockerfile's RUN with. What a bento
asks for and cannot get is an error here, never left out in silence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfp_bento.runtime.errors import BentoError, ImageError
from kfp_bento.runtime.images.requirements import check_requirements
from kfp_bento.runtime.storage import YAML_LIMIT, parse_yaml, read_small_file

# What BentoML itself puts in front of every Debian image; wheels need none of it.
_DEFAULT_COMMAND = re.compile(
    r"apt-get update && apt-get install -q -y --no-install-recommends --allow-remove-essential "
    r"[a-z0-9 -]+"
)
_DEFAULT_PACKAGES = {"ca-certificates", "gnupg2", "bash", "build-essential", "git"}
_DEFAULT_BASE = re.compile(r"(?:docker\.io/)?(?:library/)?python:3\.\d+(?:\.\d+)?-slim(?:-\w+)?")
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?", re.ASCII)
_MODEL_TAG = re.compile(r"[a-z0-9][a-z0-9._-]*(?::[a-z0-9][a-z0-9._-]*)?")
_VARIABLE = re.compile(r"[A-Za-z_.-][A-Za-z0-9_.-]*")
_PYTHON_VERSION = re.compile(r"3\.\d+(?:\.\d+)?", re.ASCII)
_WAY_OUT = (
    "Let the cluster build this bento (request_bento), or put the command into a base image "
    "once and pass that image as the base."
)


@dataclass(frozen=True)
class Wishes:
    """What a bento's ``bento.yaml`` says about its image.

    Attributes:
        base: A base image of its own, or an empty string for BentoML's default.
        environment: Variables to bake in (``envs`` of stage ``all`` with a value).
        requirements: The lock file.
    """

    base: str
    environment: dict[str, str]
    requirements: Path


def qualify(directory: Path) -> Wishes:
    """Reads what the bento wants from its image, and refuses what cannot be done.

    Raises:
        ImageError: It wants commands, scripts, conda, a Dockerfile template or CUDA packages, a
            model that is not in the directory, or has no hash-locked requirements; all reasons
            are listed.
        BentoError: The directory holds no readable ``bento.yaml``.
    """
    facts = _read(directory)
    try:
        wanted = str((facts.get("image") or facts.get("docker") or {}).get("base_image") or "")
        environment = _environment(facts)
        reasons = [
            *_image_reasons(facts),
            *_model_reasons(facts, directory),
            *_environment_reasons(environment),
            *_base_reasons(facts, wanted),
            *_wheel_reasons(directory),
        ]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BentoError(
            f"{directory / 'bento.yaml'} is not one that BentoML wrote ({type(error).__name__}).",
            hint="Build the bento again.",
        ) from error
    if reasons:
        raise ImageError(
            f"The bento in {directory} cannot become an image without running commands:\n"
            + "\n".join(f"- {reason}" for reason in reasons),
            hint=_WAY_OUT,
        )
    return Wishes(
        base="" if _DEFAULT_BASE.fullmatch(wanted) else wanted,
        environment=environment,
        requirements=_requirements(directory),
    )


def _read(directory: Path) -> dict[str, Any]:
    try:
        facts = parse_yaml(read_small_file(directory / "bento.yaml", YAML_LIMIT))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise BentoError(
            f"{directory} is no bento: its bento.yaml cannot be read ({reason}).",
            hint="Build one with `kfp-bento bento build MODEL_DIR --to DIR`.",
        ) from error
    if not isinstance(facts, dict):
        raise BentoError(f"{directory / 'bento.yaml'} holds no mapping.")
    return facts


def _image_reasons(facts: dict[str, Any]) -> Iterator[str]:
    image, docker = facts.get("image") or {}, facts.get("docker") or {}
    for key in ("commands", "post_commands"):
        for command in image.get(key) or ():
            if key == "post_commands" or not _is_default(command):
                what = "a script" if "env/docker/script__" in command else "a command"
                yield f"image.{key} runs {what}: {command}"
    for key in ("setup_script", "dockerfile_template", "cuda_version", "system_packages"):
        if value := docker.get(key):
            yield f"docker.{key}: {value}"
    for key, value in (facts.get("conda") or {}).items():
        if value:
            yield f"conda.{key}: {value}"


def _is_default(command: str) -> bool:
    normal = " ".join(command.split())
    if not _DEFAULT_COMMAND.fullmatch(normal):
        return False
    return set(normal.partition("--allow-remove-essential ")[2].split()) <= _DEFAULT_PACKAGES


def _model_reasons(facts: dict[str, Any], directory: Path) -> Iterator[str]:
    listed = [*(facts.get("models") or ())]
    for service in facts.get("services") or ():
        listed += service.get("models") or ()
    for model in listed:
        tag, registry = str(model.get("tag", "")), model.get("registry") or "bentoml"
        if registry != "bentoml":
            yield f"model {tag} is fetched from {registry} while the image is built"
        elif not _MODEL_TAG.fullmatch(tag):
            yield f"model {tag!a} has no name that BentoML gives"
        elif not (directory / "models" / tag.replace(":", "/")).is_dir():
            yield f"model {tag} is not in the directory (models/{tag.replace(':', '/')})"


def _environment(facts: dict[str, Any]) -> dict[str, str]:
    found = {}
    for variable in facts.get("envs") or ():
        if variable.get("stage", "all") == "all" and variable.get("value"):
            if not isinstance(variable["value"], str | int | float):
                raise TypeError("the value of a variable is no text")
            found[str(variable["name"])] = str(variable["value"])
    return found


def _environment_reasons(environment: dict[str, str]) -> Iterator[str]:
    for name, value in environment.items():
        if not _VARIABLE.fullmatch(name):
            yield f"envs: {name!a} is no name of an environment variable"
        elif name == "PATH":
            yield "envs: PATH is made of the base's and the virtual environment's"
        elif "\0" in value:
            yield f"envs: the value of {name} holds a NUL"


def _base_reasons(facts: dict[str, Any], wanted: str) -> Iterator[str]:
    """A bento may ask for an image in a registry, but not for what lies on the builder's disk."""
    if not _NAME.fullmatch(str(facts.get("name"))):
        yield f"name is {str(facts.get('name'))[:100]!a}"
    if wanted == "host" or wanted.startswith(("oci:", "docker-archive:")):
        yield f"image.base_image is {wanted!a}, which only who builds the image can choose"
    python = (facts.get("image") or facts.get("docker") or {}).get("python_version")
    if python and not _PYTHON_VERSION.fullmatch(str(python)):
        yield f"image.python_version is {str(python)!a}"


def _wheel_reasons(directory: Path) -> Iterator[str]:
    root = directory.resolve()
    for wheel in sorted((*directory.glob("src/wheels/*"), *directory.glob("env/python/wheels/*"))):
        place = wheel.relative_to(directory).as_posix()
        if not wheel.resolve().is_relative_to(root):
            yield f"{place!a} is a symlink that leaves the bento"
        elif not wheel.is_file():
            yield f"{place!a} is no file"


def _requirements(directory: Path) -> Path:
    folder = directory / "env" / "python"
    for name in ("requirements.lock.txt", "requirements.txt"):
        file = folder / name
        if file.is_file():
            check_requirements(file)
            return file
    raise ImageError(
        f"The bento in {directory} lists no Python requirements (env/python/requirements.txt)."
    )
