"""A look into an archive for what a bento says of itself, without unpacking it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from kfp_bento.runtime.bentos.archive_reading import read_archive
from kfp_bento.runtime.bentos.archive_tree import Allowance
from kfp_bento.runtime.bentos.bento_file import BENTO_FILE
from kfp_bento.runtime.bentos.stored_bento import BentoFacts, facts_of_files
from kfp_bento.runtime.errors import BentoError
from kfp_bento.runtime.files import YAML_LIMIT
from kfp_bento.runtime.models import RECORD_NAME

# Archives are sorted, by us and by `bentoml export`, so that it stands before models and sources.
_FAR_ENOUGH = 64 << 20


def glance(archive: Path) -> BentoFacts | None:
    """Give what the bento in an archive says of itself; None where there is none to be seen.

    Reading ends at its `bento.yaml`, or after 64 MiB without one.

    Args:
        archive: The file.

    Raises:
        OSError: It cannot be read.
    """
    seen = _Glance()
    try:
        read_archive(archive, seen)
    except _Enough:
        pass
    except (BentoError, ValueError):
        return None
    try:
        return facts_of_files(seen.found[BENTO_FILE], seen.found.get(RECORD_NAME, b""))
    except (BentoError, KeyError):
        return None


class _Enough(Exception):
    """What was looked for is found."""


class _Glance:
    """Takes the documents of a bento out of an archive, and passes over everything else."""

    def __init__(self) -> None:
        self.allowance = Allowance(0, _FAR_ENOUGH)
        self.found: dict[str, bytes] = {}

    def folder(self, name: str) -> None:
        """Pass over a folder."""

    def link(self, name: str, target: str) -> None:
        """Pass over a link."""

    def file(self, name: str, pieces: Iterator[bytes], size: int, mode: int) -> None:
        """Keep a document of the top folder, or of the only folder in it."""
        parts = PurePosixPath(name).parts
        if len(parts) > 2 or parts[-1:] not in ((BENTO_FILE,), (RECORD_NAME,)):
            return
        if size <= YAML_LIMIT:
            self.found.setdefault(parts[-1], b"".join(pieces))
        if parts[-1] == BENTO_FILE:
            raise _Enough

    def finish(self) -> None:
        """Nothing is left to look at."""
