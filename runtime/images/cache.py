"""Layers that are kept: a blob, and a record that says which inputs gave it.

The directory holds ``blobs/sha256/<hex>`` and ``layers/<key>.json``. It may be deleted at any
time, and several builds may share it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kfp_bento.runtime.images.blobs import BlobDirectory, storage_errors
from kfp_bento.runtime.images.image import BlobSource, Descriptor, Layer

# Part of every key: raise it whenever the same inputs come to give other bytes.
BUILDER_FORMAT = 1


@dataclass(frozen=True)
class LayerCache:
    """Layers by the inputs they were made of."""

    directory: Path

    @property
    def blobs(self) -> BlobDirectory:
        """Where the layers' bytes are."""
        return BlobDirectory(self.directory)

    def find(self, inputs: dict[str, Any]) -> Layer | None:
        """The layer that these inputs gave before, if its blob is still there and whole."""
        try:
            layer = Layer(**json.loads(self._record(inputs).read_bytes()))
        except (OSError, ValueError, TypeError):
            return None
        return layer.with_origin("reused") if self.blobs.holds(layer.descriptor) else None

    def keep(self, inputs: dict[str, Any], layer: Layer) -> None:
        """Remembers that these inputs gave this layer, whose blob must be here already."""
        record = self._record(inputs)
        partial = record.with_name(f"{record.name}.partial-{os.getpid()}")
        with storage_errors(record):
            record.parent.mkdir(parents=True, exist_ok=True)
            try:
                partial.write_text(json.dumps(asdict(layer), indent=1, sort_keys=True))
                partial.replace(record)
            finally:
                partial.unlink(missing_ok=True)

    def _record(self, inputs: dict[str, Any]) -> Path:
        text = json.dumps({"format": BUILDER_FORMAT, **inputs}, sort_keys=True)
        return self.directory / "layers" / f"{hashlib.sha256(text.encode()).hexdigest()}.json"


def cached_layer(
    cache: LayerCache | None,
    workspace: BlobDirectory,
    inputs: dict[str, Any],
    build: Callable[[BlobDirectory], Layer],
) -> Layer:
    """The layer for these inputs, from the cache or built now; its blob ends in ``workspace``."""
    if cache is None:
        return build(workspace)
    layer = cache.find(inputs)
    if layer is None:
        layer = build(cache.blobs)
        cache.keep(inputs, layer)
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
