"""Layers in one pass: tar, codec, both digests and the blob file, in flat memory."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from kfp_bento.runtime.errors import InvalidInput
from kfp_bento.runtime.images.blobs import BlobDirectory
from kfp_bento.runtime.images.image import OCI_LAYER, Layer
from kfp_bento.runtime.images.tar import TarEntry, tar_stream

ZSTD_LEVEL = 3
GZIP_LEVEL = 6


class Compressor(Protocol):
    """What zlib's and zstandard's streaming compressors have in common."""

    def compress(self, data: bytes, /) -> bytes:
        """Takes input, gives what output there is."""

    def flush(self) -> bytes:
        """Gives the rest."""


@dataclass(frozen=True)
class Codec:
    """How a layer is compressed.

    Attributes:
        name: ``zstd``, ``gzip`` or ``none``.
        identity: Name, level and library version: what the compressed bytes depend on.
        media_type: OCI media type of a layer compressed so.
    """

    name: str
    identity: str
    media_type: str

    def compressor(self) -> Compressor:
        """A fresh streaming compressor."""
        if self.name == "gzip":
            return zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, 31)
        if self.name == "zstd":
            import zstandard

            # The bytes are the same for any number of threads from one up, but not for none.
            compressor: Compressor = zstandard.ZstdCompressor(
                level=ZSTD_LEVEL, threads=2, write_checksum=True
            ).compressobj()
            return compressor
        return _Uncompressed()


class _Uncompressed:
    def compress(self, data: bytes, /) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


def codec_named(name: str) -> Codec:
    """The codec ``zstd``, ``gzip`` or ``none``.

    Raises:
        InvalidInput: There is no such codec.
    """
    if name == "zstd":
        import zstandard

        version = ".".join(map(str, zstandard.ZSTD_VERSION))
        return Codec(name, f"zstd-{ZSTD_LEVEL}-{version}", f"{OCI_LAYER}+zstd")
    if name == "gzip":
        return Codec(name, f"gzip-{GZIP_LEVEL}-{zlib.ZLIB_RUNTIME_VERSION}", f"{OCI_LAYER}+gzip")
    if name == "none":
        return Codec(name, "none", OCI_LAYER)
    raise InvalidInput(
        f"Layers cannot be compressed with '{name}'.",
        hint="Choose zstd (small and fast), gzip (for Docker before 23.0) or none.",
    )


def write_layer(
    entries: Iterable[TarEntry],
    blobs: BlobDirectory,
    codec: Codec,
    *,
    kind: str,
    title: str,
    epoch: int,
) -> Layer:
    """Writes the entries as one layer blob; each file is read once.

    Raises:
        ImageError: An entry is refused or cannot be read, or the disk is full.
    """
    diff = hashlib.sha256()
    compressor = codec.compressor()
    with blobs.writer() as writer:
        for chunk in tar_stream(entries, epoch):
            diff.update(chunk)
            if packed := compressor.compress(chunk):
                writer.write(packed)
        writer.write(compressor.flush())
    return Layer(
        kind=kind,
        digest=writer.digest,
        diff_id=f"sha256:{diff.hexdigest()}",
        size=writer.size,
        media_type=codec.media_type,
        origin="built",
        title=title,
    )
