"""What is packed: compressed streams and archives, unpacked no further than the limits allow."""

from __future__ import annotations

import bz2
import lzma
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from kfp_bento.runtime.scan.source import Source
from kfp_bento.runtime.scan.zips import zip_entries

if TYPE_CHECKING:
    from collections.abc import Callable

    from kfp_bento.runtime.scan.limits import Budget

_IN_MEMORY = 4 << 20
_PIECE = 1 << 20
_BROKEN = (zlib.error, OSError, ValueError, EOFError, lzma.LZMAError)

_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x5d\x00\x00", "lzma"),
)
_CLOSED: tuple[tuple[bytes, str], ...] = (
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"\x28\xb5\x2f\xfd", "Zstandard"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"Rar!\x1a\x07", "RAR"),
    (b"ZF0x", "an old joblib format"),
)
_METHODS = {8: "deflate", 12: "bzip2", 14: "zip-lzma"}


@dataclass(frozen=True)
class Member:
    """What a container holds.

    Attributes:
        name: Its name in there.
        content: Its bytes; None where they cannot be had.
        problem: What is wrong with it, in words; "" if nothing is.
    """

    name: str
    content: Source | None
    problem: str = ""


def compression(head: bytes) -> str:
    """Tell how a stream is compressed, by its first bytes; "" if it is not."""
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if len(head) > 1 and head[0] == 0x78 and (head[0] * 256 + head[1]) % 31 == 0:
        return "zlib"
    return ""


def closed_format(head: bytes) -> str:
    """Tell which format something has that is not looked into; "" if it is none of them."""
    return next((kind for magic, kind in _CLOSED if head.startswith(magic)), "")


def _decompressor(kind: str) -> Any:
    if kind == "bzip2":
        return bz2.BZ2Decompressor()
    if kind in ("xz", "lzma"):
        form = lzma.FORMAT_XZ if kind == "xz" else lzma.FORMAT_ALONE
        return lzma.LZMADecompressor(form, memlimit=1 << 30)
    if kind == "zip-lzma":
        return _ZipLzma()
    return zlib.decompressobj({"gzip": 31, "zlib": 15, "deflate": -15}[kind])


class _ZipLzma:
    """LZMA as zip files have it: version and properties stand before the raw stream."""

    def __init__(self) -> None:
        self._inner: lzma.LZMADecompressor | None = None
        self._head = b""
        self.eof, self.unused_data = False, b""

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        if self._inner is None:
            self._head += data
            if len(self._head) < 9:
                return b""
            properties = self._head[4:9]
            # The dictionary is taken as large as the file says, but not without end.
            size = min(int.from_bytes(properties[1:5], "little"), 256 << 20)
            lc, rest = properties[0] % 9, properties[0] // 9
            options = {"id": lzma.FILTER_LZMA1, "dict_size": max(size, 4096), "lc": lc}
            options |= {"lp": rest % 5, "pb": rest // 5}
            self._inner = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[options])
            data = self._head[9:]
        return self._inner.decompress(data, max_length)


@contextmanager
def unpacked(source: Source, kind: str, budget: Budget) -> Iterator[tuple[Source, str]]:
    """Unpack a compressed stream into a file that has no name.

    Yields:
        What came out before it ended or broke, and what was wrong, "" if nothing was.

    Raises:
        LimitReached: It becomes too large.
    """
    with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY) as spool:
        file = cast("BinaryIO", spool)
        problem = ""
        try:
            _unpack(source, kind, budget, file.write)
        except _BROKEN as failure:
            problem = f"it cannot be unpacked to its end ({failure})"
        yield Source.of(file), problem


def _unpack(source: Source, kind: str, budget: Budget, write: Callable[[bytes], Any]) -> None:
    stream = _decompressor(kind)
    for _, piece in source.pieces():
        data = piece
        while data:
            if stream.eof:  # several streams in a row count as one
                if not any(data) or compression(data) != kind:
                    return
                stream = _decompressor(kind)
            out = stream.decompress(data, _PIECE)
            budget.take_bytes(len(out))
            write(out)
            data = _rest(stream, out)
            while not data and len(out) == _PIECE and not stream.eof:
                out = stream.decompress(b"", _PIECE)
                budget.take_bytes(len(out))
                write(out)
                data = _rest(stream, out)
    if not stream.eof and not isinstance(stream, _ZipLzma):
        raise EOFError("it ends in the middle")


def _rest(stream: Any, out: bytes) -> bytes:
    if stream.eof:
        return bytes(stream.unused_data)
    return bytes(getattr(stream, "unconsumed_tail", b""))


def is_tar(head: bytes) -> bool:
    """Tell whether something is a tar file, by the checksum of its first header."""
    if len(head) < 512 or not any(head[:512]):
        return False
    with suppress(ValueError):
        stated = int(head[148:156].split(b"\0")[0].strip() or b"x", 8)
        return stated in (
            sum(head[:148]) + 8 * 32 + sum(head[156:512]),
            sum(one - 256 * (one > 127) for one in (*head[:148], *head[156:512])) + 8 * 32,
        )
    return False


def escapes(name: str) -> bool:
    """Tell whether a path leads out of the folder that something is unpacked into."""
    parts = name.replace("\\", "/").split("/")
    return parts[0] == "" or ".." in parts or (len(parts[0]) == 2 and parts[0][1] == ":")


@contextmanager
def _zip_member(source: Source, method: int, budget: Budget) -> Iterator[tuple[Source | None, str]]:
    if method == 0:
        yield source, ""
    elif method in _METHODS:
        with unpacked(source, _METHODS[method], budget) as found:
            yield found
    else:
        yield None, f"it is packed by method {method}, which is not looked into"


def zip_members(source: Source, budget: Budget) -> Iterator[Member]:
    """Give what a zip file holds, one after another."""
    entries = zip_entries(source)
    if not entries:
        yield Member("", None, "it begins as a zip file and has no entries that can be read")
    for entry in entries:
        budget.take_entry()
        if entry.name.endswith("/") and not entry.size:
            continue
        with _zip_member(source.part(entry.start, entry.size), entry.method, budget) as packed:
            content, problem = packed
            if not entry.listed:
                problem = "the zip file does not list it, and some readers find it"
            elif entry.differs:
                problem = "its size is said twice, and not alike"
            elif entry.is_link:
                problem = "it is a link"
            elif escapes(entry.name):
                problem = "it would be unpacked outside of its folder"
            yield Member(entry.name, content, problem)


def tar_members(source: Source, budget: Budget) -> Iterator[Member]:
    """Give what a tar file holds, one after another."""
    try:
        with tarfile.open(fileobj=source, mode="r:") as archive:
            for one in archive:
                budget.take_entry()
                problem = ""
                if one.isdev() or one.issym() or one.islnk():
                    problem = "it is a link or a device"
                elif escapes(one.name):
                    problem = "it would be unpacked outside of its folder"
                elif one.sparse is not None:
                    problem = "it has holes, and is not looked into"
                content = source.part(one.offset_data, one.size) if one.isfile() else None
                if problem or content is not None:
                    yield Member(one.name, content, problem)
    except (tarfile.TarError, OSError, ValueError, EOFError) as failure:
        yield Member("", None, f"it cannot be read to its end ({failure})")
