"""Where the members of a tar file lie, so that they can be read without unpacking anything.

The file may come from anywhere: what leaves the archive, is there twice, is no plain file or
does not fit into the file is refused.
"""

from __future__ import annotations

import posixpath
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from kfp_bento.runtime.errors import ImageError
from kfp_bento.runtime.files import open_plain_file
from kfp_bento.runtime.images.oci.image import one_line
from kfp_bento.runtime.images.oci.tar import CHUNK

# An archive has a few entries for each of at most 127 layers.
_MEMBERS = 10_000
_LINKS = 8
_HEADER_LIMIT = 64 << 10
_HEADERS_LIMIT = 32 << 20


@dataclass(frozen=True)
class FileRange:
    """A piece of a file, in bytes."""

    file: Path
    offset: int
    size: int

    def read(self) -> Iterator[bytes]:
        """Yield the piece in chunks.

        Raises:
            ImageError: The file cannot be read, or has become shorter.
        """
        left = self.size
        try:
            with self.file.open("rb") as file:
                file.seek(self.offset)
                while left and (chunk := file.read(min(left, CHUNK))):
                    left -= len(chunk)
                    yield chunk
        except OSError as error:
            raise ImageError(f"{self.file} cannot be read: {error.strerror}.") from error
        if left:
            raise ImageError(f"{self.file} ended while it was being read.")


class TarIndex:
    """The plain files of a tar file by name, links among them followed.

    Args:
        file: An uncompressed tar file; only its headers are read.

    Raises:
        ImageError: It is no tar file, or one that is refused.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._found: dict[str, FileRange | str] = {}
        try:
            with open_plain_file(file) as stream:
                end = stream.seek(0, 2)
                stream.seek(0)
                for member in _members(stream, file):
                    self._add(member, end)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else ""
            raise ImageError(f"{file} cannot be read: {reason or error}.") from error

    def __contains__(self, name: str) -> bool:
        return name in self._found

    def find(self, name: str) -> FileRange:
        """Where the file with this name lies.

        Raises:
            ImageError: There is no such member, or its links go in a circle.
        """
        target: FileRange | str | None = _inside(self.file, name)
        for _ in range(_LINKS):
            if not isinstance(target, str):
                break
            target = self._found.get(target)
        if isinstance(target, FileRange):
            return target
        why = "links that go in a circle at" if isinstance(target, str) else "no"
        raise _refused(self.file, f"it has {why} '{name}'")

    def _add(self, member: tarfile.TarInfo, end: int) -> None:
        name = _inside(self.file, member.name)
        if member.isdir():
            return
        if name in self._found:
            raise _refused(self.file, f"it has '{name}' twice")
        if member.issym():
            folder = posixpath.dirname(name)
            self._found[name] = _inside(self.file, posixpath.join(folder, member.linkname))
        elif member.islnk():
            self._found[name] = _inside(self.file, member.linkname)
        elif member.isreg() and not member.issparse():
            if member.offset_data + member.size > end:
                raise _refused(self.file, f"'{name}' is longer than the file: it was cut short")
            self._found[name] = FileRange(self.file, member.offset_data, member.size)
        else:
            raise _refused(self.file, f"'{name}' is neither file, directory nor link")


class _Headers:
    """The file as `tarfile` sees it: it gets headers, but nobody's gigabytes of them."""

    def __init__(self, stream: BinaryIO, file: Path) -> None:
        self._stream = stream
        self._file = file
        self._left = _HEADERS_LIMIT

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= min(_HEADER_LIMIT, self._left):
            raise _refused(self._file, "a header in it has an absurd size")
        self._left -= size
        return self._stream.read(size)

    def seek(self, offset: int) -> int:
        return self._stream.seek(offset)

    def tell(self) -> int:
        return self._stream.tell()


def _members(stream: BinaryIO, file: Path) -> Iterator[tarfile.TarInfo]:
    headers: Any = _Headers(stream, file)
    try:
        archive = tarfile.TarFile(fileobj=headers)
        before = -1
        for _ in range(_MEMBERS):
            member = archive.next()
            if member is None:
                return
            # A size below zero would lead backwards, and round and round.
            if member.size < 0 or member.offset_data <= before:
                raise _refused(file, f"'{member.name}' has an absurd size")
            before = member.offset_data
            yield member
    except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
        raise ImageError(
            f"{file} is no uncompressed tar file: {one_line(error)}.",
            hint="Decompress it first (gunzip, zstd -d), or save the image again.",
        ) from error
    raise _refused(file, f"it has more than {_MEMBERS} entries")


def _inside(file: Path, name: str) -> str:
    normal = posixpath.normpath(name)
    if name.startswith("/") or normal == ".." or normal.startswith("../"):
        raise _refused(file, f"'{name}' leaves the archive")
    return normal


def _refused(file: Path, why: str) -> ImageError:
    return ImageError(
        f"The archive {file} is refused: {one_line(why, 500)}.",
        hint="Do not use this file; save the image again from a source that you trust.",
    )
