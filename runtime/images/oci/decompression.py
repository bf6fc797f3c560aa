"""Layers decompressed on their way, whatever they were compressed with, in flat memory."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

from kfp_bento.runtime.errors import ImageError
from kfp_bento.runtime.images.oci.tar import CHUNK

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"


def decompressed(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yields what gzip or zstd packed, and anything else as it is.

    No piece is larger than a chunk, however well the input was compressed. The input is always
    read to its end, so that a source's own check of it takes place.

    Raises:
        ImageError: The compressed data is damaged.
    """
    source = _Readable(chunks)
    start = source.peek(len(_ZSTD))
    if start.startswith(_GZIP):
        yield from _gunzipped(source)
    elif start.startswith(_ZSTD):
        yield from _unzstd(source)
    else:
        yield from iter(lambda: source.read(CHUNK), b"")


class _Readable:
    """Chunks as a file that can be read once."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def peek(self, size: int) -> bytes:
        while len(self._rest) < size and (chunk := next(self._chunks, b"")):
            self._rest += chunk
        return self._rest[:size]

    def read(self, size: int) -> bytes:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._rest = chunk
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken


def _gunzipped(source: _Readable) -> Iterator[bytes]:
    """All members of a gzip stream, one after the other (RFC 1952, 2.2)."""
    member = zlib.decompressobj(31)
    waiting = source.read(CHUNK)
    while waiting:
        try:
            piece = member.decompress(waiting, CHUNK)
        except zlib.error as error:
            raise _damaged(error) from error
        if piece:
            yield piece
        if member.eof:
            waiting = member.unused_data
            member = zlib.decompressobj(31)
        else:
            waiting = member.unconsumed_tail
        waiting = waiting or source.read(CHUNK)


def _unzstd(source: _Readable) -> Iterator[bytes]:
    import zstandard

    file: Any = source
    reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
    while True:
        try:
            piece: bytes = reader.read(CHUNK)
        except zstandard.ZstdError as error:
            raise _damaged(error) from error
        if not piece:
            return
        yield piece


def _damaged(error: Exception) -> ImageError:
    return ImageError(
        f"A layer cannot be decompressed: {error}.",
        hint="The image is damaged: fetch or save it again.",
    )
