"""What is remembered between builds: which inputs gave which layer, and documents of others.

Records live beside the images, in the registry, so that a pod that starts empty finds them; and in
a local directory where there is one. A record is only ever a short cut: without any, a build gives
the same bytes.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from kfp_bento.runtime.concurrency import run_all
from kfp_bento.runtime.errors import ImageError
from kfp_bento.runtime.files import KEY_VARIABLE, parse_json, parse_json_value, shared_key
from kfp_bento.runtime.images.cache.seals import are_ours, seal_facts
from kfp_bento.runtime.images.oci.blobs import BytesSource
from kfp_bento.runtime.images.oci.config import (
    EMPTY,
    EMPTY_TYPE,
    canonical_json,
    descriptor_of,
)
from kfp_bento.runtime.images.oci.image import (
    OCI_MANIFEST,
    BlobSource,
    Descriptor,
    Layer,
    descriptor_from,
)
from kfp_bento.runtime.images.oci.keys import key_of
from kfp_bento.runtime.images.places.registry import KEY_DIGITS
from kfp_bento.runtime.images.registry.repository import Repository

RECORD_TYPE = "application/vnd.kfp-bento.record.v1+json"
DOCUMENT_TYPE = "application/vnd.kfp-bento.document.v1+json"
LOOKUPS = 8
"""Questions to a registry at one time."""

_ANNOTATION = "kfp-bento.record"
_SEAL = "kfp-bento.seal"


class Records(Protocol):
    """Facts and layers by key."""

    @property
    def sealed(self) -> bool:
        """Say whether everything that is found here is known to be our own."""

    def find_layer(self, key: str) -> Layer | None:
        """Give the layer that the inputs with this key gave before."""

    def keep_layer(self, key: str, layer: Layer, source: BlobSource) -> None:
        """Remember a layer; its blob can be had from the source."""

    def find_facts(self, key: str) -> Any:
        """JSON values kept under this key; None if there are none."""

    def keep_facts(self, key: str, facts: Any) -> None:
        """Remember JSON values."""


@dataclass(frozen=True)
class RegistryRecords:
    """Records as small artifacts in a repository, each with a tag of its own.

    A layer's record refers to the layer's blob, which the registry's garbage collector therefore
    keeps. Whoever may write to the repository can plant a record, as well as an image. Where a
    shared key is set, only those count that carry its seal.

    Args:
        repository: Where the records are.
    """

    repository: Repository
    _asked: dict[frozenset[str], dict[str, Layer]] = field(default_factory=dict, compare=False)
    _together: set[frozenset[str]] = field(default_factory=set, compare=False)
    _asking: threading.Lock = field(default_factory=threading.Lock, compare=False)

    @property
    def sealed(self) -> bool:
        """Whether everything that is found here is known to be our own."""
        return shared_key() is not None

    def find_layer(self, key: str) -> Layer | None:
        """Give the recorded layer; its blob is in this repository."""
        try:
            return Layer.from_dict(self._find(f"layer-{key[:KEY_DIGITS]}")).with_origin("reused")
        except ValueError:
            return None  # none, or another version's record: as good as none

    def keep_layer(self, key: str, layer: Layer, source: BlobSource) -> None:
        """Write a record; the blob is mounted or sent if it comes from elsewhere."""
        if source is not self.repository:
            self.repository.put_blob(layer.descriptor, source)
        self._write(f"layer-{key[:KEY_DIGITS]}", layer.record(), [layer.descriptor])

    def find_layers(self, keys: Sequence[str]) -> dict[str, Layer]:
        """Give those of several layers that are recorded, by their keys, asked once in one round.

        One question does where all of them were recorded together.
        """
        wanted = frozenset(keys)
        with self._asking:
            if wanted not in self._asked:
                together = self.find_together(keys)
                self._together.update([wanted] if together else ())
                self._asked[wanted] = together or self._find_each(keys)
            return self._asked[wanted]

    def _find_each(self, keys: Sequence[str]) -> dict[str, Layer]:
        found = run_all([functools.partial(self.find_layer, key) for key in keys], LOOKUPS)
        return {key: layer for key, layer in zip(keys, found, strict=True) if layer}

    def find_together(self, keys: Sequence[str]) -> dict[str, Layer]:
        """Give layers that were recorded together, by their keys; none if one is missing."""
        try:
            facts = self._find(_name_of(keys))
            if not isinstance(facts, dict) or facts.keys() != set(keys):
                return {}
            return {
                key: Layer.from_dict(found).with_origin("reused") for key, found in facts.items()
            }
        except ValueError:
            return {}

    def keep_together(self, layers: Mapping[str, Layer]) -> None:
        """Write one record of layers whose blobs are here, so that one question finds them all."""
        facts = {key: layer.record() for key, layer in layers.items()}
        these = frozenset(layers)
        known = self._asked[these] if these in self._together else {}
        if facts == {key: layer.record() for key, layer in known.items()}:
            return
        blobs = dict.fromkeys(layer.descriptor for layer in layers.values())
        self._write(_name_of(layers), facts, list(blobs))

    def find_facts(self, key: str) -> Any:
        """Give the recorded values."""
        return self._find(f"facts-{key[:KEY_DIGITS]}")

    def keep_facts(self, key: str, facts: Any) -> None:
        """Write a record."""
        self._write(f"facts-{key[:KEY_DIGITS]}", facts, [])

    def find_document(self, kind: str, key: str) -> bytes | None:
        """Give a document that was kept under this key; None if there is none.

        Without a shared key nobody could say whose it is, and none is looked for.

        Raises:
            ImageError: What is there is not sealed by those who have the key, or not whole.
            RegistryError: The registry refused or failed.
        """
        if not self.sealed:
            return None
        name = f"{kind}-{key[:KEY_DIGITS]}"
        found = self.repository.read_manifest_bytes(f"kfp-bento.{name}")
        if found is None:
            return None
        facts = self._facts(name, found[1])
        if not isinstance(facts, dict):
            raise ImageError(
                f"What {self.repository.reference.name} keeps as {name} carries no seal of ours.",
                hint=f"Only what was sealed with the same {KEY_VARIABLE} counts.",
            )
        return b"".join(self.repository.open_blob(descriptor_from(facts)))

    def keep_document(self, kind: str, key: str, content: bytes) -> None:
        """Keep a document for all who have the shared key; without one it is not written.

        Raises:
            RegistryError: The registry refused or failed.
        """
        if not self.sealed:
            return
        document = descriptor_of(content, DOCUMENT_TYPE)
        self.repository.put_blob(document, BytesSource(content))
        self._write(f"{kind}-{key[:KEY_DIGITS]}", document.to_dict(), [document])

    def _find(self, name: str) -> Any:
        """Give the facts of a record; None if there is none, or none that counts."""
        found = self.repository.read_manifest_bytes(f"kfp-bento.{name}")
        return None if found is None else self._facts(name, found[1])

    def _facts(self, name: str, manifest: bytes) -> Any:
        """Read the facts of a record; None if it is none, or none that counts."""
        try:
            notes = parse_json(manifest)["annotations"]
            facts = parse_json_value(notes[_ANNOTATION].encode())
        except (ValueError, KeyError, TypeError, AttributeError):
            return None
        counts = not self.sealed or are_ours(name, facts, notes.get(_SEAL), shared=True)
        return facts if counts else None

    def _write(self, name: str, facts: Any, blobs: Sequence[Descriptor]) -> None:
        empty = self._empty
        found = seal_facts(name, facts, shared=True)
        sealed = {_SEAL: found} if found else {}
        content = canonical_json(
            {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "artifactType": RECORD_TYPE,
                "config": empty.to_dict(),
                "layers": [blob.to_dict() for blob in (blobs or [empty])],
                "annotations": {_ANNOTATION: canonical_json(facts).decode(), **sealed},
            }
        )
        manifest = descriptor_of(content, OCI_MANIFEST)
        self.repository.store_manifest(manifest, content, f"kfp-bento.{name}")

    @functools.cached_property
    def _empty(self) -> Descriptor:
        """What stands for the configuration that a record has not; in the repository."""
        empty = descriptor_of(EMPTY, EMPTY_TYPE)
        self.repository.put_blob(empty, BytesSource(EMPTY))
        return empty


def _name_of(keys: Iterable[str]) -> str:
    return f"layers-{key_of({'kind': 'layers', 'keys': sorted(keys)})[:KEY_DIGITS]}"
