"""The files of one model directory in an artifact store."""

from __future__ import annotations

import contextlib
import glob
import os
import queue
import threading
import time
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.concurrency import Stopped
from kfp_bento.runtime.errors import ModelError
from kfp_bento.runtime.files import file_sha256
from kfp_bento.runtime.models.identity import NOT_MODEL_FILES, FileDigest
from kfp_bento.runtime.models.location import within_seconds
from kfp_bento.runtime.models.text import has_control_characters, shown_text
from kfp_bento.runtime.models.tracking import is_connection_loss

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

WORKERS = 8
"""Files that are downloaded at a time, of all models together."""
_ATTEMPTS = 2
_DEEPEST = 64
_MOST_FILES = 100_000
_LOOK_SECONDS = 0.1


def list_files(repository: Any) -> dict[str, int | None]:
    """List every file below an artifact repository's root.

    Args:
        repository: An MLflow `ArtifactRepository`.

    Returns:
        Relative POSIX path to size in bytes (None where the store does not say), sorted.

    Raises:
        ModelError: A path would leave the directory or has control characters, or there is no
            end of files or directories.
    """
    found: dict[str, int | None] = {}
    folders: list[str] = [""]
    seen = {""}
    while folders:
        folder = folders.pop()
        for entry in _entries(repository, folder):
            path = _inside(str(entry.path))
            if path in (".", folder):
                continue
            if not entry.is_dir:
                found[path] = _announced(path, entry.file_size)
            elif path not in seen:
                seen.add(path)
                folders.append(path)
            if len(found) + len(seen) > _MOST_FILES:
                raise ModelError(
                    f"The artifact listing has more than {_MOST_FILES} files and directories.",
                    hint="Check the path; a model has fewer.",
                )
    return {path: found[path] for path in sorted(found) if path not in NOT_MODEL_FILES}


def download_files(
    repository: Any,
    sizes: Mapping[str, int | None],
    directory: Path,
    done: Callable[[int], None] = lambda size: None,
    *,
    workers: int = WORKERS,
    stop: threading.Event | None = None,
) -> list[FileDigest]:
    """Download files, several at a time, and hash each as soon as it is there.

    The workers are daemon threads on purpose: after Ctrl-C or a first failure nobody waits
    for a large file to finish.

    Args:
        repository: An MLflow `ArtifactRepository`.
        sizes: What to download; see `list_files`.
        directory: An existing directory to write to.
        done: Called with the size of each file that arrived.
        workers: How many files are downloaded at a time.
        stop: Set by others when nobody wants the files any more.

    Raises:
        ModelError: A file has another size than the store announced; one that is larger is
            stopped on the way.
        Stopped: It was told to.
    """
    waiting = iter(list(sizes))
    outcomes: queue.SimpleQueue[FileDigest | BaseException] = queue.SimpleQueue()
    ended = threading.Event()
    running: set[str] = set()
    for path in sizes:
        (directory / path).parent.mkdir(parents=True, exist_ok=True)

    def work() -> None:
        while not ended.is_set() and (path := next(waiting, None)) is not None:
            running.add(path)
            try:
                outcomes.put(_download(repository, path, sizes[path], directory / path))
            except BaseException as failure:  # carried to the caller's thread
                outcomes.put(failure)
            finally:
                running.discard(path)

    for _ in range(min(workers, len(sizes))):
        threading.Thread(target=work, name="kfp-bento-download", daemon=True).start()
    try:
        return _collected(outcomes, sizes, directory, running, done, stop)
    finally:
        ended.set()


def _collected(
    outcomes: queue.SimpleQueue[FileDigest | BaseException],
    sizes: Mapping[str, int | None],
    directory: Path,
    running: set[str],
    done: Callable[[int], None],
    stop: threading.Event | None,
) -> list[FileDigest]:
    """Wait for all files, and look meanwhile at those that are being written."""
    files: list[FileDigest] = []
    look = 0.0
    while len(files) < len(sizes):
        if stop is not None and stop.is_set():
            raise Stopped("Another download of the same pull failed.")
        if time.monotonic() >= look:
            _stop_oversized(directory, sizes, running)
            look = time.monotonic() + _LOOK_SECONDS
        try:
            outcome = outcomes.get(timeout=_LOOK_SECONDS)
        except queue.Empty:
            continue
        if isinstance(outcome, BaseException):
            raise outcome
        files.append(outcome)
        done(outcome.size)
    return files


def _stop_oversized(directory: Path, sizes: Mapping[str, int | None], running: set[str]) -> None:
    """End the download of a file that has become larger than the store announced."""
    for path in list(running):
        size = sizes[path]
        for file in _written_for(directory, path, sizes) if size is not None else ():
            with contextlib.suppress(FileNotFoundError):
                if file.stat().st_size > (size or 0):
                    _cut_off(file)
                    raise ModelError(
                        f"{path} is larger than the {size} bytes that the store announced.",
                        hint="Do not use this model: its store was tampered with or is broken.",
                    )


def _written_for(directory: Path, path: str, sizes: Mapping[str, int | None]) -> list[Path]:
    """Give the file itself, or those beside it that boto3 writes first: `weights.bin.5dE2fA13`."""
    target = directory / path
    if target.exists():
        return [target]
    beside = target.parent.glob(f"{glob.escape(target.name)}.*")
    return [file for file in beside if file.relative_to(directory).as_posix() not in sizes]


def _cut_off(file: Path) -> None:
    """Take a file away from whatever library writes it in this process: its next write fails."""
    wanted = file.stat()
    nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for name in list(Path("/dev/fd").iterdir()):
            with contextlib.suppress(OSError):
                handle = int(name.name)
                found = os.fstat(handle)
                if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
                    os.dup2(nothing, handle, inheritable=False)
    finally:
        os.close(nothing)


def _entries(repository: Any, folder: str) -> list[Any]:
    from mlflow.exceptions import MlflowException

    if folder.count("/") >= _DEEPEST:
        raise ModelError(
            f"The artifact listing nests deeper than {_DEEPEST} directories.",
            hint="The store's listing may contain itself; check it.",
        )
    try:
        if not folder:  # a store that is not there is noticed at the first question
            return within_seconds(lambda: list(repository.list_artifacts(None)))
        return list(repository.list_artifacts(folder))
    except MlflowException as failure:
        if str(failure).startswith("Invalid path"):
            raise _outside("a path") from failure
        raise


def _inside(path: str) -> str:
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\\" in path or "\0" in path:
        raise _outside(repr(path))
    if has_control_characters(path):
        raise ModelError(
            f"The model holds {path!a}, a name with control characters.",
            hint="Log the model again.",
        )
    return str(PurePosixPath(path))


def _announced(path: str, size: Any) -> int | None:
    if size is None:
        return None
    try:
        number = int(size)
    except (TypeError, ValueError):
        number = -1
    if number < 0:
        raise ModelError(
            f"The artifact listing gives {path!r} the size {shown_text(size, longest=40)}.",
            hint="The store is broken; look at its own log.",
        )
    return number


def _outside(path: str) -> ModelError:
    return ModelError(
        f"The artifact listing contains {path} that leaves the model's directory.",
        hint="Do not use this model: its store was tampered with or is broken.",
    )


def _download(repository: Any, path: str, size: int | None, target: Path) -> FileDigest:
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            repository._download_file(remote_file_path=path, local_path=str(target))
            break
        except Exception as failure:
            # MLflow repeats requests, but not one whose answer breaks off half-way.
            if attempt == _ATTEMPTS or not is_connection_loss(failure):
                raise
    arrived = target.stat().st_size
    if size is not None and arrived != size:
        raise ModelError(
            f"{path} arrived with {arrived} bytes; the store announced {size}.",
            hint="Pull the model again; if it stays so, the stored model is damaged.",
        )
    # A store on a disk copies the modes of its own files; ours follow the umask, as directories do.
    target.chmod(target.parent.stat().st_mode & 0o666)
    return FileDigest(path, file_sha256(target), arrived)
