"""Large objects read in parallel ranges, which a later try goes on with."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from kfp_bento.runtime.concurrency import run_all
from kfp_bento.runtime.errors import StorageError
from kfp_bento.runtime.files import file_sha256, remove_tree
from kfp_bento.runtime.storage.place import BrokenTransferError, require_sum

if TYPE_CHECKING:
    from kfp_bento.runtime.storage.place import Progress, StoredObject

RANGE = 16 << 20
AT_ONCE = 6
TRIES = 4
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0
_MARK = ".download-"


class RangeSource(Protocol):
    """Gives parts of objects."""

    def chunks(self, found: StoredObject, start: int, end: int) -> Iterator[bytes]:
        """Give the bytes from `start` up to `end`, or to the object's end where `end` is -1.

        Raises:
            BrokenTransferError: The connection broke, or the place was too busy.
            StorageError: The object is another one now, or may not be read.
        """


def fetch(
    source: RangeSource,
    found: StoredObject,
    address: str,
    to: Path,
    *,
    sha256: str,
    progress: Progress | None = None,
) -> str:
    """Copy an object to a file, which is there only once it is whole.

    Args:
        source: Where the bytes come from.
        found: The object.
        address: Its address, for people and to tell one download from another.
        to: The file.
        sha256: What the sum has to be; "" for anything.
        progress: Told the bytes done and the bytes in all.

    Returns:
        The SHA-256 of the bytes.

    Raises:
        StorageError: It cannot be read, or the sum is another one.
        OSError: The disk cannot be written.
    """
    with _partial(found, address, to) as partial:
        resumed = _fill(source, found, partial, progress)
        got = file_sha256(partial / "content")
        if resumed and sha256 and got != sha256.lower():
            # What an earlier process left cannot be trusted after all, such as after a power cut.
            _forget(partial)
            _fill(source, found, partial, progress)
            got = file_sha256(partial / "content")
        if sha256 and got != sha256.lower():
            remove_tree(partial)
            require_sum(got, sha256, address)
        (partial / "content").replace(to)
    return got


@contextmanager
def _partial(found: StoredObject, address: str, to: Path) -> Iterator[Path]:
    """Give the folder of this very download, kept when it breaks off; others' left-overs go."""
    said = "\n".join((address, found.name, str(found.size), found.etag, found.sha256))
    mark = hashlib.sha256(said.encode()).hexdigest()[:16]
    to.parent.mkdir(parents=True, exist_ok=True)
    folder = to.with_name(f"{to.name}{_MARK}{mark}")
    for other in to.parent.iterdir():
        if (
            other.name.startswith(f"{to.name}{_MARK}")
            and other != folder
            and not other.is_symlink()
        ):
            _remove_unless_locked(other)
    folder.mkdir(mode=0o700, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StorageError(
                f"Something else is downloading {address} to {to}.", hint="Wait for it to end."
            ) from None
        if not found.etag:
            _forget(folder)  # nothing says that it is still the same object
        if found.size > shutil.disk_usage(folder).free + _kept_size(folder):
            raise StorageError(
                f"The disk that holds {to.parent} has less room than the {found.size} bytes of "
                f"{address}.",
                hint="Free some space, or choose a directory on another disk.",
            )
        try:
            yield folder
        except BaseException:
            if found.etag:  # else nobody could go on with it
                raise
            remove_tree(folder)
            raise
        remove_tree(folder)
    finally:
        os.close(lock)


def _remove_unless_locked(folder: Path) -> None:
    with suppress(OSError):
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove_tree(folder)
        finally:
            os.close(lock)


def _kept_size(folder: Path) -> int:
    with suppress(OSError):
        return (folder / "content").stat().st_blocks * 512
    return 0


def _forget(partial: Path) -> None:
    for name in ("ranges", "content"):
        (partial / name).unlink(missing_ok=True)


def _fill(
    source: RangeSource, found: StoredObject, partial: Path, progress: Progress | None
) -> bool:
    """Fetch what is missing, and say whether something was there already."""
    done = _done(partial)
    count = 1 if found.size < 0 else -(-found.size // RANGE)
    stop = threading.Event()
    told = threading.Lock()
    total = min(len(done) * RANGE, max(found.size, 0))
    content = os.open(partial / "content", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    journal = os.open(partial / "ranges", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC)

    def one(number: int) -> None:
        nonlocal total
        start = number * RANGE
        end = -1 if found.size < 0 else min(start + RANGE, found.size)
        at = start
        for piece in _persistent(source, found, start, end, stop):
            os.pwrite(content, piece, at)
            at += len(piece)
            with told:
                total += len(piece)
                if progress:
                    progress(total, found.size)
        # After the bytes: a range in the journal is whole, whenever the process is killed.
        os.write(journal, f"{number}\n".encode())

    try:
        wanted = [number for number in range(count) if number not in done]
        run_all([functools.partial(one, number) for number in wanted], AT_ONCE, stop=stop)
    finally:
        os.close(content)
        os.close(journal)
    return bool(done)


def _done(partial: Path) -> set[int]:
    try:
        lines = (partial / "ranges").read_text("ascii").splitlines()
        size = (partial / "content").stat().st_size
    except (OSError, ValueError):
        return set()
    numbers = {int(line) for line in lines if line.isdigit()}
    return {number for number in numbers if number * RANGE < size}


def _persistent(
    source: RangeSource, found: StoredObject, start: int, end: int, stop: threading.Event
) -> Iterator[bytes]:
    """Give a range, going on where a connection broke; never more or less than was asked for."""
    at, tries, pause = start, 0, _FIRST_PAUSE
    while at != end:
        try:
            for piece in source.chunks(found, at, end):
                if stop.is_set():
                    raise StorageError("Another part of the same download failed.")
                if end >= 0 and at + len(piece) > end:
                    raise StorageError(f"The store sent more of {found.name} than was asked for.")
                yield piece
                at += len(piece)
                tries, pause = 0, _FIRST_PAUSE
            if end < 0:
                return
            if at < end:
                raise BrokenTransferError("The answer ended too early.")
        except BrokenTransferError:
            tries += 1
            if tries == TRIES or (end < 0 and at > start) or stop.wait(pause):
                raise
            pause = min(2 * pause, _LONGEST_PAUSE)
