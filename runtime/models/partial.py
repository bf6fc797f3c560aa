"""Directories that appear under their name only once they are whole."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from kfp_bento.runtime.errors import InvalidInput, KfpBentoError, ModelError
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
    """Gives an empty directory to fill, and puts it in place when the block ends well.

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
            hint=f"Use a directory below it, such as {destination / 'model'}.",
        )
    with _disk_failures_explained(destination, needed):
        destination.parent.mkdir(parents=True, exist_ok=True)
        partial, lock = _locked(destination)
        try:
            _require_space(destination, needed)
            yield partial
            _put_in_place(partial, destination)
        except BaseException:
            remove_tree(partial)
            raise
        finally:
            os.close(lock)


def write_beside(destination: Path, inside: str, text: str) -> None:
    """Replaces one file of a whole directory in a single step."""
    partial = _beside(destination, "record")
    with _disk_failures_explained(destination, len(text)):
        try:
            partial.write_text(text, encoding="ascii")
            partial.replace(destination / inside)
        finally:
            partial.unlink(missing_ok=True)


def remove_tree(directory: Path) -> None:
    """Removes a tree into which another thread may still be writing its last file."""
    for _ in range(20):
        shutil.rmtree(directory, ignore_errors=True)
        if not directory.exists():
            return
        time.sleep(0.05)


def human_size(size: int) -> str:
    """Gives a byte count for people: 1.2 GB."""
    number, unit = float(size), "bytes"
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if number < 1000 or unit == "TB":
            break
        number /= 1000
    return f"{size} bytes" if unit == "bytes" else f"{number:.1f} {unit}"


def _locked(destination: Path) -> tuple[Path, int]:
    partial = _beside(destination)
    for _ in range(3):
        _sweep(destination)
        try:
            partial.mkdir()
            lock = os.open(partial, os.O_RDONLY)
        except FileExistsError:
            break
        except FileNotFoundError:
            continue
        # A file system without locks: then nothing is swept there either.
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if partial.exists():
            return partial, lock
        os.close(lock)
    raise ModelError(
        f"Something else is writing {partial}.",
        hint="Wait for the other run, or remove that directory if none is running.",
    )


def _sweep(destination: Path) -> None:
    prefix = f"{destination.name}.partial-"
    for path in destination.parent.iterdir():
        if not path.name.startswith(prefix) or path.is_symlink():
            continue
        with suppress(OSError):
            lock = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove_tree(path) if path.is_dir() else path.unlink()
            finally:
                os.close(lock)


def _put_in_place(partial: Path, destination: Path) -> None:
    if not destination.exists():
        partial.rename(destination)
        return
    old = _beside(destination, "old")
    destination.rename(old)
    try:
        partial.rename(destination)
    except BaseException:
        old.rename(destination)
        raise
    remove_tree(old)


def _beside(destination: Path, purpose: str = "") -> Path:
    suffix = f"-{purpose}" if purpose else ""
    return destination.with_name(f"{destination.name}.partial-{os.getpid()}{suffix}")


def _require_space(destination: Path, needed: int) -> None:
    if needed > shutil.disk_usage(destination.parent).free:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextmanager
def _disk_failures_explained(destination: Path, needed: int) -> Iterator[None]:
    try:
        yield
    except Exception as failure:
        disk = _disk_failure(failure)
        if disk is None:
            raise
        if disk.errno in _FULL:
            raise ModelError(
                f"The disk that holds {destination.parent} is full"
                + (f": the model needs {human_size(needed)}" if needed else "")
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
