"""Files and folders of this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from kfp_bento.runtime.errors import InvalidInput, StorageError
from kfp_bento.runtime.files import (
    copied_sha256,
    read_small_file,
    scratch_beside,
    write_whole,
)
from kfp_bento.runtime.storage.place import (
    NotThereError,
    StoredObject,
    parsed_sum,
    require_inside,
    require_sum,
    sum_line,
)

if TYPE_CHECKING:
    from kfp_bento.runtime.storage.place import Progress

_SUM_LIMIT = 4096


class FilePlace:
    """A file, or a folder of files; see `Place`.

    Args:
        root: The address as a path.
    """

    def __init__(self, root: Path) -> None:
        self.address = str(root)
        self._root = root

    def list(self) -> Iterator[StoredObject]:
        """Give what is there, without sums and files that are still being written."""
        if self._root.is_file():
            yield _described("", self._root.stat())
            return
        with _explained(self.address):
            for folder, folders, names in os.walk(self._root):
                folders.sort()
                for name in sorted(names):
                    file = Path(folder, name)
                    if file.is_file() and ".partial-" not in name and file.suffix != ".sha256":
                        inside = file.relative_to(self._root).as_posix()
                        yield _described(inside, file.stat())

    def stat(self, name: str = "") -> StoredObject:
        """Describe a file; its sum is that of the file beside it."""
        file = self._file(name)
        with _explained(str(file)):
            if not file.is_file():
                raise NotThereError(f"There is no file {file}.")
            found = _described(name, file.stat())
        with suppress(OSError, ValueError):
            said = parsed_sum(read_small_file(_sum_file(file), _SUM_LIMIT))
            return replace(found, sha256=said)
        return found

    def read(
        self, to: Path, name: str = "", *, sha256: str = "", progress: Progress | None = None
    ) -> StoredObject:
        """Copy a file."""
        found, file = self.stat(name), self._file(name)
        with _explained(str(file)), scratch_beside(to) as scratch:
            got = copied_sha256(file, scratch / "content")
            require_sum(got, sha256 or found.sha256, str(file))
            (scratch / "content").replace(to)
        if progress:
            progress(found.size, found.size)
        return StoredObject(name, found.size, sha256=got)

    def write(
        self,
        file: Path,
        name: str = "",
        *,
        facts: Mapping[str, str] | None = None,
        progress: Progress | None = None,
    ) -> StoredObject:
        """Copy a file to its name; files have no room for facts."""
        target = self._file(name)
        with _explained(str(target)), scratch_beside(target) as scratch:
            got = copied_sha256(file, scratch / "content")
            # Never a sum beside a file that it is not the sum of, whenever this is killed.
            _sum_file(target).unlink(missing_ok=True)
            (scratch / "content").replace(target)
            write_whole(sum_line(got, target.name), _sum_file(target))
        size = target.stat().st_size
        if progress:
            progress(size, size)
        return StoredObject(name, size, sha256=got)

    def delete(self, name: str = "") -> None:
        """Remove a file and its sum."""
        file = self._file(name)
        with _explained(str(file)):
            file.unlink(missing_ok=True)
            _sum_file(file).unlink(missing_ok=True)

    def presigned(self, name: str = "", *, seconds: int) -> str:
        """Refuse: files of this machine are read here only."""
        raise InvalidInput(
            f"{self._file(name)} is a file here, which nobody else can read.",
            hint="Put it into a bucket, s3:// or minio://.",
        )

    def _file(self, name: str) -> Path:
        return self._root / require_inside(name, self.address)


def _described(name: str, status: os.stat_result) -> StoredObject:
    since = datetime.fromtimestamp(status.st_mtime, UTC)
    return StoredObject(name, status.st_size, modified=since)


def _sum_file(file: Path) -> Path:
    return file.with_name(f"{file.name}.sha256")


@contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as failure:
        raise StorageError(
            f"{failure.filename or what} cannot be read or written: {failure.strerror}.",
            hint="Check the path, its permissions and the free space.",
        ) from failure
