"""Requirement lines: each one a requirement (PEP 508) with or without hashes, or refused.

Models, bentos and users bring lines; installers read more into a line than a requirement: other
files, folders whose code is run, variables of the environment, servers that are sent accounts. So
a line is read here first, and what the installer gets is written anew from what was read.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

from kfp_bento.runtime.programs import cleaned, configured_indexes
from kfp_bento.runtime.requirements.addresses import (
    NAMES_ONLY,
    Address,
    AllowedSources,
    Repository,
    parse_address,
    parse_repository,
)

if TYPE_CHECKING:
    from kfp_bento.runtime.errors import KfpBentoError

INDEX_OPTIONS = ("-i", "--index-url", "--extra-index-url", "-f", "--find-links")
SEPARATORS = re.compile(r"\r\n|\r|\n")
"""What ends a line of a requirements file, for uv and here; Python knows more line ends."""

VERSION_CONTROL = re.compile(r"(?:^|@\s*)(?:git|hg|svn|bzr)\+", re.I)
"""A requirement that is to be cloned."""

SOURCE_SUFFIXES = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar", ".zip")
"""How files of source distributions end."""

_ARCHIVES = (".whl", ".egg", *SOURCE_SUFFIXES)

_LONGEST = 4000
_MOST = 20_000
_COMMENT = re.compile(r"(?:^|[ \t])#.*")
_HASH = re.compile(r"[ \t]--hash(?:=|[ \t]+)([a-z0-9]{3,8}:[0-9a-fA-F]{32,128})(?=[ \t]|$)")
_OPTION = re.compile(r"(--[A-Za-z-]+|-[A-Za-z])[= \t]*(.*)")
_QUOTED = re.compile(r"'[^'\"]*'|\"[^'\"]*\"")
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_SECRET = re.compile(r"(?<=://)[^/@\s]*@|(?<=\?)\S+")
# What they ask for is so anyway, or concerns pip alone, or is the user's to set (UV_PRERELEASE,
# UV_INSECURE_HOST).
_IDLE_OPTIONS = {
    *("--require-hashes", "--prefer-binary", "--pre", "--trusted-host", "--no-cache-dir"),
}
_CONSTRAINTS = ("-c", "--constraint")
_PUBLISH = "Build a wheel of it (`pip wheel --no-deps`), publish that, and require it by name."
PUBLISH_INSTEAD = f"Or b{_PUBLISH[1:]}"
_NO_ACCOUNT = "Take it out there; accounts belong into a netrc file where the bento is built."
_PLAIN = "Requirements are names and versions, such as scikit-learn>=1.5; see PEP 508."


@dataclass(frozen=True)
class Line:
    """One requirement.

    Attributes:
        text: As it was written, without comment and hashes.
        requirement: What it says.
        hashes: Such as `sha256:…`; one of them must be the file's.
        wheel: Where the wheel is that it names, if it names one.
        repository: The repository that it names, if it names one.
    """

    text: str
    requirement: Requirement
    hashes: tuple[str, ...] = ()
    wheel: Address | None = None
    repository: Repository | None = None


@dataclass(frozen=True)
class Reading:
    """What somebody's lines ask for.

    Attributes:
        lines: The requirements, in their order.
        indexes: Further indexes, all of them allowed.
        pages: Pages that link to wheels (`--find-links`), likewise.
        constraints: Names of the constraints files that were included.
    """

    lines: tuple[Line, ...] = ()
    indexes: tuple[str, ...] = ()
    pages: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()


class _RefusedError(ValueError):
    """A line that may not be.

    Args:
        what: What is wrong, as the end of "The requirement … of the model ".
        way_out: What to do.
    """

    def __init__(self, what: str, way_out: str) -> None:
        super().__init__(what)
        self.what = what
        self.way_out = way_out


def read_requirements(
    lines: Iterable[str],
    *,
    whose: str,
    error: type[KfpBentoError],
    sources: AllowedSources = NAMES_ONLY,
    constraints: str = "",
) -> Reading:
    """Read requirement lines.

    Args:
        lines: Lines of a requirements or constraints file, or single requirements.
        whose: Who wrote them, for errors: "the model credit".
        error: What to raise.
        sources: What they may name besides names and versions.
        constraints: The one file that they may include as constraints; "" for none. Others read
            it, by this function.

    Raises:
        error: A line is no requirement, or asks for something that is not allowed. It is named,
            without what may be secret in it; included files are never read, so never quoted.
    """
    found: list[Line] = []
    options: list[tuple[str, str]] = []
    for number, text in enumerate(joined_lines(lines)):
        try:
            if number > _MOST:
                raise _RefusedError(f"is one of more than {_MOST}", _PLAIN)
            _check_text(text)
            if text.startswith("-"):
                options += _option(text, sources, constraints)
            else:
                found.append(_line(text, sources))
        except _RefusedError as refused:
            raise error(
                f"The requirement '{shown(text)}' of {whose} {refused.what}.", hint=refused.way_out
            ) from None
    return Reading(
        lines=tuple(found),
        indexes=tuple(value for kind, value in options if kind == "index"),
        pages=tuple(value for kind, value in options if kind == "page"),
        constraints=tuple(value for kind, value in options if kind == "constraints"),
    )


def joined_lines(lines: Iterable[str]) -> Iterator[str]:
    """Give lines with those that continue them, without comments and empty ones."""
    held: list[str] = []
    for line in (*lines, ""):
        plain = _COMMENT.sub("", line).strip(" \t\r\n")
        held.append(plain.removesuffix("\\").strip(" \t"))
        if plain.endswith("\\"):
            continue
        if text := " ".join(held).strip(" "):
            yield text
        held = []
    if text := " ".join(held).strip(" "):
        yield text


def parse_requirement(text: str, *, variables: bool = False) -> tuple[Requirement, tuple[str, ...]]:
    """Give the requirement in a line, and its hashes.

    Args:
        text: The line.
        variables: Whether it may name variables of the environment (`${NAME}`).

    Raises:
        ValueError: The line is nothing else than that, or can be read in more than one way.
    """
    _check_text(text, variables=variables)
    hashes = tuple(match[1].lower() for match in _HASH.finditer(text))
    plain = _HASH.sub("", text).strip(" \t")
    try:
        requirement = Requirement(plain)
        again = Requirement(str(requirement))
    except (ValueError, RecursionError):
        raise ValueError("it is no requirement") from None
    if again != requirement or set(_QUOTED.sub("", plain)) & set("'\""):
        raise ValueError("it can be read in more than one way")
    return requirement, hashes


def rendered(line: str | Line, *, variables: bool = False) -> str:
    """Give a line as the installer gets it: written from what was read.

    Args:
        line: The line, or its text.
        variables: As for `parse_requirement`.

    Raises:
        ValueError: As `parse_requirement` says.
    """
    if isinstance(line, Line):
        requirement, hashes = line.requirement, line.hashes
    else:
        requirement, hashes = parse_requirement(line, variables=variables)
    return " ".join([str(requirement), *(f"--hash={value}" for value in hashes)])


def distribution_name(line: str) -> str:
    """Give the normalised name that a requirement begins with; "" where it begins with none."""
    match = _NAME.match(line.strip())
    return canonicalize_name(match[0]) if match else ""


def shown(text: str) -> str:
    """Give a line as it may be shown: short, printable, without accounts and queries."""
    plain = " ".join(cleaned(_SECRET.sub("***", _HASH.sub("", text))).split())
    return f"{plain[:157]}…" if len(plain) > 160 else plain


def _check_text(text: str, *, variables: bool = False) -> None:
    if len(_HASH.sub("", text)) > _LONGEST:
        raise _RefusedError("is too long", _PLAIN)
    if not all(" " <= letter <= "~" or letter == "\t" for letter in text):
        raise _RefusedError("has line breaks or letters that no requirement has", _PLAIN)
    if "${" in text and not variables:
        raise _RefusedError(
            "names a variable of the environment, which would be read on this machine",
            "Accounts for an index belong into a netrc file or UV_INDEX where the bento is built.",
        )


def _line(text: str, sources: AllowedSources) -> Line:
    _check_place(text)
    try:
        requirement, hashes = parse_requirement(text)
    except _RefusedError:
        raise
    except ValueError as reason:
        raise _RefusedError(f"cannot be used: {reason}", _PLAIN) from None
    plain = _HASH.sub("", text).strip(" \t")
    url = requirement.url or ""
    if url.startswith("git+"):
        return Line(plain, requirement, hashes, repository=_repository(url, sources))
    return Line(plain, requirement, hashes, _wheel(requirement, sources) if url else None)


def _check_place(text: str) -> None:
    """Name what is no requirement by what it is."""
    first = text.partition(";")[0].partition(" --")[0].strip()
    target = first.partition("@")[2].strip() if "@" in first else first
    if (found := VERSION_CONTROL.search(first)) and found[0].lstrip("@ \t") != "git+":
        raise _RefusedError("comes from version control, so its code would be run here", _PUBLISH)
    if re.match(r"file:", target, re.I) or (
        "://" not in first
        and (first[:1] in "./~\\" or re.match(r"[A-Za-z]:[\\/]", first) or "\\" in first)
    ):
        raise _RefusedError("names a local file, which cannot be locked", _PUBLISH)
    if "://" not in first and first.lower().endswith(_ARCHIVES):
        raise _RefusedError("names a local file, which cannot be locked", _PUBLISH)
    if re.match(r"[a-z][a-z0-9+.-]*://", first, re.I):
        raise _RefusedError(
            "is an address without the name of its package", "Write it as NAME @ https://…"
        )


def _repository(url: str, sources: AllowedSources) -> Repository:
    try:
        repository = parse_repository(url)
    except ValueError as reason:
        raise _RefusedError(
            f"comes from version control, and {reason}",
            "Write it as NAME @ git+https://host/path@COMMIT, with all 40 digits of the commit "
            f"(git ls-remote shows them). {PUBLISH_INSTEAD}",
        ) from None
    if repository.address.has_account:
        raise _RefusedError("has an account in its address", _NO_ACCOUNT)
    if sources.repositories or sources.allows(repository.address):
        return repository
    raise _RefusedError(
        "comes from version control, so its code would be run here",
        _allow(repository.address.text, "Where you trust it, allow it; it is built without network")
        + f" {PUBLISH_INSTEAD}",
    )


def _wheel(requirement: Requirement, sources: AllowedSources) -> Address:
    address = _address(str(requirement.url))
    name = address.path[-1] if address.path else ""
    if not name.endswith(".whl"):
        raise _RefusedError("names an archive that would have to be built here", _PUBLISH)
    try:
        package = parse_wheel_filename(name)[0]
    except ValueError:
        package = canonicalize_name("")
    if package != canonicalize_name(requirement.name):
        raise _RefusedError("names a wheel of another package", _PLAIN)
    if sources.allows(address) or address.scheme in sources.wheels:
        return address
    raise _RefusedError(
        f"is to be fetched from {address.text}, which is not allowed",
        _allow(address.text, "Require it by name, or allow that wheel"),
    )


def _address(text: str) -> Address:
    try:
        address = parse_address(text)
    except ValueError as reason:
        raise _RefusedError(
            f"has an address that cannot be used: {reason}", "Write it as https://host/path."
        ) from None
    if address.has_account:
        raise _RefusedError("has an account in its address", _NO_ACCOUNT)
    return address


def _option(text: str, sources: AllowedSources, constraints: str) -> Sequence[tuple[str, str]]:
    match = _OPTION.fullmatch(text)
    name, value = (match[1], match[2].strip()) if match else (text, "")
    if name in _CONSTRAINTS and constraints and value.removeprefix("./") == constraints:
        return [("constraints", constraints)]
    if name in _IDLE_OPTIONS or (name, value) == ("--only-binary", ":all:"):
        return []
    if name in ("-e", "--editable"):
        raise _RefusedError("is editable: its code would be run here", _PUBLISH)
    if name not in INDEX_OPTIONS:
        raise _RefusedError(
            f"is the option {name}, which is not taken from there",
            "Write the requirements themselves, one a line.",
        )
    return _index(name, value, sources)


def _index(name: str, value: str, sources: AllowedSources) -> Sequence[tuple[str, str]]:
    kind = "page" if name in ("-f", "--find-links") else "index"
    try:
        address = parse_address(value)
    except ValueError as reason:
        raise _RefusedError(f"names an index that cannot be used: {reason}", _configure()) from None
    if address in _configured():
        return []
    if sources.indexes and not address.has_account:
        return [(kind, address.text)]
    if sources.indexes:
        raise _RefusedError("has an account in its address", _configure())
    if sources.allows(address):
        # An account that came with the model is nobody's to use; netrc has the user's own.
        return [(kind, address.text)]
    raise _RefusedError(
        f"asks for a package index of its own, {address.text}, which is not allowed",
        _allow(address.text, "Where you trust it, allow it")
        + (f" {_configure()}" if address.has_account else ""),
    )


def _configured() -> Iterator[Address]:
    for text in configured_indexes():
        with contextlib.suppress(ValueError):
            yield parse_address(text)


def _allow(address: str, doing: str) -> str:
    return (
        f"{doing}: --allow-source {address} (in pipelines and in Python allow_sources={[address]})."
    )


def _configure() -> str:
    return (
        "Name indexes in UV_INDEX where the bento is built, and accounts there or in a netrc file."
    )
