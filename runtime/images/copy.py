"""Whole images copied from any place to any other, with what refers to them.

Manifests stay as they are, byte for byte and so with their digest, unless the destination cannot
hold them: a docker archive has its own form, and the layouts we write hold OCI media types only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from kfp_bento.runtime.errors import ImageError, InvalidInput
from kfp_bento.runtime.images.oci.config import canonical_json, descriptor_of
from kfp_bento.runtime.images.oci.image import (
    OCI_CONFIG,
    OCI_MANIFEST,
    Descriptor,
    ImageSink,
    descriptor_from,
    parse_platform,
)
from kfp_bento.runtime.images.oci.reference import (
    ArchiveReference,
    ImageReference,
    LayoutReference,
    Reference,
    check_tag,
    parse_destination,
    parse_reference,
    parse_source,
)
from kfp_bento.runtime.images.oci.transfer import BlobUpload, Transfer, put_blobs, transfers_to_dict
from kfp_bento.runtime.images.places.destination import check_destination, location, open_sink
from kfp_bento.runtime.images.places.open import (
    OpenedImage,
    ReferrerSource,
    is_index,
    oci_layer_type,
    open_image,
    open_manifest,
    parse_document,
    well_formed,
)

_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
# A signature of an SBOM of an image: deeper than this somebody is playing games.
_REFERRER_DEPTH = 4


@dataclass(frozen=True)
class CopiedImage:
    """An image that has been copied.

    Attributes:
        source: What was read, with its digest.
        location: Where to read it from now: ``oci:DIR``, ``docker-archive:FILE``, ``docker://…``.
        digest: Digest of the manifest that was written; for an archive, that it was made from.
        tag: The tag that points to it.
        converted: Whether the manifest had to be rewritten, so that the digest is another one.
        changed: False when the destination held just this image under this tag.
        transfers: What became of each blob.
        referrers: Digests of the manifests about the image that came along.
        left_behind: Why others did not.
    """

    source: str
    location: str
    digest: str
    tag: str
    converted: bool
    changed: bool
    transfers: tuple[Transfer, ...]
    referrers: tuple[str, ...] = ()
    left_behind: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The copy as plain JSON values."""
        derived = {"referrers": list(self.referrers), **transfers_to_dict(self.transfers)}
        return {**{k: v for k, v in vars(self).items() if k != "transfers"}, **derived}


@dataclass
class _Copy:
    """One copy on its way."""

    source: OpenedImage
    sink: ImageSink
    progress: Callable[[str], None]
    transfers: list[Transfer] = field(default_factory=list)
    referrers: list[str] = field(default_factory=list)

    def put(self, manifest: Descriptor, document: dict[str, Any], content: bytes) -> None:
        """Puts the blobs that a manifest names, then the manifest."""
        self._blobs(document)
        self.sink.put_manifest(manifest, content)

    def put_children(self, index: dict[str, Any], title: str, depth: int = _REFERRER_DEPTH) -> None:
        """Puts every manifest of an index, with what refers to it."""
        with well_formed(title):
            children = [descriptor_from(x) for x in index.get("manifests") or ()]
        for child in children:
            content = self.source.read(child)
            document = parse_document(content, f"The manifest {child.digest}")
            if is_index(child, document, f"{child.digest} in {self.source.title}"):
                raise ImageError(
                    f"{title} holds an index within an index.",
                    hint="Such images cannot be copied; copy one of the inner ones by its digest.",
                )
            self.put(child, document, content)
            self.put_referrers(child, depth)

    def put_referrers(self, subject: Descriptor, depth: int = _REFERRER_DEPTH) -> None:
        """Puts what refers to a manifest, and what refers to that."""
        for item in _referrers(self.source, subject) if depth else ():
            found = descriptor_from(item)
            if found.digest in self.referrers:
                continue
            content = self.source.read(found)
            document = parse_document(content, f"The manifest {found.digest}")
            # An index of signatures, one for each platform, is attached as such.
            title = f"{found.digest}, attached to {self.source.title},"
            self.put_children(document, title, depth - 1)
            self._blobs(document)
            self.sink.put_referrer(found, content, subject)
            self.referrers.append(found.digest)
            self.put_referrers(found, depth - 1)

    def _blobs(self, document: dict[str, Any]) -> None:
        with well_formed(self.source.title):
            loads = list(_loads(document, self.source))
        self.transfers += put_blobs(self.sink, loads, self.progress)


def copy_image(
    source: str,
    destination: str,
    *,
    platform: str = "",
    all_platforms: bool = False,
    progress: Callable[[str], None] | None = None,
) -> CopiedImage:
    """Copies an image; layers that the destination has, or can mount, are not moved.

    Args:
        source: A registry reference, ``oci:DIR[:TAG]`` or ``docker-archive:FILE[:TAG]``.
        destination: ``host[:port]/path[:tag]``, ``oci:DIR[:TAG]`` or
            ``docker-archive:FILE[:TAG]``. The tag is the source's, or ``latest``, if left out.
        platform: Which image of a multi-platform index: ``linux/amd64`` or ``linux/arm64``; this
            machine's if empty.
        all_platforms: Copy such an index as a whole instead; not into an archive.
        progress: Called with a short sentence at each step.

    Returns:
        What was written, and what became of each blob.

    Raises:
        InvalidInput: A parameter cannot be used.
        ImageError: The source cannot be read or trusted, has no image for the platform, or the
            destination is taken or full.
        RegistryError: A registry refused or failed.
    """
    target = parse_destination(destination)
    in_place = _is_same_place(parse_source(source), target)
    if not in_place:
        check_destination(target)
    if all_platforms and platform:
        raise InvalidInput("A copy is of one platform or of all of them.")
    tell = progress or (lambda sentence: None)
    tell(f"reading {source}")
    opened = _open(source, platform, all_platforms)
    tag = check_tag(target.tag) if target.tag else _tag_of(opened)
    if in_place:
        if _is_there(opened, target, tag):
            tell(f"already there: {opened.title}")
            return _nothing_done(opened, target, tag)
        check_destination(target)
    manifest, content = _for_destination(opened, target)
    with open_sink(target, repository_of(opened)) as sink:
        copy = _Copy(opened, sink, tell)
        if opened.is_index:
            copy.put_children(opened.manifest, opened.title)
            sink.put_manifest(manifest, content)
        else:
            copy.put(manifest, parse_document(content, f"The manifest of {source}"), content)
        left_behind = _why_left(opened, manifest, sink)
        if not left_behind:
            copy.put_referrers(manifest)
        changed = sink.tag(manifest, content, tag)
    return CopiedImage(
        source=opened.title,
        location=location(target),
        digest=manifest.digest,
        tag=tag,
        converted=manifest.digest != opened.descriptor.digest
        or isinstance(target, ArchiveReference),
        changed=changed,
        transfers=_once_each(copy.transfers),
        referrers=tuple(copy.referrers),
        left_behind=left_behind,
    )


def copy_referrers(
    source: OpenedImage, sink: ImageSink, progress: Callable[[str], None]
) -> tuple[tuple[str, ...], tuple[Transfer, ...]]:
    """Copies what refers to an image that the sink holds under the same digest.

    Returns:
        Digests of the manifests, and what became of each blob.
    """
    copy = _Copy(source, sink, progress)
    copy.put_referrers(source.descriptor)
    return tuple(copy.referrers), _once_each(copy.transfers)


def repository_of(image: OpenedImage) -> str:
    """What to call an image where it must have a name: its repository, or after its title."""
    if image.repository:
        return image.repository
    with well_formed(image.title):
        title = (image.manifest.get("annotations") or {}).get("org.opencontainers.image.title", "")
    try:
        return parse_reference(f"localhost/{title}").name
    except InvalidInput:
        return "localhost/image"


def _open(source: str, platform: str, all_platforms: bool) -> OpenedImage:
    if all_platforms:
        return open_manifest(source)
    return open_image(source, parse_platform(platform) if platform else None)


def _is_same_place(source: ImageReference, target: ImageReference) -> bool:
    """Whether both are one repository, directory or file; a digest says no place."""
    if isinstance(source, Reference) and isinstance(target, Reference):
        return source.name == target.name and not source.digest
    if isinstance(source, LayoutReference) and isinstance(target, LayoutReference):
        return source.directory.resolve() == target.directory.resolve()
    if isinstance(source, ArchiveReference) and isinstance(target, ArchiveReference):
        return source.file.resolve() == target.file.resolve()
    return False


def _is_there(image: OpenedImage, target: ImageReference, tag: str) -> bool:
    """Whether the place that an image was read from holds it under this name already."""
    if isinstance(target, ArchiveReference) and target.repository not in {"", image.repository}:
        return False
    return tag == image.tag and not image.from_index


def _nothing_done(image: OpenedImage, target: ImageReference, tag: str) -> CopiedImage:
    return CopiedImage(
        source=image.title,
        location=location(target),
        digest=image.descriptor.digest,
        tag=tag,
        converted=False,
        changed=False,
        transfers=(),
    )


def _tag_of(image: OpenedImage) -> str:
    return image.tag if _TAG.fullmatch(image.tag) else "latest"


def _for_destination(image: OpenedImage, target: ImageReference) -> tuple[Descriptor, bytes]:
    """The manifest as it is, or as OCI writes it where the destination is a layout of ours."""
    if image.is_index and isinstance(target, ArchiveReference):
        raise ImageError(
            "A docker archive holds an image for one platform only.",
            hint="Choose one with --platform, or copy to a registry or an oci:DIR.",
        )
    docker = ".docker." in image.descriptor.media_type
    if not docker or not isinstance(target, LayoutReference):
        return image.descriptor, image.content
    if image.is_index:
        raise ImageError(
            f"{image.title} is an index of Docker's own kind, which an OCI layout cannot hold.",
            hint="Copy one platform of it, or copy it to a registry.",
        )
    return _as_oci(image)


def _as_oci(image: OpenedImage) -> tuple[Descriptor, bytes]:
    """The same image with OCI media types; configuration and layers keep their bytes."""
    with well_formed(image.title):
        config = descriptor_from({**image.manifest["config"], "mediaType": OCI_CONFIG})
        blobs = [descriptor_from(item) for item in image.manifest["layers"]]
        layers = [Descriptor(oci_layer_type(x.media_type), x.digest, x.size) for x in blobs]
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": config.to_dict(),
        "layers": [layer.to_dict() for layer in layers],
    }
    content = canonical_json(document)
    return descriptor_of(content, OCI_MANIFEST), content


def _loads(document: dict[str, Any], image: OpenedImage) -> Iterator[BlobUpload]:
    """The blobs that a manifest names, the configuration last."""
    for number, item in enumerate(document.get("layers") or (), start=1):
        notes = item.get("annotations") or {}
        title = notes.get("kfp-bento.title") or f"layer {number}"
        yield BlobUpload(str(title), descriptor_from(item), image.blobs)
    if packed := document.get("config"):
        yield BlobUpload("configuration", descriptor_from(packed), image.blobs)


def _referrers(image: OpenedImage, subject: Descriptor) -> list[dict[str, Any]]:
    if not isinstance(image.blobs, ReferrerSource):
        return []
    return image.blobs.referrers(subject.digest)


def _why_left(image: OpenedImage, written: Descriptor, sink: ImageSink) -> str:
    """Why what refers to the image cannot come along; empty if it can or there is nothing."""
    if sink.carries_referrers and written.digest == image.descriptor.digest:
        return ""
    count = len(_referrers(image, image.descriptor))
    if not count:
        return ""
    why = "the image has another digest now" if sink.carries_referrers else "an archive holds none"
    return f"{count} attached (SBOM, provenance, signature): {why}"


def _once_each(transfers: list[Transfer]) -> tuple[Transfer, ...]:
    """The first mention of each blob: later ones only say that it is there by now."""
    return tuple({item.digest: item for item in reversed(transfers)}.values())[::-1]
