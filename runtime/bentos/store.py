"""Stores of bentos: what is there, what may go, and one bento out of it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from kfp_bento.runtime.bentos.bento import load_bento
from kfp_bento.runtime.bentos.bentoml_store import store_home, stored_bento
from kfp_bento.runtime.bentos.bucket_store import BucketStore
from kfp_bento.runtime.bentos.exchange import ImportOptions, import_bento
from kfp_bento.runtime.bentos.folder_store import FolderStore
from kfp_bento.runtime.errors import InvalidInput
from kfp_bento.runtime.files import scratch_inside
from kfp_bento.runtime.storage import local_path, open_place

if TYPE_CHECKING:
    from kfp_bento.runtime.bentos.bento import Bento
    from kfp_bento.runtime.bentos.exchange import Progress
    from kfp_bento.runtime.bentos.stored_bento import StoredBento


class BentoStore(Protocol):
    """A place that keeps bentos."""

    address: str

    def list(self) -> list[StoredBento]:
        """Give what is there, in no order; archives are not unpacked.

        Raises:
            InvalidInput: The place cannot be listed.
            StorageError: It refuses, or cannot be reached.
        """

    def delete(self, bento: StoredBento) -> None:
        """Remove a bento.

        Raises:
            StorageError: It cannot be removed.
        """


def open_store(uri: str = "") -> BentoStore:
    """Give the store at an address.

    Args:
        uri: A folder, `s3://bucket/folder/` or `minio://bucket/folder/`; "" for BentoML's own.

    Raises:
        InvalidInput: It makes no sense, or there is no such folder.
    """
    folder = local_path(uri) if uri else store_home() / "bentos"
    return BucketStore(open_place(uri)) if folder is None else FolderStore(folder)


def newest_first(bentos: Sequence[StoredBento]) -> list[StoredBento]:
    """Sort bentos by since when they are in their store, the newest first."""
    by_place = sorted(bentos, key=lambda bento: bento.place)
    return sorted(by_place, key=lambda bento: bento.modified, reverse=True)


def chosen_bentos(bentos: Sequence[StoredBento], wanted: str, address: str) -> list[StoredBento]:
    """Give the bentos of a tag, in whatever formats they are there, or the one at a place.

    Args:
        bentos: What a store lists.
        wanted: `name:version`, or a place as it is listed.
        address: The store's address.

    Raises:
        InvalidInput: There is none.
    """
    found = [bento for bento in bentos if wanted in (bento.facts.tag, bento.place)]
    if not found:
        raise InvalidInput(
            f"There is no bento {wanted} in {address}.",
            hint=f"kfp-bento bento list {address} shows the tags and places that are there.",
        )
    return found


def expendable_bentos(
    bentos: Sequence[StoredBento],
    now: datetime,
    *,
    keep: int,
    older_than: timedelta | None = None,
) -> list[StoredBento]:
    """Give the bentos that may go: all but the newest tags of each name, and only old ones.

    What does not say its tag stays.

    Args:
        bentos: What a store lists.
        now: The time that ages are counted from.
        keep: How many tags of each name stay, whatever their age.
        older_than: What is younger stays too.
    """
    kept: dict[str, list[str]] = {}
    going = []
    for bento in newest_first(bentos):
        facts = bento.facts
        tags = kept.setdefault(facts.name, [])
        if not facts.tag or facts.tag in tags:
            continue
        if len(tags) < keep:
            tags.append(facts.tag)
        elif older_than is None or now - bento.modified > older_than:
            going.append(bento)
    return going


def require_unused(bentos: Sequence[StoredBento], used: Mapping[str, Sequence[str]]) -> None:
    """Make sure that no release serves what is to be deleted.

    Args:
        bentos: What is to be deleted.
        used: Releases, as `namespace/name`, by the tag of the bento that they serve.

    Raises:
        InvalidInput: One does.
    """
    for bento in bentos:
        if releases := used.get(bento.facts.tag):
            namespace, _, name = releases[0].partition("/")
            raise InvalidInput(
                f"{bento.facts.tag} is served by {', '.join(releases)}: nothing was deleted.",
                hint=f"Delete the release first: kfp-bento release delete {name} "
                f"--namespace {namespace}",
            )


@contextmanager
def opened_bento(
    source: str, *, lock: bool = False, progress: Progress | None = None
) -> Iterator[Bento]:
    """Give a bento for the length of a block, wherever it is.

    Args:
        source: The folder of a bento, `name:version` or `name` of BentoML's store, an archive, or
            its address as `open_place` takes it.
        lock: Whether one out of an archive is locked with hashes, as `import_bento` does it.
        progress: Told the bytes fetched and the bytes in all.

    Raises:
        BentoError: There is no such bento, or it cannot be read.
        InvalidInput: The address makes no sense.
        StorageError: It cannot be fetched.
    """
    folder = _folder_of(source)
    if folder is not None:
        yield load_bento(folder)
        return
    with scratch_inside(Path(tempfile.gettempdir()), "kfp-bento-opened-") as scratch:
        yield import_bento(source, scratch / "bento", ImportOptions(lock=lock), progress=progress)


def _folder_of(source: str) -> Path | None:
    """Give the folder that a bento is in already; None for an archive."""
    path = None if "://" in source and not source.startswith("file:") else local_path(source)
    if path is not None and path.is_dir():
        return path
    return stored_bento(source)
