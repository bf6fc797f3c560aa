"""Layers decompressed on their way, whatever they were compressed with, in flat memory."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator
from typing import Any

from kfp_bento.runtime.errors import ImageError
from kfp_bento.runtime.files import ChunkReader
from kfp_bento.runtime.images.oci.tar import CHUNK

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"


def decompressed(chunks: Iterator[bytes], what: str = "A layer") -> Iterator[bytes]:
    """Yield what gzip or zstd packed, and anything else as it is.

    No piece of what was packed is larger than a chunk, however well it was compressed. The input
    is always read to its end, so that a source's own check of it takes place.

    Args:
        chunks: The input.
        what: What it is, for errors.

    Raises:
        ImageError: The compressed data is damaged.
    """
    start = b""
    while len(start) < len(_ZSTD) and (chunk := next(chunks, b"")):
        start += chunk
    whole = itertools.chain((start,), chunks)
    try:
        if start.startswith(_GZIP):
            yield from _gunzipped(whole)
        elif start.startswith(_ZSTD):
            yield from _unzstd(whole)
        else:
            yield from whole
    except zlib.error as error:
        raise ImageError(
            f"{what} cannot be decompressed: {error}.",
            hint="It is damaged: fetch or save it again.",
        ) from error


def _gunzipped(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """All members of a gzip stream, one after the other (RFC 1952, 2.2)."""
    member, begun = zlib.decompressobj(31), False
    for waiting in chunks:
        while waiting:
            if piece := member.decompress(waiting, CHUNK):
                yield piece
            begun = not member.eof
            waiting = member.unconsumed_tail if begun else member.unused_data
            member = member if begun else zlib.decompressobj(31)
    if begun:
        raise zlib.error("it ends too early")


def _unzstd(chunks: Iterator[bytes]) -> Iterator[bytes]:
    import zstandard

    packed: Any = ChunkReader(chunks)
    reader = zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True)
    try:
        while piece := reader.read(CHUNK):
            yield piece
    except zstandard.ZstdError as error:
        raise zlib.error(str(error)) from error
