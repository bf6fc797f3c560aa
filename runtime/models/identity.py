"""What makes two models the same: digests over their files."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kfp_bento.runtime.errors import ModelError
from kfp_bento.runtime.files import file_sha256
from kfp_bento.runtime.models.portable import portable_files
from kfp_bento.runtime.models.text import has_control_characters
from kfp_bento.runtime.models.version import RECORD_NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

NOT_MODEL_FILES = frozenset({RECORD_NAME, "registered_model_meta"})
"""Files at the top of a model directory that say where it came from, not what it is."""


@dataclass(frozen=True)
class FileDigest:
    """One file of a tree: POSIX path relative to it, SHA-256 in hexadecimal, size in bytes."""

    path: str
    sha256: str
    size: int


def set_digest(files: Iterable[FileDigest]) -> str:
    """Give one digest for a set of files.

    It is the SHA-256 over the sorted lines `<sha256 hex>  <path>`, which is what
    `sha256sum FILES | LC_ALL=C sort | sha256sum` prints.
    """
    lines = sorted(os.fsencode(f"{file.sha256}  {file.path}\n") for file in files)
    return "sha256:" + hashlib.sha256(b"".join(lines)).hexdigest()


def content_set_digest(directory: Path, files: Iterable[FileDigest]) -> str:
    """Give the digest of a model's files as they are in a bento; see `portable_files`."""
    files = list(files)
    portable = portable_files(directory, [file.path for file in files])
    return set_digest(
        _digest_of(file.path, portable[file.path]) if file.path in portable else file
        for file in files
    )


def _digest_of(path: str, content: bytes) -> FileDigest:
    return FileDigest(path, hashlib.sha256(content).hexdigest(), len(content))


def model_files(directory: Path, *, leave_out: frozenset[str] = NOT_MODEL_FILES) -> dict[str, Path]:
    """List the files of a tree by relative POSIX path, sorted.

    Args:
        directory: The top of the tree.
        leave_out: File names at the top of the tree that do not count.

    Raises:
        ModelError: A link points out of the tree, an entry is neither file nor directory, or a
            name has control characters.
    """
    root = directory.resolve()
    found: dict[str, Path] = {}
    for folder, folders, names in os.walk(directory, followlinks=False):
        here = Path(folder)
        for name in folders:
            if (here / name).is_symlink():
                raise _strange(directory, here / name, "is a link to a directory")
        for name in names:
            path = here / name
            relative = path.relative_to(directory).as_posix()
            if relative in leave_out:
                continue
            if has_control_characters(relative):
                raise _strange(directory, path, "has control characters in its name")
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                raise _strange(directory, path, "is a link that leaves the directory")
            if not path.is_file():
                raise _strange(directory, path, "is not a regular file")
            found[relative] = path
    return dict(sorted(found.items()))


def file_digests(
    files: Mapping[str, Path], digest: Callable[[Path], str] = file_sha256
) -> list[FileDigest]:
    """Hashes several files at the same time; each is read once, in pieces.

    Args:
        files: What `model_files` gives.
        digest: What hashes one file.
    """
    # hashlib releases the interpreter lock, so threads do run in parallel here.
    pool = ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1))
    try:
        sums = pool.map(digest, files.values())
        return [
            FileDigest(path, sha256, file.stat().st_size)
            for (path, file), sha256 in zip(files.items(), sums, strict=True)
        ]
    finally:
        pool.shutdown(cancel_futures=True)


def tree_digest(directory: Path, *, leave_out: frozenset[str] = NOT_MODEL_FILES) -> str:
    """Give `sha256:…` over all files below a directory; see `set_digest` and `model_files`."""
    return set_digest(file_digests(model_files(directory, leave_out=leave_out)))


def _strange(directory: Path, path: Path, what: str) -> ModelError:
    return ModelError(
        f"The model directory holds {path.relative_to(directory).as_posix()!r}, which {what}.",
        hint="Copy the model with `cp -rL` so that it holds plain files only.",
    )
