"""The files of one model directory in an artifact store."""

from __future__ import annotations

import queue
import threading
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.errors import ModelError
from kfp_bento.runtime.models.identity import NOT_MODEL_FILES, FileDigest, file_sha256
from kfp_bento.runtime.models.tracking import is_connection_loss

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_WORKERS = 8
_ATTEMPTS = 2
_DEEPEST = 64


def list_files(repository: Any) -> dict[str, int | None]:
    """Lists every file below an artifact repository's root.

    Args:
        repository: An MLflow `ArtifactRepository`.

    Returns:
        Relative POSIX path to size in bytes (None where the store does not say), sorted.

    Raises:
        ModelError: A path would leave the directory, or directories nest without end.
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
                found[path] = None if entry.file_size is None else int(entry.file_size)
            elif path not in seen:
                seen.add(path)
                folders.append(path)
    return {path: found[path] for path in sorted(found) if path not in NOT_MODEL_FILES}


def download_files(
    repository: Any,
    sizes: Mapping[str, int | None],
    directory: Path,
    done: Callable[[int], None] = lambda size: None,
) -> list[FileDigest]:
    """Downloads files, several at a time, and hashes each as soon as it is there.

    The workers are daemon threads on purpose: after Ctrl-C or a first failure nobody waits
    for a large file to finish.

    Args:
        repository: An MLflow `ArtifactRepository`.
        sizes: What to download; see `list_files`.
        directory: An existing directory to write to.
        done: Called with the size of each file that arrived.

    Raises:
        ModelError: A file arrived with another size than the store announced.
    """
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    outcomes: queue.SimpleQueue[FileDigest | BaseException] = queue.SimpleQueue()
    stop = threading.Event()
    for path in sizes:
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        waiting.put(path)

    def work() -> None:
        while not stop.is_set():
            try:
                path = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                outcomes.put(_download(repository, path, sizes[path], directory / path))
            except BaseException as failure:  # carried to the caller's thread
                outcomes.put(failure)

    for _ in range(min(_WORKERS, len(sizes))):
        threading.Thread(target=work, name="kfp-bento-download", daemon=True).start()
    files: list[FileDigest] = []
    try:
        for _ in sizes:
            outcome = outcomes.get()
            if isinstance(outcome, BaseException):
                raise outcome
            files.append(outcome)
            done(outcome.size)
    finally:
        stop.set()
    return files


def _entries(repository: Any, folder: str) -> list[Any]:
    from mlflow.exceptions import MlflowException

    if folder.count("/") >= _DEEPEST:
        raise ModelError(
            f"The artifact listing nests deeper than {_DEEPEST} directories.",
            hint="The store's listing may contain itself; check it.",
        )
    try:
        return list(repository.list_artifacts(folder or None))
    except MlflowException as failure:
        if str(failure).startswith("Invalid path"):
            raise _outside("a path") from failure
        raise


def _inside(path: str) -> str:
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\\" in path or "\0" in path:
        raise _outside(repr(path))
    if "\n" in path:
        raise ModelError(
            f"The model holds {path!r}, a name with a line break.", hint="Log the model again."
        )
    return str(PurePosixPath(path))


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
    return FileDigest(path, file_sha256(target), arrived)
