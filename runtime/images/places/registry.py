"""A repository of a registry as a destination of builds."""

from __future__ import annotations

from kfp_bento.runtime.errors import ImageError, RegistryError
from kfp_bento.runtime.files import parse_json
from kfp_bento.runtime.images.oci.blobs import read_small
from kfp_bento.runtime.images.oci.image import BlobSource, Descriptor, Outcome, descriptor_from
from kfp_bento.runtime.images.registry.repository import Repository

# 160 bits of a key: enough that no two inputs meet, and a tag has 128 characters at most.
KEY_DIGITS = 40


class RegistrySink(Repository):
    """A repository that remembers, by one more tag on it, what inputs gave an image."""

    blobs = None

    @property
    def records(self) -> RegistrySink:
        """Records go where the images go."""
        return self

    def outcome(self, blob: Descriptor, source: BlobSource) -> Outcome:
        """Say what `put_blob` would do."""
        if self.has_blob(blob):
            return "present"
        return "mount" if self.neighbour(source) else "upload"

    def recorded(self, key: str, tag: str) -> tuple[Descriptor, bytes, bytes] | None:
        """Find the image that these inputs gave before, whatever its own tag is."""
        found = self.read_manifest_bytes(_image_tag(key))
        if found is None:
            return None
        try:
            return *found, read_small(self, descriptor_from(parse_json(found[1]).get("config")))
        except RegistryError:
            raise
        except (ValueError, ImageError):
            return None  # somebody else's: as good as none

    def remember(self, key: str, manifest: Descriptor, content: bytes) -> None:
        """Give the image a tag made of the key."""
        self.tag(manifest, content, _image_tag(key))


def _image_tag(key: str) -> str:
    return f"kfp-bento.image-{key[:KEY_DIGITS]}"
