"""Blobs on disk, named by digest, in the shape of an OCI layout's `blobs/sha256` folder."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kfp_bento.runtime.errors import ImageError
from kfp_bento.runtime.files import scratch_file, scratch_inside
from kfp_bento.runtime.images.oci.image import (
    BlobSource,
    BlobStream,
    Descriptor,
    Placement,
    is_digest,
)
from kfp_bento.runtime.images.oci.tar import CHUNK

_FULL = {errno.ENOSPC, errno.EDQUOT}


class BlobWriter:
    """Takes the bytes of one blob; hashes them as they go by."""

    def __init__(self, file: int, place: Path) -> None:
        self._file = file
        self._place = place
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> None:
        """Append to the blob."""
        self._hash.update(data)
        self.size += len(data)
        _write_all(self._file, data, self._place)

    @property
    def digest(self) -> str:
        """Digest of all that was written so far."""
        return f"sha256:{self._hash.hexdigest()}"


@dataclass(frozen=True)
class BlobDirectory(BlobSource):
    """A source and a sink of blobs: `<root>/blobs/sha256/<hex>`."""

    root: Path

    def path(self, digest: str) -> Path:
        """Where the blob with this digest lies, or would lie.

        Raises:
            ImageError: It is no SHA-256 digest, and could lead anywhere.
        """
        if not is_digest(digest):
            raise ImageError(f"'{digest}' is no SHA-256 digest.")
        algorithm, _, value = digest.partition(":")
        return self.root / "blobs" / algorithm / value

    def local_path(self, blob: Descriptor) -> Path | None:
        """Give the blob's file, if it is there, is a plain file and has the right size."""
        path = self.path(blob.digest)
        try:
            status = path.lstat()
        except OSError:
            return None
        return path if stat.S_ISREG(status.st_mode) and status.st_size == blob.size else None

    def open_blob(self, blob: Descriptor) -> Iterator[bytes]:
        """Yield a blob's bytes and check them.

        Raises:
            ImageError: It is missing, or is not what its name says.
        """
        path = self.path(blob.digest)
        try:
            # A pipe in its place must not keep anybody waiting.
            handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(handle, "rb") as file:
                if not stat.S_ISREG(os.fstat(handle).st_mode):
                    raise ImageError(f"The blob {path} is no file.")
                yield from verified(iter(lambda: file.read(CHUNK), b""), blob, str(path))
        except OSError as error:
            raise ImageError(f"The blob {path} cannot be read: {error.strerror}.") from error

    def holds(self, blob: Descriptor) -> bool:
        """Whether the blob is there and its bytes are right."""
        if self.local_path(blob) is None:
            return False
        try:
            for _ in self.open_blob(blob):
                pass
        except ImageError:
            return False
        return True

    @contextlib.contextmanager
    def writer(self) -> Iterator[BlobWriter]:
        """Write a blob of yet unknown digest; it appears under its name only when whole."""
        with self._partial() as (handle, partial):
            writer = BlobWriter(handle, partial.parent)
            yield writer
            self._keep(handle, partial, writer.digest)

    def put_stream(self, stream: BlobStream) -> None:
        """Store a blob that is made, and hashed, while it is read."""
        with self._partial() as (handle, partial):
            for chunk in stream.open():
                _write_all(handle, chunk, partial.parent)
            self._keep(handle, partial, stream.digest)

    @contextlib.contextmanager
    def _partial(self) -> Iterator[tuple[int, Path]]:
        folder = self.root / "blobs" / "sha256"
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            handle, partial = scratch_file(folder, ".partial-")
        try:
            yield handle, partial
        finally:
            os.close(handle)
            partial.unlink(missing_ok=True)

    def _keep(self, handle: int, partial: Path, digest: str) -> None:
        with storage_errors(partial.parent):
            # What the umask left of the folder's permissions.
            os.fchmod(handle, partial.parent.stat().st_mode & 0o644)
            partial.replace(self.path(digest))

    def put_blob(self, blob: Descriptor, source: BlobSource) -> Placement:
        """Store a blob: by hard link where it lies on the same disk, else by a checked copy."""
        target = self.path(blob.digest)
        if self.local_path(blob) is not None:
            return "present"
        local = source.local_path(blob)
        if local is not None:
            with contextlib.suppress(OSError):
                target.parent.mkdir(parents=True, exist_ok=True)
                target.unlink(missing_ok=True)
                target.hardlink_to(local)
                return "mounted"
        with self.writer() as writer:
            for chunk in source.open_blob(blob):
                writer.write(chunk)
        return "sent"

    def put_bytes(self, content: bytes, media_type: str) -> Descriptor:
        """Store a small blob that is at hand."""
        with self.writer() as writer:
            writer.write(content)
        return Descriptor(media_type=media_type, digest=writer.digest, size=writer.size)


@dataclass(frozen=True)
class BytesSource(BlobSource):
    """A source of one small blob that is at hand."""

    content: bytes

    def open_blob(self, blob: Descriptor) -> Iterator[bytes]:
        """Yield the bytes."""
        yield from verified(iter([self.content]), blob, "memory")


def _write_all(file: int, data: bytes, place: Path) -> None:
    view = memoryview(data)
    with storage_errors(place):
        while view:
            view = view[os.write(file, view) :]


def verified(chunks: Iterator[bytes], blob: Descriptor, origin: str) -> Iterator[bytes]:
    """Pass chunks through, and fail at the end when they are not the blob that was asked for.

    Raises:
        ImageError: Digest or size differ; a blob that is too long is cut off at once.
    """
    digest = hashlib.sha256()
    size = 0
    for chunk in chunks:
        digest.update(chunk)
        size += len(chunk)
        if size > blob.size:
            break
        yield chunk
    if size != blob.size or f"sha256:{digest.hexdigest()}" != blob.digest:
        raise ImageError(
            f"{origin} gave bytes that are not {blob.digest} ({size} of {blob.size} bytes read).",
            hint="The blob is damaged or was tampered with: remove it, or fetch the image again.",
        )


@contextlib.contextmanager
def storage_errors(place: Path | str) -> Iterator[None]:
    """Turn failures of the disk into errors that name the place.

    Raises:
        ImageError: An OSError came up inside the block.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise ImageError(
                f"The disk is full: {place} could not be written.",
                hint="Free some space or choose another place, then run this again.",
            ) from error
        reason = error.strerror or str(error)
        raise ImageError(f"{place} could not be written: {reason}.") from error


@contextlib.contextmanager
def scratch_directory(prefix: str, near: Path | None = None) -> Iterator[Path]:
    """Give an empty directory that goes away; what killed processes left of the kind goes as well.

    Args:
        prefix: How its name begins.
        near: Where it is made; where temporary files go if not given.

    Raises:
        ImageError: It cannot be made. Errors inside the block are none of its own.
    """
    folder = near or Path(tempfile.gettempdir())
    with contextlib.ExitStack() as stack:
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            scratch = stack.enter_context(scratch_inside(folder, prefix))
        yield scratch
