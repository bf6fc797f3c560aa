"""Layers in one pass: tar, codec, both digests and the blob file, in flat memory."""

from __future__ import annotations

import hashlib
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from kfp_bento.runtime.concurrency import Stopped
from kfp_bento.runtime.errors import InvalidInput
from kfp_bento.runtime.images.oci.blobs import BlobDirectory
from kfp_bento.runtime.images.oci.image import OCI_LAYER, Layer
from kfp_bento.runtime.images.oci.tar import TarEntry, tar_stream

ZSTD_LEVEL = 3
ZSTD_JOB = 2 << 20
GZIP_LEVEL = 6


class Compressor(Protocol):
    """What zlib's and zstandard's streaming compressors have in common."""

    def compress(self, data: bytes, /) -> bytes:
        """Take input, give what output there is."""

    def flush(self) -> bytes:
        """Give the rest."""


@dataclass(frozen=True)
class Codec:
    """How a layer is compressed.

    Attributes:
        name: `zstd`, `gzip` or `none`.
        identity: Name, level and library version: what the compressed bytes depend on.
        media_type: OCI media type of a layer compressed so.
    """

    name: str
    identity: str
    media_type: str

    def compressor(self) -> Compressor:
        """Give a fresh streaming compressor."""
        if self.name == "gzip":
            return zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, 31)
        if self.name == "zstd":
            import zstandard

            # The bytes are the same for any number of threads from one up, not for none. Jobs of
            # the default size would cost 45 MB more memory and save 3 % of the layer.
            parameters = zstandard.ZstdCompressionParameters.from_level(
                ZSTD_LEVEL, threads=2, job_size=ZSTD_JOB, write_checksum=True
            )
            compressor: Compressor = zstandard.ZstdCompressor(
                compression_params=parameters
            ).compressobj()
            return compressor
        return _Uncompressed()


class _Uncompressed:
    def compress(self, data: bytes, /) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


def codec_named(name: str) -> Codec:
    """Give the codec `zstd`, `gzip` or `none`.

    Raises:
        InvalidInput: There is no such codec.
    """
    if name == "zstd":
        import zstandard

        version = ".".join(map(str, zstandard.ZSTD_VERSION))
        return Codec(name, f"zstd-{ZSTD_LEVEL}-{ZSTD_JOB}-{version}", f"{OCI_LAYER}+zstd")
    if name == "gzip":
        return Codec(name, f"gzip-{GZIP_LEVEL}-{zlib.ZLIB_RUNTIME_VERSION}", f"{OCI_LAYER}+gzip")
    if name == "none":
        return Codec(name, "none", OCI_LAYER)
    raise InvalidInput(
        f"Layers cannot be compressed with '{name}'.",
        hint="Choose zstd (small and fast), gzip (for Docker before 23.0) or none.",
    )


class LayerStream:
    """A layer that is made while it is read: tar, codec and both digests in one pass.

    Args:
        entries: Lists the members; called once for each time the stream is opened.
        codec: How the tar is compressed.
        epoch: Seconds since 1970 for every timestamp.
        summing: Whether `sums` is wanted as well.
        stop: Ends the stream when it is set.

    Attributes:
        sums: SHA-256 of each file that was read, in hexadecimal, by its path in the image.
    """

    def __init__(
        self,
        entries: Callable[[], Iterable[TarEntry]],
        codec: Codec,
        *,
        epoch: int,
        summing: bool = False,
        stop: threading.Event | None = None,
    ) -> None:
        self._entries = entries
        self._codec = codec
        self._epoch = epoch
        self._summing = summing
        self._stop = stop
        self.digest = self.diff_id = ""
        self.size = 0
        self.sums: dict[str, str] = {}

    def open(self) -> Iterator[bytes]:
        """Yield the blob from its first byte on.

        Raises:
            ImageError: An entry is refused or cannot be read.
            Stopped: Somebody said so.
        """
        self.digest = self.diff_id = ""
        self.size = 0
        self.sums = {}
        diff = hashlib.sha256()
        # An uncompressed tar is its own blob: one hash serves for both.
        plain = self._codec.name == "none"
        blob = diff if plain else hashlib.sha256()
        compressor = self._codec.compressor()
        sums = self.sums if self._summing else None
        for chunk in tar_stream(self._entries(), self._epoch, sums):
            if self._stop and self._stop.is_set():
                raise Stopped("Stopped, since another part of the build failed.")
            diff.update(chunk)
            if packed := compressor.compress(chunk):
                if not plain:
                    blob.update(packed)
                self.size += len(packed)
                yield packed
        if rest := compressor.flush():
            blob.update(rest)
            self.size += len(rest)
            yield rest
        self.digest = f"sha256:{blob.hexdigest()}"
        self.diff_id = f"sha256:{diff.hexdigest()}"

    def layer(self, *, kind: str, title: str) -> Layer:
        """Give the layer that came out of it, once it was read to its end."""
        return Layer(
            kind=kind,
            digest=self.digest,
            diff_id=self.diff_id,
            size=self.size,
            media_type=self._codec.media_type,
            origin="built",
            title=title,
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
    """Write the entries as one layer blob; each file is read once.

    Raises:
        ImageError: An entry is refused or cannot be read, or the disk is full.
    """
    stream = LayerStream(lambda: entries, codec, epoch=epoch)
    blobs.put_stream(stream)
    return stream.layer(kind=kind, title=title)
