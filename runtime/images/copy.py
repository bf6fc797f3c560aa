"""Whole images copied from any place to any other, with what refers to them.

Manifests stay as they are, byte for byte and so with their digest, unless the destination cannot
hold them: a docker archive has its own form, and the layouts we write hold OCI media types only.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from kfp_bento.runtime.errors import ImageError, InvalidInput, RegistryError
from kfp_bento.runtime.images.assembly.options import ImageOptions
from kfp_bento.runtime.images.base.base_image import HOST
from kfp_bento.runtime.images.oci.blobs import scratch_directory
from kfp_bento.runtime.images.oci.config import canonical_json, descriptor_of
from kfp_bento.runtime.images.oci.image import (
    OCI_CONFIG,
    OCI_MANIFEST,
    Descriptor,
    Image,
    descriptor_from,
    parse_platform,
)
from kfp_bento.runtime.images.oci.reference import (
    ImageReference,
    check_tag,
    is_tag,
    parse_destination,
    parse_source,
)
from kfp_bento.runtime.images.oci.transfer import BlobUpload, Transfer, put_blobs, transfers_to_dict
from kfp_bento.runtime.images.pack import pack_image
from kfp_bento.runtime.images.places.open import check_free, open_image, open_manifest, open_sink
from kfp_bento.runtime.images.places.opened_image import (
    OpenedImage,
    is_index,
    oci_layer_type,
    parse_document,
    well_formed,
)
from kfp_bento.runtime.images.places.sink import ImageSink
from kfp_bento.runtime.images.registry.answers import refuses_kind
from kfp_bento.runtime.images.signatures.stored import (
    NoSignatures,
    copy_signatures,
    signature_layers,
)

# A signature of an SBOM of an image: deeper than this somebody is playing games.
_REFERRER_DEPTH = 4


@dataclass(frozen=True)
class CopiedImage:
    """An image that has been copied.

    Attributes:
        source: What was read, with its digest.
        location: Where to read it from now: `oci:DIR`, `docker-archive:FILE`, `docker://…`.
        digest: Digest of the manifest that was written; for an archive, that it was made from.
        tag: The tag that points to it.
        converted: Whether the manifest had to be rewritten, so that the digest is another one.
        changed: False when the destination held just this image under this tag.
        transfers: What became of each blob.
        referrers: Digests of the manifests about the image that came along.
        signatures: How many signatures came along that cosign keeps under a tag.
        left_behind: Why others did not.
    """

    source: str
    location: str
    digest: str
    tag: str
    converted: bool = False
    changed: bool = False
    transfers: tuple[Transfer, ...] = ()
    referrers: tuple[str, ...] = ()
    signatures: int = 0
    left_behind: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Give the copy as plain JSON values."""
        derived = {"referrers": list(self.referrers), **transfers_to_dict(self.transfers)}
        return {**{k: v for k, v in vars(self).items() if k != "transfers"}, **derived}


@dataclass(frozen=True)
class _Manifest:
    """A manifest or index that is to be put; a referrer has a subject."""

    descriptor: Descriptor
    content: bytes
    document: dict[str, Any]
    subject: Descriptor | None


@dataclass(frozen=True)
class _Walk:
    """What was met on the way: digests of what refers to an image, and why some are left."""

    seen: set[str] = field(default_factory=set)
    left: list[str] = field(default_factory=list)


def copy_image(
    source: str,
    destination: str,
    *,
    platform: str = "",
    all_platforms: bool = False,
    progress: Callable[[str], None] = lambda sentence: None,
) -> CopiedImage:
    """Copy an image; layers that the destination has, or can mount, are not moved.

    Args:
        source: A registry reference, `oci:DIR[:TAG]` or `docker-archive:FILE[:TAG]`; or `host`,
            which is made of this machine's own Python, as the base of that name is.
        destination: `host[:port]/path[:tag]`, `oci:DIR[:TAG]` or
            `docker-archive:FILE[:TAG]`. The tag is the source's, or `latest`, if left out.
        platform: Which image of a multi-platform index: `linux/amd64` or `linux/arm64`; this
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
    if source == HOST:
        return _made_here(destination, platform, progress)
    target = parse_destination(destination)
    in_place = parse_source(source).place == target.place
    if not in_place:
        check_free(target)
    progress(f"reading {source}")
    opened = _opened(source, platform, all_platforms=all_platforms)
    tag = check_tag(target.tag or (opened.tag if is_tag(opened.tag) else "latest"))
    done = CopiedImage(opened.title, target.location, opened.descriptor.digest, tag)
    if in_place:
        if _is_there(opened, target, tag):
            progress(f"already there: {opened.title}")
            return done
        check_free(target)
    return _written(opened, target, done, progress)


def _written(
    opened: OpenedImage,
    target: ImageReference,
    done: CopiedImage,
    progress: Callable[[str], None],
) -> CopiedImage:
    """Write an image with what is said about it, its tag last."""
    manifest, content = _for_destination(opened, target)
    with open_sink(target, opened.name) as sink:
        left_behind = _why_left(opened, manifest, sink)
        depth = 0 if left_behind or not sink.carries_referrers else _REFERRER_DEPTH
        walk = _Walk()
        found = list(_with_children(opened, manifest, content, depth=depth, walk=walk))
        transfers, referrers, refused = _put(found, opened, sink, progress)
        images = [item.descriptor.digest for item in found if item.subject is None and depth]
        signatures, unsigned = _copied_signatures(images, opened, sink)
        changed = sink.tag(manifest, content, done.tag)
    return replace(
        done,
        digest=manifest.digest,
        converted=manifest.digest != opened.descriptor.digest or not target.keeps_manifests,
        changed=changed,
        transfers=transfers,
        referrers=referrers,
        signatures=signatures,
        left_behind=left_behind or "; ".join(filter(None, (refused, unsigned, *walk.left))),
    )


def _copied_signatures(
    digests: Iterable[str], source: OpenedImage, sink: ImageSink
) -> tuple[int, str]:
    """Copy signatures; their number, and why there are none where the place takes none."""
    count, left = 0, []
    for digest in digests:
        try:
            count += copy_signatures(source.blobs, sink, digest)
        except NoSignatures as error:
            left.append(f"{error.message} {error.hint}")
        except RegistryError as error:
            if not error.refused:
                raise
            return count, f"the signatures of the image are not taken here: {error.message}"
    return count, "; ".join(left)


def _opened(source: str, platform: str, *, all_platforms: bool) -> OpenedImage:
    if all_platforms and platform:
        raise InvalidInput("A copy is of one platform or of all of them.")
    if all_platforms:
        return open_manifest(source)
    return open_image(source, parse_platform(platform) if platform else None)


def _made_here(destination: str, platform: str, progress: Callable[[str], None]) -> CopiedImage:
    """Write the image that the base `host` is; its tag is the version of its Python."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    with scratch_directory("kfp-bento-host-") as scratch:
        nothing = scratch / "requirements.txt"
        nothing.touch()

        def packed(compression: str) -> Image:
            return pack_image(
                nothing,
                destination,
                ImageOptions(base=HOST, platform=platform, compression=compression),
                name=HOST,
                version=python,
                python=python,
                progress=progress,
            )

        try:
            made = packed("zstd")
        except RegistryError as error:
            if not refuses_kind(error):
                raise
            progress("the registry takes no layers of zstd: once more with gzip")
            made = packed("gzip")
    layers = (
        Transfer(one.title, one.digest, one.size, one.placement or "present") for one in made.layers
    )
    return CopiedImage(
        HOST,
        made.location,
        made.digest,
        made.tags[0],
        changed=not made.reused,
        transfers=() if made.reused else tuple(layers),
        left_behind="; ".join(made.notes),
    )


def copy_referrers(
    source: OpenedImage, sink: ImageSink, progress: Callable[[str], None]
) -> tuple[tuple[Transfer, ...], tuple[str, ...], str]:
    """Copy what refers to an image that the sink holds under the same digest.

    Returns:
        What became of each blob, digests of the manifests, and why others are not among them.
    """
    _, unsigned = _copied_signatures([source.descriptor.digest], source, sink)
    walk = _Walk()
    found = _referrers(source, source.descriptor, _REFERRER_DEPTH, walk)
    transfers, digests, refused = _put(found, source, sink, progress)
    return transfers, digests, "; ".join(filter(None, (refused, unsigned, *walk.left)))


def _put(
    manifests: Iterable[_Manifest],
    source: OpenedImage,
    sink: ImageSink,
    progress: Callable[[str], None],
) -> tuple[tuple[Transfer, ...], tuple[str, ...], str]:
    """Put each manifest after its blobs.

    Returns:
        What became of each blob, digests of the referrers, and why others were not taken: that
        is no reason to do without the image.
    """
    transfers: list[Transfer] = []
    referrers: dict[Descriptor, list[tuple[Descriptor, bytes]]] = {}
    for item in manifests:
        with well_formed(source.title):
            loads = list(_loads(item.document, source))
        transfers += put_blobs(sink, loads, progress)
        if item.subject is None:
            sink.put_manifest(item.descriptor, item.content)
        else:
            referrers.setdefault(item.subject, []).append((item.descriptor, item.content))
    # All of one subject at once: where tags are immutable, their list can be written only once.
    digests: list[str] = []
    refused = ""
    for subject, about in referrers.items():
        try:
            sink.put_referrers(about, subject)
        except RegistryError as error:
            if not error.refused:
                raise
            refused = f"what is attached to the image is not taken here: {error.message}"
        else:
            digests += [manifest.digest for manifest, _ in about]
    # Of each blob the first mention: later ones only say that it is there by now.
    once = {transfer.digest: transfer for transfer in reversed(transfers)}
    return tuple(once.values())[::-1], tuple(digests), refused


def _with_children(
    source: OpenedImage,
    manifest: Descriptor,
    content: bytes,
    *,
    subject: Descriptor | None = None,
    depth: int,
    walk: _Walk,
) -> Iterator[_Manifest]:
    """Give a manifest, below it the children of an index, after it what refers to it."""
    document = parse_document(content, f"The manifest {manifest.digest}")
    title = f"{manifest.digest}, attached to {source.title}," if subject else source.title
    with well_formed(title):
        children = [descriptor_from(item) for item in document.get("manifests") or ()]
    for child in children:
        inner = source.blobs.read_named(child)
        parsed = parse_document(inner, f"The manifest {child.digest}")
        if is_index(child, parsed, f"{child.digest} in {source.title}"):
            raise ImageError(
                f"{title} holds an index within an index.",
                hint="Such images cannot be copied; copy one of the inner ones by its digest.",
            )
        yield _Manifest(child, inner, parsed, None)
        yield from _referrers(source, child, depth, walk)
    yield _Manifest(manifest, content, document, subject)
    yield from _referrers(source, manifest, depth, walk)


def _referrers(
    source: OpenedImage, subject: Descriptor, depth: int, walk: _Walk
) -> Iterator[_Manifest]:
    """Give what refers to a manifest, and what refers to that; an index of signatures as such."""
    try:
        listed = source.blobs.referrers(subject.digest) if depth else []
    except RegistryError as error:
        if not error.refused:
            raise
        walk.left.append(f"what is attached to {subject.digest} may not be read: {error.message}")
        return
    for item in listed:
        found = descriptor_from(item)
        if found.digest in walk.seen:
            continue
        walk.seen.add(found.digest)
        try:
            content = source.blobs.read_named(found)
            below = _with_children(
                source, found, content, subject=subject, depth=depth - 1, walk=walk
            )
            yield from list(below)
        except RegistryError:
            raise
        except ImageError as error:  # anybody may attach anything: no reason to do without the rest
            walk.left.append(f"what is attached as {found.digest} cannot be read: {error.message}")


def _is_there(image: OpenedImage, target: ImageReference, tag: str) -> bool:
    """Whether the place that an image was read from holds it under this name already."""
    same = target.known_as(image.repository) == image.repository
    return same and tag == image.tag and not image.from_index


def _for_destination(image: OpenedImage, target: ImageReference) -> tuple[Descriptor, bytes]:
    """Give the manifest as it is, or as OCI writes it where the destination is a layout of ours."""
    if image.is_index and not target.keeps_manifests:
        raise ImageError(
            "A docker archive holds an image for one platform only.",
            hint="Choose one with --platform, or copy to a registry or an oci:DIR.",
        )
    docker = ".docker." in image.descriptor.media_type
    if not docker or not target.only_oci:
        return image.descriptor, image.content
    if image.is_index:
        raise ImageError(
            f"{image.title} is an index of Docker's own kind, which an OCI layout cannot hold.",
            hint="Copy one platform of it, or copy it to a registry.",
        )
    return _as_oci(image)


def _as_oci(image: OpenedImage) -> tuple[Descriptor, bytes]:
    """Give the same image with OCI media types; configuration and layers keep their bytes."""
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
    """Give the blobs that a manifest names, the configuration last."""
    for number, item in enumerate(document.get("layers") or (), start=1):
        notes = item.get("annotations") or {}
        title = notes.get("kfp-bento.title") or f"layer {number}"
        yield BlobUpload(str(title), descriptor_from(item), image.blobs)
    if packed := document.get("config"):
        yield BlobUpload("configuration", descriptor_from(packed), image.blobs)


def _why_left(image: OpenedImage, written: Descriptor, sink: ImageSink) -> str:
    """Why what refers to the image cannot come along; empty if it can or there is nothing."""
    if sink.carries_referrers and written.digest == image.descriptor.digest:
        return ""
    count = len(image.blobs.referrers(image.descriptor.digest))
    with suppress(NoSignatures):
        count += len(signature_layers(image.blobs, image.descriptor.digest))
    if not count:
        return ""
    why = "the image has another digest now" if sink.carries_referrers else "an archive holds none"
    return f"{count} attached (SBOM, provenance, signature): {why}"
