"""The entries of a zip file as the most tolerant reader would find them.

What Python's own module refuses, others read: a wrong checksum, an encryption flag that does not
hold, sizes that differ between the two places where they stand. So checksums and flags do not
count here, and entries that only some readers find are found too. APPNOTE.TXT 6.3.10.
"""

from __future__ import annotations

import stat
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kfp_bento.runtime.scan.limits import LimitReached

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kfp_bento.runtime.scan.source import Source

_LOCAL, _CENTRAL, _END, _END64 = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06", b"PK\x06\x06"
_TAIL = 22 + 65_535
_LARGEST_DIRECTORY = 256 << 20
_MOST_LOST = 10_000


@dataclass(frozen=True)
class Entry:
    """One file in a zip file.

    Attributes:
        name: Its name.
        method: How it is compressed; 0 for not at all.
        start: Where its data begins.
        size: How many bytes the data takes.
        is_link: Whether it is a symbolic link.
        differs: Whether the two places that say its size differ; it is then the larger one.
        listed: Whether the directory at the end lists it.
    """

    name: str
    method: int
    start: int
    size: int
    is_link: bool = False
    differs: bool = False
    listed: bool = True


def is_zip(source: Source) -> bool:
    """Tell whether any reader would take something for a zip file."""
    if source.read_at(0, 4) == _LOCAL:
        return True
    tail = source.read_at(max(source.size - _TAIL, 0), _TAIL)
    return _END in tail and any(True for _ in _directories(source))


def zip_entries(source: Source) -> list[Entry]:
    """Give all entries, those in the directory first.

    Raises:
        LimitReached: The directory is too large.
    """
    found: dict[int, Entry] = {}
    for start, size in _directories(source):
        if size > _LARGEST_DIRECTORY:
            raise LimitReached(f"the directory of a zip file takes {size} bytes")
        for entry in _central_entries(source, start, size):
            found.setdefault(entry.start, entry)
    listed = sorted(found.values(), key=lambda entry: entry.start)
    return [*listed, *_lost_entries(source, listed)]


def _directories(source: Source) -> Iterator[tuple[int, int]]:
    """Give every place where a directory may begin, and its size."""
    base = max(source.size - _TAIL, 0)
    tail = source.read_at(base, _TAIL)
    at = tail.rfind(_END)
    while at >= 0:
        if len(tail) - at >= 22:
            yield from _starts(source, base + at, tail[at : at + 22])
        at = tail.rfind(_END, 0, at)


def _starts(source: Source, end: int, record: bytes) -> Iterator[tuple[int, int]]:
    size, offset = struct.unpack("<II", record[12:20])
    candidates = {(offset, size), (end - size, size)}
    locator = source.read_at(end - 20, 20) if end >= 20 else b""
    if locator[:4] == b"PK\x06\x07":
        (place,) = struct.unpack("<Q", locator[8:16])
        for here in {place, end - 20 - 56}:
            large = source.read_at(here, 56)
            if large[:4] == _END64 and len(large) == 56:
                size, offset = struct.unpack("<QQ", large[40:56])
                candidates |= {(offset, size), (here - size, size)}
    for start, length in sorted(candidates):
        if 0 <= start < source.size and source.read_at(start, 4) == _CENTRAL:
            yield start, length


def _central_entries(source: Source, start: int, size: int) -> Iterator[Entry]:
    directory = source.read_at(start, size)
    at = 0
    while directory[at : at + 4] == _CENTRAL and len(directory) - at >= 46:
        fields = struct.unpack("<HHHHHHIIIHHHHHII", directory[at + 4 : at + 46])
        method, packed, offset, mode = fields[3], fields[7], fields[15], fields[14] >> 16
        name_size, extra_size, comment_size = fields[9:12]
        name = directory[at + 46 : at + 46 + name_size]
        extra = directory[at + 46 + name_size : at + 46 + name_size + extra_size]
        packed, offset = _large(extra, fields[8], packed, offset)
        at += 46 + name_size + extra_size + comment_size
        # A file that stands behind something else counts from where it begins itself.
        for place in {offset, offset + _shift(source, start, size)}:
            if data := _data_start(source, place):
                here = _local_size(source, place)
                yield Entry(
                    name.decode("utf-8", "replace"),
                    method,
                    data,
                    max(packed, here),
                    is_link=stat.S_ISLNK(mode),
                    differs=here not in (0, packed),
                )


def _shift(source: Source, start: int, size: int) -> int:
    """How many bytes stand before the zip file, by where its directory really is."""
    end = source.read_at(start + size, 22)
    if end[:4] != _END or len(end) < 22:
        return 0
    return max(start - int(struct.unpack("<I", end[16:20])[0]), 0)


def _large(extra: bytes, size: int, packed: int, offset: int) -> tuple[int, int]:
    """Give packed size and offset, out of the zip64 field where the others are too small."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack("<HH", extra[at : at + 4])
        if kind == 1:
            values = [
                struct.unpack("<Q", extra[place : place + 8])[0]
                for place in range(at + 4, min(at + 4 + length, len(extra)) - 7, 8)
            ]
            if size == 0xFFFFFFFF and values:
                values.pop(0)
            if packed == 0xFFFFFFFF and values:
                packed = values.pop(0)
            if offset == 0xFFFFFFFF and values:
                offset = values.pop(0)
        at += 4 + length
    return packed, offset


def _data_start(source: Source, place: int) -> int:
    """Where the data of an entry begins, by its local header; 0 if there is none."""
    header = source.read_at(place, 30)
    if header[:4] != _LOCAL or len(header) < 30:
        return 0
    name_size, extra_size = struct.unpack("<HH", header[26:30])
    return place + 30 + int(name_size) + int(extra_size)


def _local_size(source: Source, place: int) -> int:
    """How many bytes an entry takes by its local header; 0 if that leaves it to the directory."""
    header = source.read_at(place, 30)
    size = int.from_bytes(header[18:22], "little")
    return 0 if size == 0xFFFFFFFF or header[6] & 8 else size


def _lost_entries(source: Source, listed: list[Entry]) -> Iterator[Entry]:
    """Give the entries that stand between the listed ones, for readers that go from the start."""
    at, count = 0, 0
    for start, end in [*((one.start, one.start + one.size) for one in listed), (source.size,) * 2]:
        for place in source.find(_LOCAL, at, start):
            data = _data_start(source, place)
            if not data or data == start:
                continue  # none, or the header of the listed one itself
            count += 1
            if count > _MOST_LOST:
                raise LimitReached("a zip file has thousands of entries that it does not list")
            header = source.read_at(place, data - place)
            method, packed = struct.unpack("<H", header[8:10])[0], header[18:22]
            size = int.from_bytes(packed, "little") or source.size - data
            name_size = int.from_bytes(header[26:28], "little")
            name = header[30 : 30 + name_size].decode("utf-8", "replace")
            yield Entry(name, method, data, size, listed=False)
        at = max(at, end)
