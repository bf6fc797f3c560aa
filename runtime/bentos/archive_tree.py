"""What an archive may put on the disk, whoever made it: decided name by name."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable
from pathlib import Path

from kfp_bento.runtime.errors import BentoError, plain_text

MOST_MEMBERS = 100_000
# Of what an archive unpacks to: its own size this many times, or at least so much.
RATIO = 200
SMALL = 256 << 20
_LONGEST_PATH, _LONGEST_NAME, _DEEPEST = 1024, 255, 64
_SHOWN = 120


def refused(what: str, why: str) -> BentoError:
    """Give what to raise for an archive that is not to be unpacked."""
    shown = what if len(what) <= _SHOWN else f"{what[:_SHOWN]}…"
    return BentoError(
        f"The archive is refused: {plain_text(shown)!a} {why}.",
        hint="Do not use it unless you know who made it; pack it again, a bento with "
        "`bentoml export` or `kfp-bento bento export`.",
    )


class Allowance:
    """Bytes that may still come out of an archive.

    Args:
        packed: Size of the archive.
        free: Bytes that are free on the disk.
    """

    def __init__(self, packed: int, free: int) -> None:
        self._ratio = max(RATIO * packed, SMALL)
        self.left = min(self._ratio, free)

    def take(self, size: int, what: str) -> None:
        """Take bytes away.

        Raises:
            BentoError: More come out than may.
        """
        self.left -= size
        if self.left < 0:
            raise refused(
                what, f"unpacks to more than the disk takes or {self._ratio} bytes, which is absurd"
            )


class Tree:
    """A new directory that an archive fills: no name twice, none outside, no way through a link.

    Args:
        root: An empty directory of our own.
        allowance: Bytes that may be written.
    """

    def __init__(self, root: Path, allowance: Allowance) -> None:
        self._root = root
        self.allowance = allowance
        self._kinds: dict[str, str] = {}
        self._links: dict[str, str] = {}
        self._members = 0

    def folder(self, name: str) -> None:
        """Make a folder; one may be named again."""
        path = self._inside(name.rstrip("/"))
        if not path:
            return
        if self._kinds.get(path, "folder") != "folder":
            raise refused(name, "is in it twice")
        self._parents(f"{path}/x", name)

    def file(self, name: str, pieces: Iterable[bytes], size: int, mode: int) -> None:
        """Write a file, executable where it was.

        Raises:
            BentoError: Its name or size is none that may be.
        """
        path = self._new(name)
        if not 0 <= size <= self.allowance.left:
            raise refused(name, f"claims a size of {size} bytes, which is absurd")
        self._kinds[path] = "file"
        with (self._root / path).open("xb") as target:
            for piece in pieces:
                target.write(piece)
            if mode & 0o100:
                status = os.fstat(target.fileno()).st_mode
                os.fchmod(target.fileno(), status & 0o777 | (status & 0o444) >> 2)

    def link(self, name: str, target: str) -> None:
        """Keep a symlink for the end, when nothing can be written through it any more."""
        path = self._new(name)
        self._kinds[path] = "link"
        self._links[path] = target

    def finish(self) -> None:
        """Make the symlinks, each to a file of the archive.

        Raises:
            BentoError: One leads elsewhere.
        """
        for path, target in self._links.items():
            reached = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
            if posixpath.isabs(target) or reached.split("/")[0] == "..":
                raise refused(path, "is a link that leaves it")
            if self._kinds.get(reached) != "file":
                raise refused(path, "is a link to what is no file in it")
        for path, target in self._links.items():
            (self._root / path).symlink_to(target)

    def _new(self, name: str) -> str:
        path = self._inside(name)
        if not path:
            raise refused(name, "is no name of a file")
        if path in self._kinds:
            raise refused(name, "is in it twice")
        self._parents(path, name)
        return path

    def _parents(self, path: str, name: str) -> None:
        """Make the folders above a path, none of which may be anything else."""
        parts = path.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            above = "/".join(parts[:depth])
            kind = self._kinds.get(above)
            if kind is None:
                (self._root / above).mkdir()
                self._kinds[above] = "folder"
            elif kind != "folder":
                raise refused(name, f"goes through a {kind}")

    def _inside(self, name: str) -> str:
        """Give the name as a path below the root, "" for the root itself."""
        self._members += 1
        if self._members > MOST_MEMBERS:
            raise refused(name, f"is one of more than {MOST_MEMBERS} entries")
        path = name.removeprefix("./") if name not in (".", "./") else ""
        try:
            raw = path.encode()
        except UnicodeEncodeError:
            raise refused(name, "is a name that is no UTF-8") from None
        if plain_text(path) != path or any(letter in path for letter in "\n\t\\"):
            raise refused(name, "is a name with control characters or backslashes")
        parts = path.split("/")
        if path and any(part in ("", ".", "..") for part in parts):
            raise refused(name, "leaves the directory or is no plain path")
        longest = max(len(part.encode()) for part in parts)
        if len(raw) > _LONGEST_PATH or longest > _LONGEST_NAME or len(parts) > _DEEPEST:
            raise refused(name, "is a name too long or nested too deeply")
        return path
