"""Records and blobs that are kept in a local directory.

The directory holds `blobs/sha256/<hex>` and `records/<key>.json`. It may be deleted at any
time, and several builds may share it. It is nobody else's to read or write, and its records carry
a seal: what somebody else put there is as good as not there.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kfp_bento.runtime.errors import InvalidInput
from kfp_bento.runtime.files import KEY_VARIABLE, parse_json, read_small_file, shared_key
from kfp_bento.runtime.images.cache.seals import are_ours, seal_facts
from kfp_bento.runtime.images.oci.blobs import BlobDirectory, storage_errors
from kfp_bento.runtime.images.oci.image import BlobSource, Descriptor, Layer
from kfp_bento.runtime.images.oci.keys import key_of
from kfp_bento.runtime.images.oci.layers import Codec
from kfp_bento.runtime.images.oci.tar import TarEntry, changed_while_packed
from kfp_bento.runtime.images.places.layout import LayoutSource

# A file that changed this shortly before it was read may change again without a new time stamp.
_SETTLED_SECONDS = 2.0
# Enough for the files of the largest models; other records are far smaller.
_RECORD_LIMIT = 64 << 20
_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH
_PARTS = ("", "records", "blobs", "blobs/sha256")


@dataclass(frozen=True)
class LayerCache:
    """Layers by the inputs they were made of, with their blobs.

    Attributes:
        directory: Where they are.
        private: Whether nobody else can write there. If not, blobs are copied and checked while
            they are copied, never linked: what is linked could change after it was checked.
        passed_over: Keys of records that carried no seal of ours.
    """

    directory: Path
    private: bool = True
    passed_over: set[str] = field(default_factory=set, compare=False, repr=False)

    @property
    def sealed(self) -> bool:
        """True: without a seal of ours no record counts."""
        return True

    @property
    def blobs(self) -> BlobDirectory:
        """Where the layers' bytes are."""
        return BlobDirectory(self.directory)

    @property
    def source(self) -> BlobSource:
        """Give out the layers' bytes."""
        return self.blobs if self.private else LayoutSource(self.directory)

    def find_layer(self, key: str) -> Layer | None:
        """Give the layer that these inputs gave before, if its blob is still there.

        The blob's bytes are not looked at: whoever reads them sees whether they are right.
        """
        try:
            layer = Layer.from_dict(self.find_facts(f"layer-{key}"))
        except ValueError:
            return None
        return layer if self._is_own(self.blobs.local_path(layer.descriptor)) else None

    def keep_layer(self, key: str, layer: Layer, source: BlobSource) -> None:
        """Remember that these inputs gave this layer."""
        self.blobs.put_blob(layer.descriptor, source)
        self.keep_facts(f"layer-{key}", layer.record())

    def find_facts(self, key: str) -> Any:
        """JSON values kept under this key; None if there are none, or none of ours."""
        try:
            record = parse_json(read_small_file(self._record(key), _RECORD_LIMIT))
        except (OSError, ValueError):
            return None
        facts = record.get("facts")
        if are_ours(key, facts, record.get("seal")):
            return facts
        self.passed_over.add(key)
        return None

    def keep_facts(self, key: str, facts: Any) -> None:
        """Remember JSON values; what a killed process leaves behind is never read."""
        record = self._record(key)
        partial = record.with_name(f"{record.name}.partial-{os.getpid()}")
        sealed = {"facts": facts, "seal": seal_facts(key, facts)}
        with storage_errors(record):
            record.parent.mkdir(parents=True, exist_ok=True)
            try:
                partial.write_text(json.dumps(sealed, sort_keys=True))
                partial.replace(record)
            finally:
                partial.unlink(missing_ok=True)

    def find_reading(self, key: str, entries: Sequence[TarEntry]) -> tuple[str, dict[str, str]]:
        """Give the tar digest and the files' SHA-256 that these very files gave before.

        Files are recognised as git recognises them, by inode, size and times.

        Returns:
            An empty text if any file may have changed.
        """
        facts = self.find_facts(f"files-{key}")
        if isinstance(facts, dict) and facts.get("files") == _fingerprint(entries):
            sums = facts.get("sums")
            return str(facts.get("diff_id", "")), dict(sums) if isinstance(sums, dict) else {}
        return "", {}

    def keep_reading(
        self, key: str, entries: Sequence[TarEntry], diff_id: str, sums: Mapping[str, str]
    ) -> None:
        """Remember what these files gave, unless they are too fresh to be told."""
        files = _fingerprint(entries)
        newest = max((change for *_, change in files), default=0)
        if newest < (time.time() - _SETTLED_SECONDS) * 1e9:
            facts = {"files": files, "diff_id": diff_id, "sums": dict(sums)}
            self.keep_facts(f"files-{key}", facts)

    def _is_own(self, blob: Path | None) -> bool:
        """Whether a blob is there that nobody else can change, or one that will be copied."""
        if blob is None or not self.private:
            return blob is not None
        status = blob.lstat()
        return status.st_uid == os.getuid() and not status.st_mode & _OTHERS_MAY_WRITE

    def _record(self, key: str) -> Path:
        return self.directory / "records" / f"{key}.json"


def open_cache(directory: Path) -> LayerCache:
    """Open a cache, or make one that only this user can read and write.

    Where a shared key seals the records, as it does for pods of a team, others may write there too.

    Raises:
        InvalidInput: It belongs to somebody else, or others can write there.
        ImageError: It cannot be made or looked at.
    """
    directory = Path(os.path.abspath(directory))  # noqa: PTH100 - symlinks are looked at below
    with storage_errors(directory):
        with contextlib.suppress(FileExistsError):
            directory.mkdir(mode=0o700, parents=True)
        # Behind a closed door it does not matter who may write.
        closed = directory.stat().st_mode & 0o077 == 0
        objections = (_objection(path, closed=closed) for path in _parts(directory))
        objection = next(filter(None, objections), "")
        if objection and shared_key() is None:
            raise InvalidInput(
                f"The cache {directory} is not used: {objection}, who could plant layers there.",
                hint=f"Name a new directory, there or elsewhere: it is made for you alone. If this "
                f"one is yours and nobody else wrote there, `chmod -R go-w {directory}` keeps it. "
                f"Where several users share one, let {KEY_VARIABLE} hold a secret of theirs.",
            )
        if not objection:
            directory.chmod(0o700)
    return LayerCache(directory, private=not objection and not _can_be_replaced(directory))


def _parts(directory: Path) -> Iterator[Path]:
    for part in _PARTS:
        if os.path.lexists(directory / part):
            yield directory / part


def _objection(path: Path, *, closed: bool) -> str:
    """Give what speaks against a directory of a cache: that others own it or can write there."""
    for status in (path.lstat(), path.stat()):
        if status.st_uid != os.getuid() and not (
            stat.S_ISLNK(status.st_mode) and status.st_uid == 0
        ):
            return f"{path} belongs to another user"
        open_door = not closed and not stat.S_ISLNK(status.st_mode)
        if open_door and status.st_mode & _OTHERS_MAY_WRITE:
            return f"{path} can be written by other users"
    return ""


def _can_be_replaced(directory: Path) -> bool:
    """Whether others can rename a directory above, such as in a scratch volume for everybody."""
    return any(
        status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX
        for status in (parent.stat() for parent in directory.resolve().parents)
    )


def _fingerprint(entries: Sequence[TarEntry]) -> list[list[Any]]:
    found = []
    for entry in entries:
        if entry.file is not None:
            try:
                status = os.lstat(entry.file)
            except OSError as error:
                raise changed_while_packed(entry.file) from error
            where = [entry.path, status.st_dev, status.st_ino, status.st_size]
            found.append([*where, status.st_mtime_ns, status.st_ctime_ns])
    return found


@dataclass(frozen=True)
class LayerBuilder:
    """How layers are made, and where.

    Attributes:
        workspace: Where new blobs may be written.
        codec: How layers are compressed.
        epoch: Seconds since 1970 for every timestamp.
        cache: Where layers are kept between builds.
        tell: Told what is going on.
    """

    workspace: BlobDirectory
    codec: Codec
    epoch: int
    cache: LayerCache | None
    tell: Callable[[str], None]

    @property
    def spare(self) -> Path:
        """Where uv keeps wheels for the length of a build, if it has no cache of its own."""
        return self.workspace.root / ".uv-cache"

    def layer(self, inputs: Mapping[str, Any], build: Callable[[BlobDirectory], Layer]) -> Layer:
        """Give the layer for these inputs, kept or built now; its blob ends in the workspace."""
        if self.cache is None:
            return build(self.workspace)
        key = key_of({**inputs, "codec": self.codec.identity, "epoch": self.epoch})
        layer = self.cache.find_layer(key)
        if layer is None or not self.cache.blobs.holds(layer.descriptor):
            layer = build(self.cache.blobs)
            self.cache.keep_layer(key, layer, self.cache.blobs)
        self.workspace.put_blob(layer.descriptor, self.cache.source)
        return layer


@dataclass(frozen=True)
class KeptBlobs(BlobSource):
    """A source whose blobs are fetched once and from then on read from a cache."""

    source: BlobSource
    cache: LayerCache

    def open_blob(self, blob: Descriptor) -> Iterator[bytes]:
        """Yield the blob, fetched first if need be."""
        self.cache.blobs.put_blob(blob, self.source)
        return self.cache.blobs.open_blob(blob)

    def local_path(self, blob: Descriptor) -> Path | None:
        """Give the kept file, fetched first if need be; its bytes are checked."""
        kept = self.cache.blobs
        if not kept.holds(blob):
            kept.put_blob(blob, self.source)
        return self.cache.source.local_path(blob)
