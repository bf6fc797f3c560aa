"""Bentos kept in a folder: BentoML's own store, or any folder of bentos and archives."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from kfp_bento.runtime.bentos.archive_formats import DIRECTORY, said_format
from kfp_bento.runtime.bentos.archive_glance import glance
from kfp_bento.runtime.bentos.bento_file import BENTO_FILE
from kfp_bento.runtime.bentos.stored_bento import BentoFacts, StoredBento, facts_of_files
from kfp_bento.runtime.errors import BentoError, InvalidInput, StorageError
from kfp_bento.runtime.files import (
    JSON_LIMIT,
    YAML_LIMIT,
    read_small_file,
    reading,
    scratch_inside,
    write_whole,
)
from kfp_bento.runtime.models import RECORD_NAME
from kfp_bento.runtime.storage import open_place

LATEST = "latest"
"""The file in which BentoML's store names the newest version of a bento."""

_DEEPEST = 4  # <home>/bentos/<name>/<version>
_MOST_ENTRIES = 100_000
_LONGEST_VERSION = 256
_SCRATCH = "kfp-bento-delete-"
_UNFINISHED = ".partial-"


class FolderStore:
    """A folder of bentos; see `BentoStore`.

    Args:
        folder: The folder.

    Raises:
        InvalidInput: There is none, or it is a bento itself.
    """

    def __init__(self, folder: Path) -> None:
        self.address = str(folder)
        self._folder = folder
        if not folder.is_dir():
            raise InvalidInput(
                f"There is no folder {folder}.",
                hint="Name the folder or bucket that holds the bentos: kfp-bento bento list STORE.",
            )
        if (folder / BENTO_FILE).is_file():
            raise InvalidInput(
                f"{folder} is a bento, not a store of bentos.",
                hint=f"Look at it with kfp-bento bento show {folder}, or name the folder above it.",
            )

    def list(self) -> list[StoredBento]:
        """Give what is there."""
        with reading(f"{self._folder} cannot be listed", StorageError, hint="Check its rights."):
            found = (self._described(path) for path in self._candidates())
            return [bento for bento in found if bento is not None]

    def delete(self, bento: StoredBento) -> None:
        """Remove a bento at once, with its sum or its golden answers beside it."""
        path = self._folder / bento.place
        if bento.format != DIRECTORY:
            open_place(str(path)).delete()
            return
        hint = "Check the rights of the folder and of what is in it."
        with reading(f"{path} cannot be deleted", StorageError, hint=hint):
            with scratch_inside(self._folder, _SCRATCH) as scratch:
                path.rename(scratch / "gone")
                golden_file(path).unlink(missing_ok=True)
                _settle_latest(path)
            if scratch.exists():
                raise OSError(f"some of it is left in {scratch}")

    def _candidates(self) -> Iterator[Path]:
        """Give folders with a bento.yaml and files with an archive's name, by their path."""
        waiting, seen = [(self._folder, 0)], 0
        while waiting:
            folder, depth = waiting.pop()
            entries = sorted(folder.iterdir())
            seen += len(entries)
            if seen > _MOST_ENTRIES:
                raise InvalidInput(
                    f"{self._folder} has more than {_MOST_ENTRIES} entries.",
                    hint="Name the folder in it that holds the bentos.",
                )
            for path in entries:
                if path.name.startswith((".", _SCRATCH)) or _UNFINISHED in path.name:
                    continue
                kind = path.lstat().st_mode
                if stat.S_ISDIR(kind) and (path / BENTO_FILE).is_file():
                    yield path
                elif stat.S_ISDIR(kind) and depth + 1 < _DEEPEST:
                    waiting.append((path, depth + 1))
                elif stat.S_ISREG(kind) and said_format(path.name):
                    yield path

    def _described(self, path: Path) -> StoredBento | None:
        """Describe a bento; None for what is none."""
        chosen, facts = DIRECTORY, None
        if path.is_dir():
            facts, since = _facts_of_folder(path), path / BENTO_FILE
            size = sum(file.lstat().st_size for file in path.rglob("*") if not file.is_dir())
        else:
            chosen, since, size = said_format(path.name), path, path.stat().st_size
            facts = glance(path)
        if facts is None and chosen != "bento":
            return None
        return StoredBento(
            place=path.relative_to(self._folder).as_posix(),
            format=chosen,
            size=size,
            modified=datetime.fromtimestamp(since.stat().st_mtime, UTC),
            facts=facts or BentoFacts(),
        )


def golden_file(bento: Path) -> Path:
    """Give where the golden answers of a bento in a folder are."""
    return bento.with_name(f"{bento.name}.golden.json")


def _facts_of_folder(folder: Path) -> BentoFacts | None:
    try:
        record = read_small_file(folder / RECORD_NAME, JSON_LIMIT)
    except (OSError, ValueError):
        record = b""
    try:
        return facts_of_files(read_small_file(folder / BENTO_FILE, YAML_LIMIT), record)
    except (OSError, ValueError, BentoError):
        return None


def _settle_latest(gone: Path) -> None:
    """Let BentoML's store name the newest version that is left, as BentoML does it itself."""
    latest = gone.parent / LATEST
    if not latest.is_file():
        return
    if not latest_version(gone.parent):
        latest.unlink()
        if not any(gone.parent.iterdir()):
            gone.parent.rmdir()
    else:
        write_whole(latest_version(gone.parent).encode(), latest)


def latest_version(versions: Path) -> str:
    """Give what is the newest version in a folder of BentoML's store.

    It is the one that BentoML has noted, and where that is gone the one that is there for the
    shortest time; "" where there is none.
    """
    with suppress(OSError, ValueError):
        noted = read_small_file(versions / LATEST, _LONGEST_VERSION).decode().strip()
        if noted and "/" not in noted and (versions / noted / BENTO_FILE).is_file():
            return noted
    files = versions.glob(f"*/{BENTO_FILE}")
    newest = max(files, key=lambda file: (file.stat().st_mtime, file.parent.name), default=None)
    return newest.parent.name if newest else ""
