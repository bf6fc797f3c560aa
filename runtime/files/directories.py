"""Directories and files that appear under their name only once they are whole."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kfp_bento.runtime.errors import KfpBentoError

MARK = ".partial-"
_OLD = "-old"
_HERE = -100  # AT_FDCWD
_EXCHANGE = 2  # RENAME_EXCHANGE
_NO_HARD_LINKS = (errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS)


@contextmanager
def scratch_beside(destination: Path) -> Iterator[Path]:
    """Give an empty directory `<destination>.partial-<pid>`, gone at the end in every case.

    It is on the destination's disk, so that what was made in it can be renamed into place. What a
    killed process left for the same destination is recognised by its lock being free, and removed.

    Args:
        destination: What the directory is for; its parent is made if need be.

    Raises:
        OSError: The disk is full or cannot be written.
        KfpBentoError: This process is already writing the same destination.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    _restore(destination)
    _sweep(destination.parent, f"{destination.name}{MARK}")
    scratch = _beside(destination)

    def make() -> Path:
        try:
            scratch.mkdir()
        except FileExistsError:
            raise KfpBentoError(
                f"Something else is writing {scratch}.",
                hint="Wait for the other run, or remove that directory if none is running.",
            ) from None
        return scratch

    with _locked(make):
        yield scratch


@contextmanager
def scratch_inside(folder: Path, prefix: str) -> Iterator[Path]:
    """Give an empty directory `<folder>/<prefix>…`, gone at the end in every case.

    What killed processes left there under the same prefix is removed first.

    Raises:
        OSError: The disk is full or cannot be written.
    """
    _sweep(folder, prefix)
    with _locked(lambda: Path(tempfile.mkdtemp(prefix=prefix, dir=folder))) as scratch:
        yield scratch


def scratch_file(folder: Path, prefix: str) -> tuple[int, Path]:
    """Make an empty file `<folder>/<prefix>…`; what killed processes left there is removed first.

    Returns:
        The open file, which the caller closes once it was renamed or removed, and its path.

    Raises:
        OSError: The disk is full or cannot be written.
    """
    _sweep(folder, prefix)
    while True:
        handle, name = tempfile.mkstemp(prefix=prefix, dir=folder)
        if _take(handle):
            return handle, Path(name)
        os.close(handle)


def write_whole(content: bytes, file: Path) -> None:
    """Write a file in one step: there is the old one or the new one, and nothing else.

    Args:
        content: What it holds.
        file: The file; missing folders above it are made.

    Raises:
        OSError: The disk is full or cannot be written.
    """
    partial = _beside(file)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial.unlink(missing_ok=True)  # a link that somebody left there would be followed
        partial.write_bytes(content)
        partial.replace(file)
    finally:
        with suppress(OSError):  # gone after success, and where no folder could be made
            partial.unlink()


def put_in_place(made: Path, destination: Path) -> None:
    """Rename a finished directory to its name; what was there stays until the new one is there.

    Args:
        made: A directory on the destination's disk.
        destination: Where it goes; replaced if it exists.
    """
    if not destination.exists():
        made.rename(destination)
        return
    if _exchange(made, destination):
        remove_tree(made)
        return
    # A kill between the two renames leaves no destination: the next run restores the old one.
    old = _beside(destination, _OLD)
    destination.rename(old)
    try:
        made.rename(destination)
    except BaseException:
        old.rename(destination)
        raise
    remove_tree(old)


@contextmanager
def held(directory: Path) -> Iterator[None]:
    """Keep others who do so out of a directory while it is read and changed, or replaced.

    Nothing is held where there is no directory, or a file system has no locks.
    """
    while True:
        try:
            lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            yield
            return
        try:
            with suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_EX)
            if _is_still(directory, lock):  # and not what stood there while others held it
                yield
                return
        finally:
            os.close(lock)


def _is_still(directory: Path, opened: int) -> bool:
    try:
        return os.path.samestat(directory.stat(), os.fstat(opened))
    except OSError:
        return False


def link_or_copy(source: Path, target: Path) -> None:
    """Make a second name for a file; a copy where the file system has none."""
    try:
        target.hardlink_to(source.resolve())
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        shutil.copyfile(source, target)


def remove_tree(directory: Path) -> None:
    """Remove a tree into which another thread may still be writing its last file."""
    for _ in range(20):
        shutil.rmtree(directory, ignore_errors=True)
        if not directory.exists():
            return
        time.sleep(0.05)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two directories in one step; False where the system or its disk cannot do that."""
    try:
        rename = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError):
        return False
    return bool(rename(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0)


def _restore(destination: Path) -> None:
    """Put back what a process had moved away when it was killed before the new one came."""
    if os.path.lexists(destination):
        return
    for path in _named(destination.parent, f"{destination.name}{MARK}"):
        if path.name.endswith(_OLD) and not _has_maker(path):
            with suppress(OSError):
                path.rename(destination)
            return


def _sweep(folder: Path, prefix: str) -> None:
    """Remove what killed processes left: its lock is free."""
    for path in _named(folder, prefix):
        if path.is_symlink() or (path.name.endswith(_OLD) and _has_maker(path)):
            continue
        with suppress(OSError):
            lock = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove_tree(path) if path.is_dir() else path.unlink()
            finally:
                os.close(lock)


def _has_maker(old: Path) -> bool:
    """Tell whether the process that moved a directory away is alive: it has locked the new one."""
    try:
        lock = os.open(old.with_name(old.name.removesuffix(_OLD)), os.O_RDONLY)
    except OSError:
        return False
    try:
        return not _take(lock)
    finally:
        os.close(lock)


@contextmanager
def _locked(make: Callable[[], Path]) -> Iterator[Path]:
    """Make a directory, anew if somebody sweeps it away before it is locked; gone at the end."""
    while True:
        scratch = make()
        with suppress(FileNotFoundError):
            lock = os.open(scratch, os.O_RDONLY)
            if _take(lock):
                break
            os.close(lock)
    try:
        yield scratch
    finally:
        remove_tree(scratch)
        os.close(lock)


def _named(folder: Path, prefix: str) -> list[Path]:
    with suppress(OSError), os.scandir(folder) as entries:
        return [Path(entry.path) for entry in entries if entry.name.startswith(prefix)]
    return []


def _take(handle: int) -> bool:
    """Lock what was just made; False if somebody swept it away before that."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks: then nothing is swept there either
        return True
    return os.fstat(handle).st_nlink > 0


def _beside(destination: Path, purpose: str = "") -> Path:
    return destination.with_name(f"{destination.name}{MARK}{os.getpid()}{purpose}")
