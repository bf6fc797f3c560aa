"""A scratch directory beside the destination: on the same disk, and gone afterwards."""

from __future__ import annotations

import fcntl
import glob
import os
import shutil
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def scratch_beside(destination: Path) -> Iterator[Path]:
    """Gives an empty directory `<destination>.partial-<pid>` and removes it in every case.

    What a killed process left behind is recognised by its lock being free, and removed as well.

    Args:
        destination: What the directory is for; its parent is made if need be.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    _sweep(destination)
    scratch = destination.with_name(f"{destination.name}.partial-{os.getpid()}")
    scratch.mkdir()
    lock = os.open(scratch, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks: then nothing is swept there either
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        os.close(lock)


def _sweep(destination: Path) -> None:
    for path in destination.parent.glob(f"{glob.escape(destination.name)}.partial-*"):
        with suppress(OSError):
            lock = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)
