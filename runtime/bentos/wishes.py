"""What a bento wishes from its image that files alone cannot give: found, and taken away.

Images are put together from files; there is nothing to run a Dockerfile's RUN with. How BentoML
writes these wishes: `_bentoml_sdk/images.py` (`image:`) and `_internal/bento/build_config.py`
(`docker:`, `conda:`) of BentoML 1.0 to 1.4.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfp_bento.runtime.bentos.bento_file import (
    BentoFile,
    Listed,
    change_bento_file,
    read_bento_file,
)
from kfp_bento.runtime.errors import BentoError, InvalidInput
from kfp_bento.runtime.programs import cleaned

DEBIAN_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+(:any)?(=[A-Za-z0-9.+:~-]+)?")
"""A Debian package as a bento asks for it, with `=version` where it is pinned."""

# The two commands with which BentoML installs Debian packages: its own set, and what was asked for.
_DEFAULT_COMMAND = re.compile(
    r"apt-get update && apt-get install -q -y --no-install-recommends --allow-remove-essential "
    r"[a-z0-9 -]+"
)
_INSTALL_COMMAND = "apt-get install -q -y -o Dpkg::Options::=--force-confdef "
_DEFAULT_PACKAGES = {"ca-certificates", "gnupg2", "bash", "build-essential", "git"}
_OTHER_MANAGERS = ("apk add", "apk update", "yum ", "dnf ", "microdnf ")
_SCRIPT = "env/docker/script__"

_PREPARED = (
    "What it does goes into a base image once, which is given where the image is built: --base."
)
_WAYS = {
    "commands": _PREPARED,
    "setup_script": _PREPARED,
    "dockerfile_template": _PREPARED,
    "system_packages": _PREPARED,
    "conda": "What conda would install is named for pip instead: --requirement 'NAME==VERSION'.",
    "cuda_version": "Frameworks bring CUDA's libraries along as wheels; or build on a base image "
    "that has CUDA: --base.",
    "distro": "Without distro it is built for Debian.",
}
INDEX = "index"
WISHES = tuple(sorted({*_WAYS, "base_image", INDEX}))
"""What can be left out; all but `base_image` and `index`, the bento's own indexes, have to be."""


@dataclass(frozen=True)
class Wish:
    """A wish that an image made of files cannot fulfil.

    Attributes:
        name: One of `WISHES`.
        place: Where it stands: `bento.yaml line 34`.
        what: The wish itself, for people.
    """

    name: str
    place: str
    what: str

    @property
    def way_out(self) -> str:
        """What to do instead, in one sentence."""
        return _WAYS[self.name]


def unfulfilled_wishes(file: BentoFile) -> Iterator[Wish]:
    """Give the wishes that an image made of files cannot fulfil, in the order of the file."""
    for key, commands in _commands(file):
        for command in commands:
            if name := _wish_of(key, command):
                yield Wish(name, file.at(*command.place), _said(name, key, command))
    for key in ("setup_script", "dockerfile_template", "cuda_version", "distro"):
        found = file.docker.get(key)
        if found and (key, found.text) != ("distro", "debian"):
            yield Wish(key, file.at(*found.place), f"docker.{key}: {found.shown}")
    for package in file.system_packages:
        if not DEBIAN_PACKAGE.fullmatch(package.text):
            what = f"docker.system_packages: '{package.shown}' is no name of a Debian package"
            yield Wish("system_packages", file.at(*package.place), what)
    for key, found in file.conda.items():
        yield Wish("conda", file.at(*found.place), f"conda.{key}: {found.shown}")


def _wish_of(key: str, command: Listed) -> str:
    """Give the name of the wish that a command is, or "" where nobody has to run it."""
    if key == "commands" and (is_default_command(command.text) or installed_by(command.text)):
        return ""
    if command.text.startswith(_OTHER_MANAGERS):
        return "distro"
    return "setup_script" if _SCRIPT in command.text else "commands"


def _said(name: str, key: str, command: Listed) -> str:
    if name == "distro":
        return f"image.{key} installs packages of another distribution than Debian: {command.shown}"
    what = "a script" if name == "setup_script" else "a command"
    return f"image.{key} runs {what}: {command.shown}"


def is_default_command(command: str) -> bool:
    """Say whether a command installs the packages that BentoML wants in every image."""
    normal = " ".join(command.split())
    if not _DEFAULT_COMMAND.fullmatch(normal):
        return False
    return set(default_packages(normal).split()) <= _DEFAULT_PACKAGES


def default_packages(command: str) -> str:
    """Give the packages of BentoML's default command, as one text."""
    return " ".join(command.split()).partition("--allow-remove-essential ")[2]


def installed_by(command: str) -> list[str]:
    """Give the packages of the command that `Image.system_packages` writes; [] for any other."""
    if not command.startswith(_INSTALL_COMMAND) or "\n" in command:
        return []
    try:
        names = shlex.split(command.removeprefix(_INSTALL_COMMAND))
    except ValueError:
        return []
    return names if all(DEBIAN_PACKAGE.fullmatch(name) for name in names) else []


def settle_wishes(directory: Path, without: Collection[str]) -> tuple[str, ...]:
    """Take the wishes that are to be left out from a bento, and refuse it if others remain.

    Args:
        directory: The bento, which is changed.
        without: Of the wishes that go, as in `WISHES`.

    Returns:
        What was left out, for people.

    Raises:
        BentoError: It has wishes that can neither be fulfilled nor were to be left out: all of
            them are named, each with its line.
        InvalidInput: There is no such wish.
    """
    unknown = sorted(set(without) - set(WISHES))
    if unknown:
        raise InvalidInput(
            f"{unknown[0][:80]!r} is nothing that can be left out.",
            hint=f"Known: {', '.join(WISHES)}.",
        )
    file = read_bento_file(directory)
    wishes = [*unfulfilled_wishes(file)]
    remaining = [wish for wish in wishes if wish.name not in without]
    if remaining:
        raise _refusal(file, remaining)
    if without:
        change_bento_file(directory, lambda data: _take_away(data, file, without))
    gone = [f"{wish.what} ({wish.place})" for wish in wishes]
    if "base_image" in without and file.base_image:
        gone.append(f"{file.section}.base_image: {file.base_image}")
    if "system_packages" in without and (packages := [*wanted_packages(file)]):
        gone.append(f"system packages: {' '.join(packages)}")
    return tuple(f"Left out: {cleaned(what)}" for what in gone)


def wanted_packages(file: BentoFile) -> Iterator[str]:
    """Give the Debian packages that a bento asks for, as it asks for them."""
    for command in file.commands:
        yield from installed_by(command.text)
    if "base_image" not in file.docker:
        yield from (package.text for package in file.system_packages)


def _refusal(file: BentoFile, wishes: list[Wish]) -> BentoError:
    said = "\n".join(f"- {wish.place}: {cleaned(wish.what)}" for wish in wishes)
    options = " ".join(f"--without {name}" for name in dict.fromkeys(wish.name for wish in wishes))
    ways = dict.fromkeys(wish.way_out for wish in wishes)
    return BentoError(
        f"The bento {file.name}:{file.version} wants what no image has that is made without "
        f"running commands:\n{said}",
        hint="\n".join(
            [
                f"Import it without: {options} (without=).",
                *ways,
                "Or take it in as it is, with --no-lock, for the cluster's own image builder "
                "(target bento-request).",
            ]
        ),
    )


_DOCKER = {
    *("setup_script", "dockerfile_template", "cuda_version", "base_image", "system_packages")
}


def _take_away(data: dict[str, Any], file: BentoFile, names: Collection[str]) -> None:
    """Take wishes out of a `bento.yaml`.

    Args:
        data: The document, which is changed.
        file: The same, read.
        names: Of the wishes that go, as in `WISHES`.
    """
    image, docker = data.get("image") or {}, data.get("docker") or {}
    for key, commands in _commands(file):
        if commands:
            image[key] = [one.text for one in commands if not _goes(key, one, names)]
    for key in set(names) & _DOCKER & docker.keys():
        docker[key] = None
    if "distro" in names and docker:
        docker["distro"] = "debian"
    if image and ("base_image" in names or ("distro" in names and _wants_distro(file))):
        image["base_image"] = f"python:{file.python_version}-slim"
    if "conda" in names and data.get("conda"):
        data["conda"] = dict.fromkeys(data["conda"])


def _goes(key: str, command: Listed, names: Collection[str]) -> bool:
    installs = key == "commands" and bool(installed_by(command.text))
    return _wish_of(key, command) in names or (installs and "system_packages" in names)


def _wants_distro(file: BentoFile) -> bool:
    """Say whether an image of today is based on another distribution, by BentoML's choice."""
    return any(
        _wish_of(key, one) == "distro" for key, commands in _commands(file) for one in commands
    )


def _commands(file: BentoFile) -> tuple[tuple[str, tuple[Listed, ...]], ...]:
    return ("commands", file.commands), ("post_commands", file.post_commands)
