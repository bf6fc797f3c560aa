"""A repository of a registry as a place of images."""

from __future__ import annotations

from kfp_bento.runtime.errors import ImageError
from kfp_bento.runtime.images.oci.image import BlobSource, Descriptor, Outcome
from kfp_bento.runtime.images.oci.reference import Reference
from kfp_bento.runtime.images.places.opened_image import OpenedImage
from kfp_bento.runtime.images.places.sink import ImageSink
from kfp_bento.runtime.images.registry.repository import Repository

# 160 bits of a key: enough that no two inputs meet, and a tag has 128 characters at most.
KEY_DIGITS = 40


class ImageRepository(Repository, ImageSink):
    """A repository that remembers, by one more tag on it, what inputs gave an image."""

    @property
    def records(self) -> Repository:
        """Records go where the images go."""
        return self

    def read_named(self, manifest: Descriptor) -> bytes:
        """Read a manifest that another one names."""
        found, content = self.fetch_manifest(manifest.digest)
        if found.size != manifest.size:
            raise ImageError(
                f"{self.reference} names {manifest.digest} with {manifest.size} bytes, but it has "
                f"{found.size}."
            )
        return content

    def named(self, tag: str) -> tuple[Descriptor, bytes] | None:
        """Read the manifest with this tag."""
        return self.read_manifest_bytes(tag)

    def put_named(self, manifest: Descriptor, content: bytes, tag: str) -> None:
        """Store a manifest under its tag."""
        self.tag(manifest, content, tag)

    def outcome(self, blob: Descriptor, source: BlobSource) -> Outcome:
        """Say what `put_blob` would do."""
        if self.has_blob(blob):
            return "present"
        return "mount" if self.neighbour(source) else "upload"

    def recorded(self, key: str, tag: str) -> OpenedImage | None:
        """Find the image that these inputs gave before, whatever its own tag is."""
        found = self.read_manifest_bytes(_image_tag(key))
        return OpenedImage(str(self.reference), *found, blobs=self) if found else None

    def remember(self, key: str, manifest: Descriptor, content: bytes) -> None:
        """Give the image a tag made of the key."""
        self.tag(manifest, content, _image_tag(key))


def open_repository(where: Reference) -> OpenedImage:
    """Open what a tag or digest stands for.

    Raises:
        RegistryError: It is not there, or the registry fails.
    """
    repository = ImageRepository(where)
    descriptor, content = repository.fetch_manifest(where.identifier)
    return OpenedImage(
        title=str(Reference(where.host, where.repository, where.tag, descriptor.digest)),
        descriptor=descriptor,
        content=content,
        blobs=repository,
        repository=where.name,
        tag=where.tag or ("" if where.digest else "latest"),
    )


def _image_tag(key: str) -> str:
    return f"kfp-bento.image-{key[:KEY_DIGITS]}"
