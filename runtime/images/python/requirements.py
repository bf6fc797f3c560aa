"""Requirements lists: how they are read, and what the installer may be told by those of others.

uv follows `-r` to any file and quotes it in its errors, puts the builder's environment variables
into `${NAME}`, and a bento's list goes into its image. So of a bento only plain, locked
requirements pass; a list of one's own may also name folders, accounts and variables. In both cases
uv gets a list that is written anew from what was read here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from kfp_bento.runtime.errors import ImageError
from kfp_bento.runtime.files import read_small_file
from kfp_bento.runtime.requirements import (
    SEPARATORS,
    SOURCE_SUFFIXES,
    VERSION_CONTROL,
    parse_requirement,
    rendered,
)

_LIMIT = 16 << 20
_OPTIONS = {
    *("--hash", "--require-hashes", "--only-binary", "--no-binary", "--prefer-binary", "--pre"),
    *("-i", "--index-url", "--extra-index-url", "--no-index", "--trusted-host"),
}
_OWN_OPTIONS = {"-f", "--find-links"}
_ABOUT_INDEXES = {"-i", "--index-url", "--extra-index-url", "--no-index", *_OWN_OPTIONS}
_OPTION = re.compile(r"(--[A-Za-z-]+|-.)[= ]*(.*)")
_ONE_LIST = "One list must hold all packages; local wheels go into the bento's wheels/ folder."
_CREDENTIALS = re.compile(
    r"://[^/\s]*@|[?&](?:access|key|password|secret|sig|token|x-amz-)[^=\s]*=", re.I
)
_WHEEL_FILE = re.compile(r"([^@\s]+\.whl)(?:\[[^\]\s]*\])?")
_SERVER = re.compile(r"https?://[^\s#;]+", re.I)
_NOT_HTTPS = re.compile(r"(?<![A-Za-z0-9+.-])(?!https:)[A-Za-z][A-Za-z0-9+.-]*://", re.I)
_VARIABLE = re.compile(r"\$\{([A-Z0-9_]+)\}")
_SHOWN = 3
_WHEEL = "Build a wheel of it (`pip wheel --no-deps`), publish that, and require it by name."
LOCK = (
    "Take the bento in with `kfp-bento bento import`, which locks env/python/requirements.txt with "
    "hashes."
)
"""What to do about a list that is not locked."""

_COMMENT = re.compile(r"(?:^|\s)#.*")
_OUTSIDE = re.compile(r"(?:^|[\s@=])(?:(?:git\+)?file:|/|~/|(?:\S*/)?\.\.(?:/|\s|$))", re.I)


def objections(file: Path) -> Iterator[tuple[int, str, str]]:
    """Give what in a bento's list is no wheel that is locked with a hash.

    Yields:
        The number of the line, or 0; what is wrong with it; and a way out. What may hold a secret
        is not quoted.

    Raises:
        ImageError: It cannot be read.
    """
    unlocked = []
    for requirement in _joined(_read(file)):
        number, text = requirement.number, requirement.text
        refused = [*_no_wheel(text), *_dangers(requirement), *_no_requirement(text)]
        if refused:
            yield number, *refused[0]
        elif not text.startswith("-") and "--hash=" not in text:
            what = f"the requirements are not locked with hashes: {_quoted(text)}"
            unlocked.append((number, what, LOCK))
    yield from unlocked[:_SHOWN]
    if (more := len(unlocked) - _SHOWN) > 0:
        yield 0, f"{more} more requirements are not locked with hashes", LOCK


def requirement_lines(file: Path) -> Iterator[str]:
    """Give the lines of a list, continued ones joined, without comments and empty ones.

    Raises:
        ImageError: It cannot be read.
    """
    for line in _joined(_read(file)):
        yield line.text


def installer_line(line: str, folder: Path) -> str:
    """Give a requirement of a list as uv gets it, written anew.

    Args:
        line: The requirement, continued lines joined.
        folder: Where relative paths start.

    Raises:
        ImageError: It is no requirement.
    """
    try:
        return rendered(_named(line, folder), variables=True)
    except ValueError as reason:
        raise ImageError(
            f"The lock holds {_quoted(line)}, which is no requirement: {reason}.", hint=LOCK
        ) from None


def addresses_in(line: str) -> list[str]:
    """Give the addresses of servers in a line."""
    return _SERVER.findall(line)


def variables_in(line: str) -> list[str]:
    """Give the names of the environment's variables that a line wants filled in."""
    return _VARIABLE.findall(line)


def says_where(option: str, *, own: bool) -> bool:
    """Tell whether an option says where packages are; the others are decided without the list.

    Args:
        option: Its name.
        own: Whether it is in a list of the user's own, who may also trust a host without TLS.
    """
    return option in _ABOUT_INDEXES or (own and option == "--trusted-host")


def option_in(line: str) -> tuple[str, str] | None:
    """Give the option that a line is, and its value; None for a requirement.

    Raises:
        ImageError: It is none that a list may have: it includes another one, for example.
    """
    option = _OPTION.match(line)
    if option is None:
        return None
    if option[1] not in _OPTIONS | _OWN_OPTIONS:
        raise ImageError(f"The lock has the option {option[1]}.", hint=_ONE_LIST)
    return option[1], option[2]


def _read(file: Path) -> str:
    try:
        return read_small_file(file, _LIMIT).decode()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ImageError(f"The requirements in {file} cannot be read: {reason}.") from None


def _no_wheel(text: str) -> Iterator[tuple[str, str]]:
    """Why there is no wheel of a requirement."""
    target = text.partition(" --hash")[0].partition(" ;")[0].partition("#")[0].strip()
    if re.match(r"(-e|--editable)\b", text):
        yield f"{_quoted(text)} is editable, so there is no wheel of it", _WHEEL
    elif text.startswith("-"):
        return
    elif VERSION_CONTROL.search(target):
        yield f"{_quoted(text)} comes from version control, not as a wheel", _WHEEL
    elif target.endswith(SOURCE_SUFFIXES) or (
        target.startswith((".", "/")) and not target.endswith(".whl")
    ):
        yield f"{_quoted(text)} is a source distribution, which would have to be built", _WHEEL


def _no_requirement(text: str) -> Iterator[tuple[str, str]]:
    """Why a line is none that every installer reads alike."""
    if text.startswith("-"):
        return
    try:
        named = _named(text, Path("/"))
        requirement, _ = parse_requirement(named)
        if requirement.url and named == text and not requirement.url.startswith("https://"):
            raise ValueError("it names a place that is no https address")
    except ValueError as reason:
        yield f"{_quoted(text)} cannot be used: {reason}", LOCK


def _named(line: str, folder: Path) -> str:
    """Give a requirement by name: that of a wheel's file is in the file's name.

    Raises:
        ValueError: The file is no wheel.
    """
    place, space, rest = line.partition(" ")
    match = _WHEEL_FILE.fullmatch(place)
    if match is None or "://" in place:
        return line
    file = match[1]
    try:
        name = parse_wheel_filename(file.rpartition("/")[2])[0]
    except InvalidWheelFilename:
        raise ValueError("it is no wheel") from None
    return f"{name} @ {(folder.absolute() / file).as_uri()}{space}{rest}"


def _quoted(text: str) -> str:
    if _CREDENTIALS.search(text) or "${" in text:
        return "a requirement"
    return f"'{text.partition(' --hash')[0].strip()}'"


def _dangers(requirement: _Line) -> Iterator[tuple[str, str]]:
    """Why a line is refused, whole or as it was continued."""
    for line in (*requirement.pieces, requirement.text):
        option = _OPTION.match(line)
        page = option and option[1] in _OWN_OPTIONS and option[2].startswith("https://")
        if option and option[1] not in _OPTIONS and not page:
            yield f"it has the option {option[1]}", _ONE_LIST
        if "${" in line:
            yield (
                "it names an environment variable, which would be that of the builder",
                "Set UV_INDEX_URL where the image is built instead.",
            )
        if _CREDENTIALS.search(line):
            yield (
                "it holds credentials, which would end in the image",
                "Take them out; give them to the builder in UV_INDEX_URL or a netrc file.",
            )
        if _OUTSIDE.search(line):
            yield (
                "it points to a file outside the bento",
                "Put the wheel into the bento's wheels/ folder and write ./wheels/NAME.whl.",
            )
        if _NOT_HTTPS.search(line) and not VERSION_CONTROL.search(line):
            yield (
                "it names an address that is not https",
                "Use https, or name the index in UV_INDEX where the image is built.",
            )


@dataclass(frozen=True)
class _Line:
    """A line with those that continue it.

    Attributes:
        number: Of the first, counted from one.
        pieces: Each of them, without comments and backslashes.
    """

    number: int
    pieces: tuple[str, ...]

    @property
    def text(self) -> str:
        return " ".join(self.pieces).strip()


def _joined(text: str) -> Iterator[_Line]:
    """Give the lines that are not empty; comments end where their line ends."""
    held: list[str] = []
    for number, line in enumerate((*SEPARATORS.split(text), ""), start=1):
        plain = _COMMENT.sub("", line).strip()
        held.append(plain.removesuffix("\\").strip())
        if plain.endswith("\\"):
            continue
        found = _Line(number - len(held) + 1, tuple(held))
        if found.text:
            yield found
        held = []
