"""Records and blobs that are kept in a local directory.

The directory holds ``blobs/sha256/<hex>`` and ``records/<key>.json``. It may be deleted at any
time, and several builds may share it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from kfp_bento.runtime.files import parse_json_value, read_small_file
from kfp_bento.runtime.images.blobs import BlobDirectory, storage_errors
from kfp_bento.runtime.images.image import BlobSource, Descriptor, Layer
from kfp_bento.runtime.images.recipes import key_of
from kfp_bento.runtime.images.tar import TarEntry, changed_while_packed

# A file that changed this shortly before it was read may change again without a new time stamp.
_SETTLED_SECONDS = 2.0
# Enough for the files of the largest models; other records are far smaller.
_RECORD_LIMIT = 64 << 20


@dataclass(frozen=True)
class LayerCache:
    """Layers by the inputs they were made of, with their blobs."""

    directory: Path

    @property
    def blobs(self) -> BlobDirectory:
        """Where the layers' bytes are."""
        return BlobDirectory(self.directory)

    def find_layer(self, key: str) -> Layer | None:
        """The layer that these inputs gave before, if its blob is still there.

        The blob's bytes are not looked at: whoever reads them sees whether they are right.
        """
        try:
            layer = Layer.from_dict(self.find_facts(f"layer-{key}"))
        except ValueError:
            return None
        return layer if self.blobs.local_path(layer.descriptor) else None

    def keep_layer(self, key: str, layer: Layer, source: BlobSource) -> None:
        """Remembers that these inputs gave this layer."""
        self.blobs.put_blob(layer.descriptor, source)
        self.keep_facts(f"layer-{key}", asdict(replace(layer, origin="reused", placement="")))

    def find_facts(self, key: str) -> Any:
        """JSON values kept under this key; None if there are none."""
        try:
            return parse_json_value(read_small_file(self._record(key), _RECORD_LIMIT))
        except (OSError, ValueError):
            return None

    def keep_facts(self, key: str, facts: Any) -> None:
        """Remembers JSON values; what a killed process leaves behind is never read."""
        record = self._record(key)
        partial = record.with_name(f"{record.name}.partial-{os.getpid()}")
        with storage_errors(record):
            record.parent.mkdir(parents=True, exist_ok=True)
            try:
                partial.write_text(json.dumps(facts, sort_keys=True))
                partial.replace(record)
            finally:
                partial.unlink(missing_ok=True)

    def find_diff_id(self, key: str, entries: Sequence[TarEntry]) -> str:
        """The tar digest that these very files gave before, empty if any may have changed.

        Files are recognised as git recognises them, by inode, size and times.
        """
        facts = self.find_facts(f"files-{key}")
        if isinstance(facts, dict) and facts.get("files") == _fingerprint(entries):
            return str(facts.get("diff_id", ""))
        return ""

    def keep_diff_id(self, key: str, entries: Sequence[TarEntry], diff_id: str) -> None:
        """Remembers which tar digest these files gave, unless they are too fresh to be told."""
        files = _fingerprint(entries)
        newest = max((change for *_, change in files), default=0)
        if newest < (time.time() - _SETTLED_SECONDS) * 1e9:
            self.keep_facts(f"files-{key}", {"files": files, "diff_id": diff_id})

    def _record(self, key: str) -> Path:
        return self.directory / "records" / f"{key}.json"


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


def cached_layer(
    cache: LayerCache | None,
    workspace: BlobDirectory,
    inputs: dict[str, Any],
    build: Callable[[BlobDirectory], Layer],
) -> Layer:
    """The layer for these inputs, from the cache or built now; its blob ends in ``workspace``."""
    if cache is None:
        return build(workspace)
    key = key_of(inputs)
    layer = cache.find_layer(key)
    if layer is None or not cache.blobs.holds(layer.descriptor):
        layer = build(cache.blobs)
        cache.keep_layer(key, layer, cache.blobs)
    workspace.put_blob(layer.descriptor, cache.blobs)
    return layer


@dataclass(frozen=True)
class KeptBlobs:
    """A source whose blobs are fetched once and from then on read from a directory."""

    source: BlobSource
    kept: BlobDirectory

    def open_blob(self, blob: Descriptor) -> Iterator[bytes]:
        """Yields the blob, fetching it first if need be."""
        self.kept.put_blob(blob, self.source)
        return self.kept.open_blob(blob)

    def local_path(self, blob: Descriptor) -> Path | None:
        """The kept file, fetched first if need be; its bytes are checked."""
        if not self.kept.holds(blob):
            self.kept.put_blob(blob, self.source)
        return self.kept.local_path(blob)
