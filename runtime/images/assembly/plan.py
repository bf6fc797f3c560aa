"""What a build would do, found out without making or sending anything."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from kfp_bento.runtime.images.oci.image import Outcome


@dataclass(frozen=True)
class PlannedLayer:
    """What would happen to one layer.

    Attributes:
        kind: `base`, `system`, `dependencies`, `model` or `source`.
        title: What it holds, for people.
        key: What it is recognised by: SHA-256 of its inputs; the digest for a base layer.
        action: `present` (the destination has it), `mount` (a neighbour repository has it),
            `upload` (it is at hand and would be sent or copied) or `build`.
        size: Bytes of the blob; for a layer to be built, of its tar before compression, or of the
            wheels or packages that it is made of.
        exact: Whether the size is known and not an estimate.
        digest: Digest of the blob where it is known.
        unverified: Whether it would be reused on the word of the registry alone; see `Layer`.
    """

    kind: str
    title: str
    key: str
    action: Outcome | Literal["build"]
    size: int
    exact: bool
    digest: str
    unverified: bool = False


@dataclass(frozen=True)
class ImagePlan:
    """What a build would do.

    Attributes:
        destination: Where the image would go, with its tag.
        base: The base image for people, with its digest.
        platform: `linux/amd64` or `linux/arm64`.
        unchanged: Digest of the image, where these very inputs gave it before and the destination
            still has it; empty if there is something to do.
        layers: From the lowest to the highest.
        notes: What else there is to know: what was left out and why.
    """

    destination: str
    base: str
    platform: str
    unchanged: str
    layers: tuple[PlannedLayer, ...]
    notes: tuple[str, ...] = ()

    @property
    def bytes_to_send(self) -> int:
        """Bytes that would be sent or written, as far as sizes are known before."""
        return sum(layer.size for layer in self.layers if layer.action in {"upload", "build"})

    def to_dict(self) -> dict[str, Any]:
        """Give the plan as plain JSON values."""
        lists = {"layers": [asdict(layer) for layer in self.layers], "notes": list(self.notes)}
        return {**vars(self), **lists, "bytes_to_send": self.bytes_to_send}
