"""Opening an image for reading, wherever it is: registry, OCI layout or docker archive."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

from kfp_bento.runtime.errors import ImageError
from kfp_bento.runtime.images.archive import open_archive
from kfp_bento.runtime.images.config import KIND, TITLE
from kfp_bento.runtime.images.image import (
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    BlobSource,
    Descriptor,
    Layer,
    Platform,
    descriptor_from,
    parse_platform,
)
from kfp_bento.runtime.images.layout import LayoutSource
from kfp_bento.runtime.images.reference import (
    ArchiveReference,
    LayoutReference,
    Reference,
    parse_source,
)
from kfp_bento.runtime.images.registry import Repository

_INDEXES = {OCI_INDEX, DOCKER_INDEX}
_MANIFESTS = {OCI_MANIFEST, DOCKER_MANIFEST}
_LAYER_TYPES = {
    OCI_LAYER: OCI_LAYER,
    f"{OCI_LAYER}+gzip": f"{OCI_LAYER}+gzip",
    f"{OCI_LAYER}+zstd": f"{OCI_LAYER}+zstd",
    "application/vnd.docker.image.rootfs.diff.tar": OCI_LAYER,
    "application/vnd.docker.image.rootfs.diff.tar.gzip": f"{OCI_LAYER}+gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd": f"{OCI_LAYER}+zstd",
}
_DOCUMENT_LIMIT = 4 << 20
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@runtime_checkable
class ReferrerSource(Protocol):
    """A source that knows which manifests refer to an image: SBOMs, signatures."""

    def referrers(self, digest: str) -> list[dict[str, Any]]:
        """Descriptors of the manifests whose ``subject`` has this digest."""


@dataclass(frozen=True)
class OpenedImage:
    """An image, or an index of images, that can be read.

    Attributes:
        title: For people: its name with its digest.
        descriptor: Its manifest.
        content: The manifest's bytes.
        blobs: Gives out its configuration and layers.
        read: Gives out another manifest of the same place, checked.
        repository: What it is called where it is, ``host/path``, or an empty string.
        tag: Its tag where it is, or an empty string.
        from_index: Whether it was chosen for its platform from several.
    """

    title: str
    descriptor: Descriptor
    content: bytes
    blobs: BlobSource
    read: Callable[[Descriptor], bytes]
    repository: str = ""
    tag: str = ""
    from_index: bool = False

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """The manifest, parsed.

        Raises:
            ImageError: It is no JSON object.
        """
        return parse_document(self.content, f"The manifest of {self.title}")

    @property
    def is_index(self) -> bool:
        """Whether this is an index of images rather than an image."""
        kind = self.descriptor.media_type
        return kind in _INDEXES or (kind not in _MANIFESTS and "manifests" in self.manifest)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The configuration file, parsed.

        Raises:
            ImageError: It is missing, too large or no JSON object.
        """
        with well_formed(self.title):
            packed = descriptor_from(self.manifest["config"])
        content = read_small(self.blobs, Descriptor(OCI_CONFIG, packed.digest, packed.size))
        return parse_document(content, f"The configuration of {self.title}")

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """Its layers with OCI media types; their kinds as kfp-bento noted them, else ``base``.

        Raises:
            ImageError: The manifest is malformed or does not match the configuration.
        """
        with well_formed(self.title):
            return _layers(self.manifest["layers"], self.config["rootfs"]["diff_ids"])

    @property
    def platform(self) -> Platform:
        """What its configuration says that it is for."""
        os, architecture = self.config.get("os"), self.config.get("architecture")
        return Platform(str(os or "linux"), str(architecture or "unknown"))


def open_image(text: str, platform: Platform | None = None) -> OpenedImage:
    """Opens an image; a multi-platform index is followed to the image for the platform.

    Args:
        text: A registry reference, ``oci:DIR[:TAG]`` or ``docker-archive:FILE[:TAG]``.
        platform: Which image of an index, this machine's if not given; what is no index must be
            for a platform that is given.

    Raises:
        InvalidInput: The text names no place.
        ImageError: It cannot be read, or there is no image for the platform.
    """
    found = open_manifest(text)
    if not found.is_index:
        if "layers" not in found.manifest:
            raise ImageError(f"{text} is no image but '{found.descriptor.media_type}'.")
        if platform is not None:
            require_platform(found, platform)
        return found
    return _choose(found, text, platform or parse_platform())


def open_manifest(text: str) -> OpenedImage:
    """Opens what a name stands for, an image or an index of images.

    Raises:
        InvalidInput: The text names no place.
        ImageError: It cannot be read.
    """
    where = parse_source(text)
    if isinstance(where, LayoutReference):
        return _from_layout(where)
    if isinstance(where, ArchiveReference):
        return _from_archive(where)
    return _from_registry(where)


def require_platform(image: OpenedImage, platform: Platform) -> None:
    """Makes sure that an image that was no choice among several is for this platform.

    Raises:
        ImageError: Its configuration says another one.
    """
    if image.platform != platform:
        raise ImageError(
            f"{image.title} has no image for {platform}, only for {image.platform}.",
            hint="Choose another image or another platform.",
        )


def read_small(blobs: BlobSource, descriptor: Descriptor) -> bytes:
    """A configuration or manifest as a whole, which is checked.

    Raises:
        ImageError: It is too large for what it is, missing or not what its digest says.
    """
    if descriptor.size > _DOCUMENT_LIMIT:
        raise ImageError(f"{descriptor.digest} is too large for a manifest or configuration.")
    return b"".join(blobs.open_blob(descriptor))


def parse_document(content: bytes, what: str) -> dict[str, Any]:
    """A JSON object that somebody else wrote.

    Raises:
        ImageError: It is none.
    """
    try:
        parsed = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ImageError(f"{what} is no JSON.") from error
    if not isinstance(parsed, dict):
        raise ImageError(f"{what} is no JSON object.")
    return parsed


@contextlib.contextmanager
def well_formed(title: str) -> Iterator[None]:
    """Surrounds the reading of fields from a document that somebody else wrote.

    Raises:
        ImageError: A field is missing or has another type than it must have.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ImageError(f"The image {title} has a malformed manifest: {error}.") from error


def oci_layer_type(media_type: str) -> str:
    """The OCI media type of a layer with the same bytes.

    Raises:
        ValueError: There is none.
    """
    if media_type not in _LAYER_TYPES:
        raise ValueError(f"a layer of type {media_type}")
    return _LAYER_TYPES[media_type]


def _from_registry(where: Reference) -> OpenedImage:
    repository = Repository(where)
    descriptor, content = repository.fetch_manifest(where.identifier)
    return OpenedImage(
        title=str(Reference(where.host, where.repository, where.tag, descriptor.digest)),
        descriptor=descriptor,
        content=content,
        blobs=repository,
        read=lambda other: repository.fetch_manifest(other.digest)[1],
        repository=where.name,
        tag=where.tag or ("" if where.digest else "latest"),
    )


def _from_layout(where: LayoutReference) -> OpenedImage:
    source = LayoutSource(where.directory)
    descriptor, name = source.find_named(where.tag)
    return OpenedImage(
        title=f"{where}@{descriptor.digest}",
        descriptor=descriptor,
        content=read_small(source, descriptor),
        blobs=source,
        read=lambda other: read_small(source, other),
        # Some writers put the whole reference where the specification wants the tag.
        tag=name.rpartition("/")[2].rpartition(":")[2],
    )


def _from_archive(where: ArchiveReference) -> OpenedImage:
    source = open_archive(where)
    return OpenedImage(
        title=f"{where}@{source.manifest.digest}",
        descriptor=source.manifest,
        content=source.content,
        blobs=source,
        read=lambda other: read_small(source, other),
        repository=source.repository,
        tag=source.tag,
    )


def _choose(index: OpenedImage, text: str, platform: Platform) -> OpenedImage:
    """Follows a multi-platform index to the manifest for the platform."""
    with well_formed(text):
        offered = [_offer(item) for item in index.manifest.get("manifests") or ()]
    for name, found in offered:
        if name == str(platform):
            return OpenedImage(
                title=index.title.replace(index.descriptor.digest, found.digest),
                descriptor=found,
                content=index.read(found),
                blobs=index.blobs,
                read=index.read,
                repository=index.repository,
                tag=index.tag,
                from_index=True,
            )
    raise ImageError(
        f"{text} has no image for {platform}, only for "
        f"{', '.join(sorted({name for name, _ in offered}))}.",
        hint="Choose another image or another platform.",
    )


def _offer(item: dict[str, Any]) -> tuple[str, Descriptor]:
    """A platform, and its manifest; variants that we do not build for keep theirs in the name."""
    described = item.get("platform") or {}
    name = f"{described.get('os')}/{described.get('architecture')}"
    variant = described.get("variant", "")
    return name if variant in {"", "v8"} else f"{name}/{variant}", descriptor_from(item)


def _layers(items: list[dict[str, Any]], diff_ids: list[str]) -> tuple[Layer, ...]:
    if len(items) != len(diff_ids):
        raise ValueError(f"{len(items)} layers but {len(diff_ids)} diff ids")
    if not all(_DIGEST.fullmatch(diff_id) for diff_id in diff_ids):
        raise ValueError("a diff id that is no SHA-256 digest")
    return tuple(
        _layer(descriptor_from(item), item.get("annotations") or {}, diff_id, number)
        for number, (item, diff_id) in enumerate(zip(items, diff_ids, strict=True), start=1)
    )


def _layer(blob: Descriptor, notes: dict[str, str], diff_id: str, number: int) -> Layer:
    return Layer(
        kind=str(notes.get(KIND, "base")),
        digest=blob.digest,
        diff_id=diff_id,
        size=blob.size,
        media_type=oci_layer_type(blob.media_type),
        origin="base",
        title=str(notes.get(TITLE, f"base layer {number}")),
    )
