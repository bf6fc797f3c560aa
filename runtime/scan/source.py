"""Bytes that can be read at any place, of a file or of a part of one, without holding them."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterator

_PIECE = 1 << 20
_BUFFER = 64 << 10


class Source(io.RawIOBase):
    """A part of a file; every part of it is a source again.

    Args:
        file: An open file that can seek.
        start: Where the part begins in it.
        size: How many bytes it has.
    """

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        super().__init__()
        self._file, self._start, self.size = file, start, max(size, 0)
        self._at = 0

    @classmethod
    def of(cls, file: BinaryIO) -> Source:
        """Give a whole file as a source."""
        return cls(file, 0, file.seek(0, io.SEEK_END))

    def part(self, start: int, size: int | None = None) -> Source:
        """Give a part, cut where this one ends."""
        start = min(max(start, 0), self.size)
        rest = self.size - start
        return Source(self._file, self._start + start, rest if size is None else min(size, rest))

    def read_at(self, offset: int, length: int) -> bytes:
        """Read at most `length` bytes."""
        if offset < 0 or offset >= self.size:
            return b""
        self._file.seek(self._start + offset)
        return self._file.read(min(length, self.size - offset))

    def pieces(self, start: int = 0, end: int | None = None) -> Iterator[tuple[int, bytes]]:
        """Give the bytes between two places in pieces, each with its place."""
        end = self.size if end is None else min(end, self.size)
        while start < end and (piece := self.read_at(start, min(_PIECE, end - start))):
            yield start, piece
            start += len(piece)

    def find(self, wanted: bytes, start: int = 0, end: int | None = None) -> Iterator[int]:
        """Give every place where some bytes stand."""
        before = b""
        for place, piece in self.pieces(start, end):
            text = before + piece
            found = text.find(wanted)
            while found >= 0:
                yield place - len(before) + found
                found = text.find(wanted, found + 1)
            before = text[len(text) - len(wanted) + 1 :] if len(wanted) > 1 else b""

    # What Python's own readers of archives want of a file.

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def seekable(self) -> bool:
        """Tell that it can seek."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        self._at = max(base + offset, 0)
        return self._at

    def tell(self) -> int:
        """Tell the place."""
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        """Read on from the place."""
        rest = max(self.size - self._at, 0)
        data = self.read_at(self._at, rest if size is None or size < 0 else size)
        self._at += len(data)
        return data


class Reader:
    """Reads a source forward, in small steps.

    Args:
        source: What is read.
        position: Where to begin.
    """

    def __init__(self, source: Source, position: int = 0) -> None:
        self._source = source
        self._buffer, self._base, self._at = b"", position, 0

    @property
    def position(self) -> int:
        """Where the next byte is."""
        return self._base + self._at

    def go(self, position: int) -> None:
        """Go to a place, which may lie behind the end."""
        if self._base <= position <= self._base + len(self._buffer):
            self._at = position - self._base
        else:
            self._buffer, self._base, self._at = b"", position, 0

    def read(self, length: int) -> bytes:
        """Read exactly so many bytes.

        Raises:
            EOFError: There are fewer.
        """
        end = self._at + length
        if end > len(self._buffer):
            self._fill(length)
            end = self._at + length
            if end > len(self._buffer):
                raise EOFError("it ends in the middle")
        data = self._buffer[self._at : end]
        self._at = end
        return data

    def skip(self, length: int) -> int:
        """Pass over bytes, and give where they begin.

        Raises:
            EOFError: There are fewer.
        """
        start = self.position
        if start + length > self._source.size:
            raise EOFError("it ends in the middle")
        self.go(start + length)
        return start

    def line(self, longest: int) -> tuple[bytes, bool]:
        """Read up to a line feed, which is left out, and tell whether the line is whole.

        Args:
            longest: A longer line is cut there, and passed over.
        """
        start = self.position
        if self._at >= len(self._buffer):
            self._fill(1)
        near = self._buffer.find(b"\n", self._at)
        end = self._base + near if near >= 0 else next(self._source.find(b"\n", start), None)
        stop = self._source.size if end is None else end
        text = self._source.read_at(start, min(stop - start, longest))
        self.go(stop if end is None else end + 1)
        return text, end is not None

    def _fill(self, length: int) -> None:
        place = self.position
        self._buffer = self._source.read_at(place, max(length, _BUFFER))
        self._base, self._at = place, 0
