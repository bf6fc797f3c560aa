"""Proofs that are kept in the registry, beside the records of layers: for pods that start empty."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from kfp_bento.runtime.errors import KfpBentoError
from kfp_bento.runtime.images import shared_records

if TYPE_CHECKING:
    from kfp_bento.runtime.images import ImageOptions

_KIND = "proof"


class Documents(Protocol):
    """Documents by key, of those who have the same record key."""

    def find_document(self, kind: str, key: str) -> bytes | None:
        """Give what is kept; None if there is nothing."""

    def keep_document(self, kind: str, key: str, content: bytes) -> None:
        """Keep it."""


@dataclass(frozen=True)
class RegistryProofs:
    """Proofs in a repository; only those count that carry the seal of the shared key.

    A layer on the registry's word alone is marked as such. Golden answers are what everything is
    compared with later, so there is no such word about them.

    Attributes:
        records: Where they are.
        tell: Told of what is there and does not count, and of what could not be kept.
    """

    records: Documents
    tell: Callable[[str], None]

    def find(self, key: str) -> bytes | None:
        """Give what is kept under this key."""
        try:
            return self.records.find_document(_KIND, key)
        except KfpBentoError as error:
            self.tell(f"the proof of an earlier run is passed over: {error.message}")
            return None

    def keep(self, key: str, content: bytes) -> None:
        """Keep a proof; where that fails, the next run proves anew."""
        try:
            self.records.keep_document(_KIND, key, content)
        except KfpBentoError as error:
            self.tell(f"the proof is not kept for other runs: {error.message}")


def shared_proofs(
    destination: str, image: ImageOptions, tell: Callable[[str], None]
) -> RegistryProofs | None:
    """Give where the proofs of images that go to a destination are; None for no registry."""
    records = shared_records(destination, image.cache_repository)
    return RegistryProofs(records, tell) if records else None
