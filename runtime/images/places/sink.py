"""What images are written to: the interface of a registry, a layout and an archive."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

from kfp_bento.runtime.images.oci.blobs import BlobDirectory
from kfp_bento.runtime.images.oci.image import (
    BlobSink,
    BlobSource,
    BlobStream,
    Descriptor,
    Outcome,
)
from kfp_bento.runtime.images.places.opened_image import OpenedImage
from kfp_bento.runtime.images.registry.repository import Repository


class ImageSink(BlobSink, Protocol):
    """Takes an image: blobs first, then the manifest, what refers to it, and last its tag.

    Only `tag` makes an image visible; until then nothing that could be pulled has changed.

    Attributes:
        carries_referrers: Whether what `put_referrers` takes can be found again.
        blobs: Where new blobs may be written, so that putting them copies nothing; None for a
            sink that is no directory.
        records: Where records of layers can be kept for other machines; None if nowhere.
    """

    carries_referrers: ClassVar[bool] = True

    @property
    def blobs(self) -> BlobDirectory | None:
        """See above."""
        return None

    @property
    def records(self) -> Repository | None:
        """See above."""
        return None

    def put_stream(self, stream: BlobStream) -> None:
        """Store a blob that is made while it is read."""

    def put_manifest(self, manifest: Descriptor, content: bytes) -> None:
        """Store the manifest by digest; its blobs must be there."""

    def put_referrers(
        self, manifests: Sequence[tuple[Descriptor, bytes]], subject: Descriptor
    ) -> None:
        """Store manifests whose `subject` is another one: an SBOM, a signature.

        Their blobs must be there. They can then be found from their subject (distribution
        specification 1.1, referrers).
        """

    def referrers(self, digest: str) -> list[dict[str, Any]]:
        """List descriptors of the manifests that refer to one with this digest by now."""
        return []

    def named(self, tag: str) -> tuple[Descriptor, bytes] | None:
        """Read the manifest with this tag; None if there is none, or no place for tags."""
        return None

    def put_named(self, manifest: Descriptor, content: bytes, tag: str) -> None:
        """Store a manifest beside the image under a tag of its own: signatures.

        Its blobs must be there.
        """
        return

    def outcome(self, blob: Descriptor, source: BlobSource) -> Outcome:
        """Say what `put_blob` would do."""
        return "upload"

    def recorded(self, key: str, tag: str) -> OpenedImage | None:
        """Find the image that was remembered for these inputs.

        That it was made of them is what the place says, and whoever wrote there.

        Args:
            key: Key of the inputs.
            tag: The tag that the image is to get.

        Returns:
            None where the place remembers none.
        """
        return None

    def remember(self, key: str, manifest: Descriptor, content: bytes) -> None:
        """Note, where it can be noted, that these inputs gave this image; it has no tag yet."""
        return

    def tag(self, manifest: Descriptor, content: bytes, tag: str) -> bool:
        """Let the tag point to a stored manifest.

        Returns:
            Whether anything changed: False when the tag pointed to this manifest before.
        """
