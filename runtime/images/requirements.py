"""Requirements lists: how they are read, and what the installer may be told by those of others.

uv follows ``-r`` to any file and quotes it in its errors, puts the builder's environment variables
into ``${NAME}``, and a bento's list goes into its image. So of a bento only plain, locked
requirements pass; a list of one's own may also name folders, accounts and variables.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kfp_bento.runtime.errors import ImageError
from kfp_bento.runtime.files import read_small_file

_LIMIT = 16 << 20
_OPTIONS = {
    *("--hash", "--require-hashes", "--only-binary", "--no-binary", "--prefer-binary", "--pre"),
    *("-i", "--index-url", "--extra-index-url", "--no-index", "--trusted-host"),
}
_OWN_OPTIONS = {"-f", "--find-links"}
_OPTION = re.compile(r"(--[A-Za-z-]+|-.)[= ]*(.*)")
_ONE_LIST = "One list must hold all packages; local wheels go into the bento's wheels/ folder."
_CREDENTIALS = re.compile(
    r"://[^/\s]*@|[?&](?:access|key|password|secret|sig|token|x-amz-)[^=\s]*=", re.I
)
_VERSION_CONTROL = re.compile(r"(?:^|@\s*)(?:git|hg|svn|bzr)\+")
_SOURCE_SUFFIXES = (".tar.gz", ".tar.bz2", ".tar.xz", ".tgz", ".zip")
_SHOWN = 3
_WHEEL = "Build a wheel of it (`pip wheel --no-deps`), publish that, and require it by name."
LOCK = (
    "Build the bento with kfp-bento, or lock it with `uv pip compile --generate-hashes` into "
    "env/python/requirements.txt."
)
"""What to do about a list that is not locked."""

_COMMENT = re.compile(r"(?:^|\s)#.*")
_OUTSIDE = re.compile(r"(?:^|[\s@=])(?:(?:git\+)?file:|/|~/|(?:\S*/)?\.\.(?:/|\s|$))", re.I)


def objections(file: Path) -> Iterator[tuple[int, str, str]]:
    """What in a bento's list is no wheel that is locked with a hash.

    Yields:
        The number of the line, or 0; what is wrong with it; and a way out. What may hold a secret
        is not quoted.

    Raises:
        ImageError: It cannot be read.
    """
    unlocked = []
    for requirement in _joined(_read(file)):
        number, text = requirement.number, requirement.text
        refused = [*_no_wheel(text), *_dangers(requirement)]
        if refused:
            yield number, *refused[0]
        elif not text.startswith("-") and "--hash=" not in text:
            what = f"the requirements are not locked with hashes: {_quoted(text)}"
            unlocked.append((number, what, LOCK))
    yield from unlocked[:_SHOWN]
    if (more := len(unlocked) - _SHOWN) > 0:
        yield 0, f"{more} more requirements are not locked with hashes", LOCK


def requirement_lines(file: Path) -> Iterator[str]:
    """The lines of a list, continued ones joined, without comments and empty ones.

    Raises:
        ImageError: It cannot be read.
    """
    for line in _joined(_read(file)):
        yield line.text


def option_in(line: str) -> tuple[str, str] | None:
    """The option that a line is, and its value; None for a requirement.

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
    elif _VERSION_CONTROL.search(target):
        yield f"{_quoted(text)} comes from version control, not as a wheel", _WHEEL
    elif target.endswith(_SOURCE_SUFFIXES) or (
        target.startswith((".", "/")) and not target.endswith(".whl")
    ):
        yield f"{_quoted(text)} is a source distribution, which would have to be built", _WHEEL


def _quoted(text: str) -> str:
    if _CREDENTIALS.search(text) or "${" in text:
        return "a requirement"
    return f"'{text.partition(' --hash')[0].strip()}'"


def _dangers(requirement: _Line) -> Iterator[tuple[str, str]]:
    """Why a line is refused, whole or as it was continued."""
    for line in (*requirement.pieces, requirement.text):
        option = _OPTION.match(line)
        if option and option[1] not in _OPTIONS:
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
    """The lines that are not empty; comments end where their line ends."""
    held: list[str] = []
    for number, line in enumerate((*text.splitlines(), ""), start=1):
        plain = _COMMENT.sub("", line).strip()
        held.append(plain.removesuffix("\\").strip())
        if plain.endswith("\\"):
            continue
        found = _Line(number - len(held) + 1, tuple(held))
        if found.text:
            yield found
        held = []
