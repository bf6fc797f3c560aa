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

import yaml

from kfp_bento.runtime.errors import BentoError, ImageError

# What BentoML itself puts in front of every Debian image; wheels need none of it.
_DEFAULT_COMMAND = re.compile(
    r"apt-get update && apt-get install -q -y --no-install-recommends --allow-remove-essential "
    r"[a-z0-9 -]+"
)
_DEFAULT_PACKAGES = {"ca-certificates", "gnupg2", "bash", "build-essential", "git"}
_DEFAULT_BASE = re.compile(r"(?:docker\.io/)?(?:library/)?python:3\.\d+(?:\.\d+)?-slim(?:-\w+)?")
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
    reasons = [*_image_reasons(facts), *_model_reasons(facts, directory)]
    if reasons:
        raise ImageError(
            f"The bento in {directory} cannot become an image without running commands:\n"
            + "\n".join(f"- {reason}" for reason in reasons),
            hint=_WAY_OUT,
        )
    wanted = str((facts.get("image") or facts.get("docker") or {}).get("base_image") or "")
    return Wishes(
        base="" if _DEFAULT_BASE.fullmatch(wanted) else wanted,
        environment=_environment(facts),
        requirements=_requirements(directory),
    )


def _read(directory: Path) -> dict[str, Any]:
    try:
        facts = yaml.safe_load((directory / "bento.yaml").read_bytes())
    except (OSError, yaml.YAMLError) as error:
        raise BentoError(
            f"{directory} is no bento: its bento.yaml cannot be read.",
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
        elif not (directory / "models" / tag.replace(":", "/")).is_dir():
            yield f"model {tag} is not in the directory (models/{tag.replace(':', '/')})"


def _environment(facts: dict[str, Any]) -> dict[str, str]:
    found = {}
    for variable in facts.get("envs") or ():
        if variable.get("stage", "all") == "all" and variable.get("value"):
            found[str(variable["name"])] = str(variable["value"])
    return found


def _requirements(directory: Path) -> Path:
    folder = directory / "env" / "python"
    for name in ("requirements.lock.txt", "requirements.txt"):
        file = folder / name
        if file.is_file():
            _check_hashes(file)
            return file
    raise ImageError(
        f"The bento in {directory} lists no Python requirements (env/python/requirements.txt)."
    )


def _check_hashes(file: Path) -> None:
    """Every requirement must carry a hash; uv would say so too, but not which line or why."""
    joined = file.read_text(encoding="utf-8").replace("\\\n", " ")
    for line in joined.splitlines():
        text = line.strip()
        if text and not text.startswith(("#", "-")) and "--hash=" not in text:
            raise ImageError(
                f"The bento's requirements are not locked with hashes: '{text}'.",
                hint="Build the bento with kfp-bento, or lock it with "
                "`uv pip compile --generate-hashes` into env/python/requirements.txt.",
            )
