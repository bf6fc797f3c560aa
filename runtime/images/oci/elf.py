"""What programs and shared libraries say about themselves (ELF, System V ABI, chapters 4 and 5).

Files come from base images and wheels, which are not trusted: whatever is no ELF file of a common
kind, or points outside itself, says nothing.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

HEAD = 1 << 16
"""So many first bytes of a program hold the name of its loader."""

_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NEEDED, _DT_STRTAB, _DT_SONAME, _DT_RPATH, _DT_RUNPATH = 1, 5, 14, 15, 29
_NAMES = {_DT_NEEDED, _DT_SONAME, _DT_RPATH, _DT_RUNPATH}
_LONGEST_NAME = 4096
_MOST_HEADERS = 512
_LONGEST_TABLE = 1 << 16


@dataclass(frozen=True)
class Linking:
    """What a dynamic loader is to find for a program or shared library.

    Attributes:
        needed: Names of the libraries that it asks for (`DT_NEEDED`).
        search: Where it has them looked for besides (`DT_RPATH`, `DT_RUNPATH`); `$ORIGIN` is
            its own directory.
        inherited: Whether the libraries that it loads are looked for there, too (`DT_RPATH`).
    """

    needed: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    inherited: bool = False


def loader_of(head: bytes) -> str:
    """Give the dynamic loader that a program asks for; empty for a script or a static program.

    Args:
        head: The first `HEAD` bytes of the file.
    """
    try:
        for kind, start, _, size in _program_headers(head):
            if kind == _PT_INTERP and 0 < size <= _LONGEST_NAME:
                return head[start : start + size].partition(b"\0")[0].decode("ascii")
    except (struct.error, UnicodeDecodeError):
        return ""
    return ""


def linking_of(file: IO[bytes]) -> Linking | None:
    """Give what a file is linked against; None for one that no dynamic loader looks at.

    Args:
        file: Can be read from any place.
    """
    head = file.read(HEAD)
    try:
        segments = list(_program_headers(head))
        tables = [(start, size) for kind, start, _, size in segments if kind == _PT_DYNAMIC]
        return _linking(file, segments, *tables[0]) if tables else None
    except (struct.error, ValueError, OverflowError, StopIteration):
        return None


def _linking(
    file: IO[bytes], segments: list[tuple[int, int, int, int]], start: int, size: int
) -> Linking:
    entries = list(_dynamic(file, start, size))
    address = next(value for tag, value in entries if tag == _DT_STRTAB)
    strings = next(
        begin + address - place
        for kind, begin, place, length in segments
        if kind == _PT_LOAD and place <= address < place + length
    )
    named = [(tag, _text(file, strings + value)) for tag, value in entries if tag in _NAMES]
    runpath = [text for tag, text in named if tag == _DT_RUNPATH]
    # Where a file has both, the older kind does not count.
    search = runpath or [text for tag, text in named if tag == _DT_RPATH]
    return Linking(
        needed=tuple(text for tag, text in named if tag == _DT_NEEDED),
        search=tuple(folder for text in search for folder in text.split(":") if folder),
        inherited=bool(search) and not runpath,
    )


def _dynamic(file: IO[bytes], start: int, size: int) -> Iterator[tuple[int, int]]:
    table = _read(file, start, min(size, _LONGEST_TABLE))
    for tag, value in struct.iter_unpack("<QQ", table[: len(table) // 16 * 16]):
        if tag == 0:
            return
        yield tag, value


def _text(file: IO[bytes], start: int) -> str:
    text, end, _ = _read(file, start, _LONGEST_NAME).partition(b"\0")
    if not end:
        raise ValueError("a name without an end")
    return text.decode("ascii")


def _read(file: IO[bytes], start: int, size: int) -> bytes:
    # The system refuses to look so far, in words that say nothing of the file.
    if not 0 <= start <= file.seek(0, io.SEEK_END):
        raise ValueError("a place outside the file")
    file.seek(start)
    return file.read(size)


def _program_headers(head: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Give type, offset, address and size of each segment of a 64-bit little-endian file."""
    if head[:6] != b"\x7fELF\x02\x01":
        return
    (table,) = struct.unpack_from("<Q", head, 32)
    length, count = struct.unpack_from("<HH", head, 54)
    for number in range(min(count, _MOST_HEADERS)):
        kind, _, start, address, _, size = struct.unpack_from(
            "<IIQQQQ", head, table + number * length
        )
        yield kind, start, address, size
