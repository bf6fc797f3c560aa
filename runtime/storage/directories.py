"""Directories that appear under their name only once they are whole."""

from __future__ import annotations

import fcntl
import glob
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import KfpBentoError

MARK = ".partial-"


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
    _sweep(destination)
    scratch = _beside(destination)
    try:
        scratch.mkdir()
    except FileExistsError:
        raise KfpBentoError(
            f"Something else is writing {scratch}.",
            hint="Wait for the other run, or remove that directory if none is running.",
        ) from None
    lock = os.open(scratch, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks: then nothing is swept there either
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield scratch
    finally:
        remove_tree(scratch)
        os.close(lock)


def put_in_place(made: Path, destination: Path) -> None:
    """Rename a finished directory to its name; what was there stays until the new one is there.

    Args:
        made: A directory on the destination's disk.
        destination: Where it goes; replaced if it exists.
    """
    if not destination.exists():
        made.rename(destination)
        return
    old = _beside(destination, "-old")
    destination.rename(old)
    try:
        made.rename(destination)
    except BaseException:
        old.rename(destination)
        raise
    remove_tree(old)


def remove_tree(directory: Path) -> None:
    """Remove a tree into which another thread may still be writing its last file."""
    for _ in range(20):
        shutil.rmtree(directory, ignore_errors=True)
        if not directory.exists():
            return
        time.sleep(0.05)


def _sweep(destination: Path) -> None:
    for path in destination.parent.glob(f"{glob.escape(destination.name)}{MARK}*"):
        if path.is_symlink():
            continue
        with suppress(OSError):
            lock = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove_tree(path) if path.is_dir() else path.unlink()
            finally:
                os.close(lock)


def _beside(destination: Path, purpose: str = "") -> Path:
    return destination.with_name(f"{destination.name}{MARK}{os.getpid()}{purpose}")
