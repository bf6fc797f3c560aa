"""Requirements lists with a hash for everything: what they ask for, and what they allow."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import re
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from kfp_bento.runtime.errors import ImageError
from kfp_bento.runtime.files import file_sha256
from kfp_bento.runtime.images.python.requirements import (
    installer_line,
    option_in,
    requirement_lines,
    says_where,
)
from kfp_bento.runtime.requirements import SOURCE_SUFFIXES, VERSION_CONTROL

_HASH = re.compile(r"\s--hash[= ](\w+):([0-9a-fA-F]+)")


@dataclass(frozen=True)
class Lock:
    """A hash-locked requirements list.

    Attributes:
        file: The requirements file.
        folder: Where relative paths in it start.
        python: Minor version of the interpreter that will import the packages: `3.11`.
        own: Whether it is a list of the user's own, who may name accounts and variables in it.
    """

    file: Path
    folder: Path
    python: str
    own: bool = True

    @property
    def digest(self) -> str:
        """What the environment follows from: the list, and the local wheels it points to."""
        digest = hashlib.sha256(self.file.read_bytes())
        for wheel in sorted(self.folder.glob("wheels/*")):
            digest.update(f"\0{wheel.name}\0".encode())
            digest.update(bytes.fromhex(file_sha256(wheel)))
        return digest.hexdigest()

    def lines(self) -> Iterator[str]:
        """Its lines, continued ones joined, without comments and empty ones.

        Raises:
            ImageError: It cannot be read.
        """
        return iter(self._lines)

    @functools.cached_property
    def _lines(self) -> tuple[str, ...]:
        """The lines, read once: every layer's installation asks for them."""
        return tuple(requirement_lines(self.file))

    def options(self) -> Iterator[str]:
        """Its options that say where packages are, with paths made absolute.

        No other counts: one of the list would win over ours, and have code built and run.

        Raises:
            ImageError: It includes another file, or has another option that no list may have.
        """
        for line in self.lines():
            found = option_in(line)
            if found is None:
                continue
            option, value = found
            if not says_where(option, own=self.own):
                continue
            if option in {"-f", "--find-links"} and "://" not in value:
                value = str((self.file.parent / value).absolute())
            yield f"{option} {value}".rstrip()


def installer_lines(lock: Lock) -> Iterator[str]:
    """Give the lock as uv gets it."""
    yield from lock.options()
    for line in lock.lines():
        if not line.startswith("-"):
            yield installer_line(line, lock.folder)


def locked_hashes(lock: Lock) -> dict[str, frozenset[str]]:
    """Give the SHA-256 of every file that the lock allows, by normalised name."""
    hashes: dict[str, frozenset[str]] = {}
    for line in lock.lines():
        if line.startswith("-"):
            continue
        name = required_name(requirement_in(line))
        found = {value.lower() for kind, value in _HASH.findall(line) if kind == "sha256"}
        if not found:
            raise ImageError(
                f"The lock gives no SHA-256 for '{name}'.",
                hint="Lock with `uv pip compile --generate-hashes`.",
            )
        hashes[name] = hashes.get(name, frozenset()) | found
    return hashes


def locked_names(file: Path) -> frozenset[str]:
    """Give the normalised names of what a list requires; lines that are no requirement count not.

    Raises:
        ImageError: The list cannot be read.
    """
    names = set()
    for line in requirement_lines(file):
        if not line.startswith("-"):
            with contextlib.suppress(ImageError):
                names.add(required_name(requirement_in(line)))
    return frozenset(names)


def requirement_in(line: str) -> str:
    """Give the requirement in a line of a lock, without its hashes."""
    return re.split(r"\s--", line, maxsplit=1)[0].strip()


def required_name(text: str) -> str:
    """Give the normalised name in one requirement, which must be one that wheels can meet."""
    place = re.split(r"\s;", text, maxsplit=1)[0].strip()
    if VERSION_CONTROL.search(place):
        raise ImageError(
            f"The lock takes a requirement from version control: '{place}'.",
            hint="Build a wheel of it (`uv build --wheel`) and add the bento again with that "
            "file, or publish it to your package index.",
        )
    if "@" in place or not (place.endswith((".whl", *SOURCE_SUFFIXES)) or "/" in place):
        try:
            requirement = Requirement(text)
        except InvalidRequirement as error:
            raise ImageError(f"The lock holds '{text}', which is no requirement.") from error
        if not requirement.url:
            return canonicalize_name(requirement.name)
        place = requirement.url
    filename = filename_in(place)
    try:
        return parse_wheel_filename(filename)[0]
    except InvalidWheelFilename as error:
        raise not_a_wheel(filename) from error


def not_a_wheel(what: str) -> ImageError:
    """Say that a lock needs something that would have to be built."""
    return ImageError(
        f"The lock needs {what}, which is no wheel: nothing is built or run while an image is "
        "assembled.",
        hint="Build a wheel of it once (`uv build --wheel`, or `pip wheel --no-deps`) and build "
        "the bento with that file, or publish it to your package index.",
    )


def filename_in(address: str) -> str:
    """Give the file name at the end of an address or path."""
    path = urllib.parse.urlsplit(re.sub(r"\[[^\]]*\]$", "", address)).path
    return urllib.parse.unquote(path).rpartition("/")[2]
