"""Another base below an image that kfp-bento built, without its bento and without a build.

Layers are independent of what lies below them, so the own ones stay as they are and only the
configuration is composed anew, as a build on the new base would compose it: the same digest
comes out. Where a build might come out otherwise, this refuses.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

from kfp_bento.runtime.errors import ImageError, InvalidInput
from kfp_bento.runtime.images.assembly.apart import REBUILD, ImageParts, take_apart
from kfp_bento.runtime.images.assembly.several import check_holds_several, naming
from kfp_bento.runtime.images.attestations.attachments import (
    attach_if_taken,
    documents_of,
    provenance_document,
    sbom_document,
)
from kfp_bento.runtime.images.attestations.provenance import (
    ImageRebase,
    invocation_id,
    rebase_provenance,
)
from kfp_bento.runtime.images.attestations.sbom import SBOM_TYPE, sbom_on_base
from kfp_bento.runtime.images.base.base_image import HOST, BaseImage, open_base
from kfp_bento.runtime.images.base.fit import fitting_base
from kfp_bento.runtime.images.cache.local import LayerBuilder
from kfp_bento.runtime.images.copy import copy_referrers
from kfp_bento.runtime.images.debian import probe_base, version_of
from kfp_bento.runtime.images.oci.blobs import BlobDirectory, scratch_directory
from kfp_bento.runtime.images.oci.config import (
    NEEDED_GLIBC,
    NEEDED_LIBRARIES,
    ComposedImage,
    image_index,
    left_of_base,
)
from kfp_bento.runtime.images.oci.image import Descriptor, Document, Platform, parse_platform
from kfp_bento.runtime.images.oci.keys import BUILDER_FORMAT
from kfp_bento.runtime.images.oci.layers import codec_named
from kfp_bento.runtime.images.oci.reference import (
    ImageReference,
    check_tag,
    parse_destination,
    parse_source,
)
from kfp_bento.runtime.images.oci.transfer import BlobUpload, Transfer, put_blobs, transfers_to_dict
from kfp_bento.runtime.images.places.open import (
    check_free,
    images_in,
    open_image,
    open_manifest,
    open_sink,
)
from kfp_bento.runtime.images.places.opened_image import OpenedImage, well_formed
from kfp_bento.runtime.images.places.sink import ImageSink
from kfp_bento.runtime.images.python.installer import GLIBC
from kfp_bento.runtime.images.python.needs import GLIBC_NAME

# How Docker's Debian images begin, and all that are made from them.
_DEBIAN = re.compile(r"debian\.sh\b.* '(?P<suite>[a-z]+)' '@\d+'")


@dataclass(frozen=True)
class RebasedImage:
    """An image that has been put on another base.

    Attributes:
        image: What was read, with its digest.
        base: The new base, with its digest.
        location: Where to read the result: `oci:DIR`, `docker-archive:FILE`, `docker://…`.
        digest: Digest of the result's manifest.
        tag: The tag that points to it.
        changed: False when it stood on this base already, or the destination held the result.
        transfers: What became of each blob; empty when there was nothing to do.
        referrers: Digests of the manifests that were attached: bill of materials, provenance.
        missing: Why a bill of materials, or both, is not among them; empty if they are.
        notes: What else there is to tell people.
    """

    image: str
    base: str
    location: str
    digest: str
    tag: str
    changed: bool = False
    transfers: tuple[Transfer, ...] = ()
    referrers: tuple[str, ...] = ()
    missing: str = ""
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Give the result as plain JSON values."""
        facts = {name: value for name, value in vars(self).items() if name != "transfers"}
        listed = {"referrers": list(self.referrers), "notes": list(self.notes)}
        return {**facts, **listed, **transfers_to_dict(self.transfers)}


def rebase_image(
    image: str,
    base: str,
    *,
    destination: str = "",
    tag: str = "",
    platform: str = "",
    progress: Callable[[str], None] = lambda sentence: None,
) -> RebasedImage:
    """Put an image that kfp-bento built on another base image.

    The result gets documents of its own: the bill of materials of the old image with the new base
    in it, and a provenance statement that names the old image and the new base. What else refers
    to the old image, such as signatures, speaks of the old base and does not come along.

    Args:
        image: A registry reference, `oci:DIR[:TAG]` or `docker-archive:FILE[:TAG]`.
        base: The new base, in the same forms, or `host`.
        destination: Where the result goes; the image's own place, where its tag moves, if empty.
        tag: The tag; that of the destination, or the image's own, if empty.
        platform: Take the image for this platform out of an index alone; then a destination or tag
            is needed. Else an index is rebased as a whole, onto a base for all its platforms.
        progress: Called with a short sentence at each step.

    Returns:
        The result, and what became of each blob.

    Raises:
        InvalidInput: A parameter cannot be used.
        ImageError: kfp-bento did not build the image, or it needs a build: another Python or
            platform, or Debian packages whose release is not certain to be the new base's.
        RegistryError: A registry refused or failed.
    """
    progress(f"reading {image}")
    found = open_image(image, parse_platform(platform)) if platform else open_manifest(image)
    target = _target(image, destination, tag, found)
    tag = check_tag(tag or target.tag or found.tag or "latest")
    several = images_in(found, image) if found.is_index else ()
    if several:
        check_holds_several(target)
    # A digest says what to read, not what its tag stands for by now.
    in_place = not destination and tag == found.tag and "@" not in image
    with scratch_directory("kfp-bento-rebase-") as folder:
        workspace = BlobDirectory(folder)
        rebases = []
        for opened in several or (found,):
            with naming(opened.platform) if several else nullcontext():
                rebases.append(_possible(image, base, opened, target, workspace, progress))
        bases = ", ".join(dict.fromkeys(one.found.title for one in rebases))
        done = RebasedImage(found.title, bases, target.location, found.descriptor.digest, tag)
        if in_place and all(one.parts.stands_on(one.found) for one in rebases):
            progress(f"{found.title} stands on {bases} already")
            return done
        return _write(rebases, found, done, workspace, progress)


def _possible(
    image: str,
    base: str,
    opened: OpenedImage,
    target: ImageReference,
    workspace: BlobDirectory,
    tell: Callable[[str], None],
) -> _Rebase:
    """Find out whether the new base can be put below an image.

    Raises:
        InvalidInput, ImageError, RegistryError: See `rebase_image`.
    """
    with well_formed(opened.title):
        parts = take_apart(opened)
    check_free(target)
    builder = LayerBuilder(workspace, codec_named("zstd"), parts.config.epoch, None, tell)
    found = _opened_base(base, parts, opened.platform, builder)
    with well_formed(opened.title):
        _check_fit(opened, parts, found)
    return _Rebase(image, base, opened, parts, found, target)


def _opened_base(
    base: str, parts: ImageParts, platform: Platform, builder: LayerBuilder
) -> BaseImage:
    """Open the new base and look into it, unless the image stands on it already."""
    found = open_base(base, parts.python, platform, builder)
    if parts.stands_on(found) or found.title == HOST:
        return found
    builder.tell("reading what the base holds")
    facts = probe_base(found.layers, found.blobs)
    needs = parts.config.profile.needs
    return fitting_base(found, facts.userland, parts.python, needs=needs)


@dataclass(frozen=True)
class _Rebase:
    """A rebase that has been found possible: image and base as asked for, and as found."""

    image: str
    base: str
    opened: OpenedImage
    parts: ImageParts
    found: BaseImage
    target: ImageReference


@dataclass(frozen=True)
class _Stored:
    """A rebased image in its place, without a tag; and what became of all that it is made of."""

    composed: ComposedImage
    transfers: tuple[Transfer, ...]
    referrers: tuple[str, ...]
    missing: str


def _write(
    rebases: Sequence[_Rebase],
    source: OpenedImage,
    done: RebasedImage,
    workspace: BlobDirectory,
    tell: Callable[[str], None],
) -> RebasedImage:
    """Write the image, or those of an index and the index after them, and move the tag at last."""
    with open_sink(rebases[0].target, source.name) as sink:
        stored = {one.opened.platform: _store(one, sink, workspace, tell) for one in rebases}
        if source.is_index:
            found = {platform: one.composed.manifest for platform, one in stored.items()}
            with well_formed(source.title):
                index = image_index(found, source.manifest.get("annotations") or {})
            sink.put_manifest(*index)
        else:
            (only,) = stored.values()
            index = only.composed.manifest, only.composed.content
        changed = sink.tag(*index, done.tag)
    each = stored.values()
    return replace(
        done,
        digest=index[0].digest,
        changed=changed,
        # Of each blob the first mention: later ones only say that it is there by now.
        transfers=tuple({t.digest: t for one in reversed([*each]) for t in one.transfers}.values()),
        referrers=tuple(digest for one in each for digest in one.referrers),
        missing="; ".join(dict.fromkeys(one.missing for one in each if one.missing)),
        notes=tuple(dict.fromkeys(filter(None, map(_left_of_base, rebases)))),
    )


def _left_of_base(rebase: _Rebase) -> str:
    return left_of_base(rebase.found.config, rebase.parts.config.environment)


def _store(
    rebase: _Rebase, sink: ImageSink, workspace: BlobDirectory, tell: Callable[[str], None]
) -> _Stored:
    """Write layers, configuration, manifest and documents of one image."""
    opened, parts, base = rebase.opened, rebase.parts, rebase.found
    composed = parts.config.compose(base.config, base.digest, (*base.layers, *parts.own))
    manifest = composed.manifest
    workspace.put_bytes(composed.config_content, composed.config.media_type)
    loads = [BlobUpload(layer.title, layer.descriptor, base.blobs) for layer in base.layers]
    loads += [BlobUpload(layer.title, layer.descriptor, opened.blobs) for layer in parts.own]
    loads.append(BlobUpload("configuration", composed.config, workspace))
    documents, missing = _documents(rebase, manifest, tell)
    transfers = put_blobs(sink, loads, tell)
    sink.put_manifest(manifest, composed.content)
    # Before the tag, so that no image is ever seen without its documents.
    attached, refused = attach_if_taken(sink, workspace, manifest, documents)
    if refused:
        tell(refused)
    referrers = tuple(item.digest for item in attached)
    if rebase.target.keeps_manifests and not documents:
        more, referrers, refused = copy_referrers(opened, sink, tell)
        transfers += more
    return _Stored(composed, transfers, referrers, missing or refused)


def _target(image: str, destination: str, tag: str, opened: OpenedImage) -> ImageReference:
    if destination:
        return parse_destination(destination)
    where = parse_source(image)
    if opened.from_index and not tag:
        raise InvalidInput(
            f"{image} names images for several platforms; a rebase of one would leave it in their "
            "place.",
            hint="Leave out --platform to rebase all of them, or say where the result goes (--to) "
            "or which tag it gets (--tag).",
        )
    if where.pinned and not tag:
        raise InvalidInput(
            f"{image} names a digest, which always stands for the same image.",
            hint="Say where the result goes (--to) or which tag it gets (--tag).",
        )
    return where


def _documents(
    rebase: _Rebase, manifest: Descriptor, tell: Callable[[str], None]
) -> tuple[list[Document], str]:
    """Give what to attach to the result, and why a bill of materials is not among it.

    Returns:
        No documents where the image stood on this base: all that was said of it stays true,
        signatures as well.
    """
    opened, base = rebase.opened, rebase.found
    if not rebase.target.keeps_manifests:
        missing = "an archive carries no bill of materials and no provenance"
        tell(missing)
        return [], missing
    if manifest.digest == opened.descriptor.digest:
        return [], ""
    bills, missing = _bills(rebase)
    if missing:
        tell(f"no bill of materials: {missing}")
    platform = opened.platform
    statement = ImageRebase(
        repository=rebase.target.known_as(opened.name),
        digest=manifest.digest,
        image=rebase.image,
        image_digest=opened.descriptor.digest,
        base=rebase.base,
        base_digest=base.digest,
        platform=platform,
        format=str(BUILDER_FORMAT),
        invocation=invocation_id(os.environ),
    )
    return [*bills, provenance_document(rebase_provenance(statement))], missing


def _bills(rebase: _Rebase) -> tuple[list[Document], str]:
    """Give the image's bill of materials with the new base, or why there is none."""
    opened = rebase.opened
    if not parse_source(rebase.image).keeps_manifests:
        return [], f"{rebase.image} is in an archive, which carries none"
    found = documents_of(opened, SBOM_TYPE)
    if not found:
        return [], f"none is attached to {opened.title}"
    # Those that different versions of kfp-bento wrote are the same again now.
    moved = dict.fromkeys(sbom_on_base(content, rebase.found) for content in found)
    bills = [sbom_document(content) for content in moved if content is not None]
    if not bills:
        return [], f"that of {opened.title} is not as this version of kfp-bento writes it"
    return bills, ""


def _check_fit(image: OpenedImage, parts: ImageParts, base: BaseImage) -> None:
    """Refuse a base on which the image's layers would not work as they are.

    The Python version and the platform have been compared when the base was opened.
    """
    if base.interpreter != parts.config.interpreter:
        raise ImageError(
            f"The base {base.title} has its Python at {base.interpreter}, but {image.title} "
            f"links to {parts.config.interpreter}.",
            hint=f"Choose a base of the same kind. {REBUILD}",
        )
    needed = parts.config.labels.get(NEEDED_GLIBC, ".".join(map(str, GLIBC)))
    if base.glibc and version_of(base.glibc) < version_of(needed):
        raise ImageError(
            f"The base {base.title} has glibc {base.glibc}, and what is in {image.title} may need "
            f"{needed}.",
            hint=f"Choose a newer base. {REBUILD}",
        )
    wanted = parts.config.labels.get(NEEDED_LIBRARIES, "").split()
    missing = [name for name in wanted if name not in base.libraries]
    if missing and GLIBC_NAME in base.libraries:
        raise ImageError(
            f"The base {base.title} lacks {', '.join(missing)}, which wheels in {image.title} "
            "need.",
            hint=f"Choose a base that has them. {REBUILD}",
        )
    if not any(layer.kind == "system" for layer in parts.own):
        return
    before, after = (_debian_release(config) for config in (image.config, base.config))
    if not before or before != after:
        raise ImageError(
            f"{image.title} holds Debian packages, which fit one release of Debian only; the old "
            f"base is {_said(before)}, and the new one, {base.title}, is {_said(after)}.",
            hint=REBUILD,
        )


def _debian_release(config: Mapping[str, Any]) -> str:
    """Give the release that Docker's Debian images note in their history; else an empty text."""
    for entry in config.get("history") or ():
        if found := _DEBIAN.search(str(entry.get("created_by", ""))):
            return found["suite"]
    return ""


def _said(release: str) -> str:
    return f"Debian {release}" if release else "of a release that its history does not tell"
