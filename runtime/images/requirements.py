"""Requirements lists: how they are read, and what the installer may be told by those of others.

uv follows ``-r`` to any file and quotes it in its errors, puts the builder's environment variables
into ``${NAME}``, and a bento's list goes into its image. So of a bento only plain, locked
requirements pass; a list of one's own may also name folders, accounts and variables.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from kfp_bento.runtime.errors import ImageError
from kfp_bento.runtime.storage import read_small_file

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
_COMMENT = re.compile(r"(?:^|\s)#.*")
_OUTSIDE = re.compile(r"(?:^|[\s@=])(?:(?:git\+)?file:|/|~/|(?:\S*/)?\.\.(?:/|\s|$))", re.I)


def check_requirements(file: Path) -> None:
    """Makes sure that a list is locked with hashes and asks for nothing but packages.

    Raises:
        ImageError: It cannot be read, a requirement has no hash, or a line includes another file,
            points out of the bento, holds credentials or names environment variables.
    """
    text = _read(file)
    for number, line in enumerate(text.splitlines(), start=1):
        for why, hint in _objections(_COMMENT.sub("", line).strip()):
            raise ImageError(f"Line {number} of the bento's requirements {why}.", hint=hint)
    for requirement in _joined(text):
        if not requirement.startswith("-") and "--hash=" not in requirement:
            raise ImageError(
                f"The bento's requirements are not locked with hashes: '{requirement}'.",
                hint="Build the bento with kfp-bento, or lock it with "
                "`uv pip compile --generate-hashes` into env/python/requirements.txt.",
            )


def requirement_lines(file: Path) -> Iterator[str]:
    """The lines of a list, continued ones joined, without comments and empty ones.

    Raises:
        ImageError: It cannot be read.
    """
    yield from _joined(_read(file))


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


def _objections(line: str) -> Iterator[tuple[str, str]]:
    """Why a line is refused; its text is not told, since it may hold a secret."""
    option = _OPTION.match(line)
    if option and option[1] not in _OPTIONS:
        yield f"has the option {option[1]}", _ONE_LIST
    if "${" in line:
        yield (
            "names an environment variable, which would be that of the builder",
            "Set UV_INDEX_URL where the image is built instead.",
        )
    if _CREDENTIALS.search(line):
        yield (
            "holds credentials, which would end in the image",
            "Take them out; give them to the builder in UV_INDEX_URL or a netrc file.",
        )
    if _OUTSIDE.search(line):
        yield (
            "points to a file outside the bento",
            "Put the wheel into the bento's wheels/ folder and write ./wheels/NAME.whl.",
        )


def _joined(text: str) -> Iterator[str]:
    """Lines with those that continue them; comments end where their line ends."""
    pending = ""
    for line in text.splitlines():
        plain = _COMMENT.sub("", line).strip()
        pending = f"{pending} {plain.removesuffix(chr(92)).strip()}".strip()
        if not plain.endswith("\\"):
            if pending:
                yield pending
            pending = ""
    if pending:
        yield pending
