"""A directory of models: there only once it is whole, and its disk failures explained."""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from kfp_bento.runtime.errors import InvalidInput, KfpBentoError, ModelError
from kfp_bento.runtime.files import put_in_place, scratch_beside
from kfp_bento.runtime.models.tracking import causes

if TYPE_CHECKING:
    from collections.abc import Iterator

_FULL = (errno.ENOSPC, errno.EDQUOT)
_DISK = (
    *_FULL,
    errno.EACCES,
    errno.EBUSY,
    errno.EEXIST,
    errno.EFBIG,
    errno.EIO,
    errno.EISDIR,
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
)


@contextmanager
def whole_directory(destination: Path, *, needed: int = 0) -> Iterator[Path]:
    """Give an empty directory to fill, and put it in place when the block ends well.

    The directory is `<destination>.partial-<pid>` in the same parent. It is removed when the
    block raises, Ctrl-C included. What a killed process left behind is recognised by its lock
    being free, and removed by the next call for the same destination.

    Args:
        destination: Where the whole directory will be; what is there already is replaced.
        needed: Bytes that will be written, if known: checked against the free space first.

    Raises:
        ModelError: The disk is full or cannot be written, or another process is at it.
        InvalidInput: The destination is a mount point.
    """
    if destination.is_mount():
        raise InvalidInput(
            f"{destination} is a mount point, so it cannot be replaced as a whole.",
            hint=f"Use a directory below it, such as {destination / 'models'}.",
        )
    with disk_failures_explained(destination, needed), scratch_beside(destination) as partial:
        _require_space(destination, needed)
        yield partial
        put_in_place(partial, destination)


def human_size(size: int) -> str:
    """Give a byte count for people: 1.2 GB."""
    number, unit = float(size), "bytes"
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if number < 1000 or unit == "TB":
            break
        number /= 1000
    return f"{size} bytes" if unit == "bytes" else f"{number:.1f} {unit}"


def _require_space(destination: Path, needed: int) -> None:
    if needed > shutil.disk_usage(destination.parent).free:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextmanager
def disk_failures_explained(destination: Path, needed: int) -> Iterator[None]:
    """Say what a full or broken disk means for a directory, instead of what it raises.

    Args:
        destination: What is written.
        needed: Bytes that it needs, or 0 if that is not known.
    """
    try:
        yield
    except Exception as failure:
        disk = _disk_failure(failure)
        if disk is None:
            raise
        if disk.errno in _FULL:
            raise ModelError(
                f"The disk that holds {destination.parent} is full"
                + (f": what is pulled needs {human_size(needed)}" if needed else "")
                + f", {human_size(shutil.disk_usage(destination.parent).free)} are free.",
                hint="Free some space, or choose a directory on another disk.",
            ) from failure
        raise ModelError(
            f"{disk.filename or destination} cannot be read or written: {disk.strerror}.",
            hint="Check that it and its parent directory may be written.",
        ) from failure


def _disk_failure(failure: BaseException) -> OSError | None:
    """Artifact stores wrap what the disk says, so the causes are looked through as well."""
    if isinstance(failure, KfpBentoError):
        return None
    found = (cause for cause in causes(failure) if isinstance(cause, OSError))
    return next((cause for cause in found if cause.errno in _DISK), None)
