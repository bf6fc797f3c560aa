"""Images opened for reading, and places for writing: registry, OCI layout or docker archive.

Which of the three a reference stands for is told apart in `_PLACES` and nowhere else.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from kfp_bento.runtime.errors import ImageError
from kfp_bento.runtime.images.oci.image import (
    Platform,
    descriptor_from,
    one_line,
    parse_platform,
)
from kfp_bento.runtime.images.oci.reference import (
    ArchiveReference,
    ImageReference,
    LayoutReference,
    Reference,
    parse_source,
)
from kfp_bento.runtime.images.places.archive import (
    archive_sink,
    check_archive_replaceable,
    open_archive,
)
from kfp_bento.runtime.images.places.layout import (
    check_replaceable,
    layout_beside,
    layout_sink,
    open_layout,
)
from kfp_bento.runtime.images.places.opened_image import OpenedImage, require_platform, well_formed
from kfp_bento.runtime.images.places.registry import ImageRepository, open_repository
from kfp_bento.runtime.images.places.sink import ImageSink


def open_image(text: str, platform: Platform | None = None) -> OpenedImage:
    """Open an image; a multi-platform index is followed to the image for the platform.

    Args:
        text: A registry reference, `oci:DIR[:TAG]` or `docker-archive:FILE[:TAG]`.
        platform: Which image of an index, this machine's if not given; what is no index must be
            for a platform that is given.

    Raises:
        InvalidInput: The text names no place.
        ImageError: It cannot be read, or there is no image for the platform.
    """
    found = open_manifest(text)
    if not found.is_index:
        if platform is not None:
            require_platform(found, platform)
        return found
    return _choose(found, text, platform or parse_platform())


def open_manifest(text: str) -> OpenedImage:
    """Open what a name stands for, an image or an index of images.

    Raises:
        InvalidInput: The text names no place.
        ImageError: It cannot be read.
    """
    where = parse_source(text)
    return _PLACES[type(where)].read(where)


def images_in(index: OpenedImage, text: str) -> tuple[OpenedImage, ...]:
    """Open the images that an index lists, in the order of their platforms' names.

    Args:
        index: The index.
        text: What it was asked for by.

    Raises:
        InvalidInput: One is for a platform that is not built for.
        ImageError: One cannot be read, or is an index itself.
    """
    with well_formed(index.title):
        names = sorted({_offer(item) for item in index.manifest["manifests"]})
    return tuple(_choose(index, text, parse_platform(name)) for name in names if name)


def open_sink(
    target: ImageReference, repository: str = ""
) -> contextlib.AbstractContextManager[ImageSink]:
    """Open a destination for writing; nothing is visible there before the sink's `tag`.

    Args:
        target: Where to.
        repository: What the image is called in an archive that is not told its name.

    Raises:
        ImageError: There is something that kfp-bento did not write, or the disk is full.
    """
    return _PLACES[type(target)].sink(target, repository)


def open_beside(target: ImageReference) -> contextlib.AbstractContextManager[ImageSink]:
    """Open the place of an image that stays as it is, to put signatures beside it.

    Raises:
        ImageError: It is an archive, or a layout that kfp-bento did not write.
    """
    return _PLACES[type(target)].beside(target)


def check_free(target: ImageReference) -> None:
    """Make sure that nothing of anybody else's would be overwritten.

    Raises:
        ImageError: There is something that kfp-bento did not write.
    """
    _PLACES[type(target)].check_free(target)


@dataclass(frozen=True)
class _Place:
    read: Callable[[Any], OpenedImage]
    sink: Callable[[Any, str], contextlib.AbstractContextManager[ImageSink]]
    check_free: Callable[[Any], None]
    beside: Callable[[Any], contextlib.AbstractContextManager[ImageSink]]


def _nothing_beside(where: ArchiveReference) -> contextlib.AbstractContextManager[ImageSink]:
    raise ImageError(
        f"{where} carries no signatures: a docker archive has no place for them.",
        hint="Sign the image where it came from, a registry or an oci:DIR.",
    )


_PLACES: dict[type, _Place] = {
    Reference: _Place(
        read=open_repository,
        sink=lambda where, name: contextlib.nullcontext(ImageRepository(where)),
        check_free=lambda where: None,
        beside=lambda where: contextlib.nullcontext(ImageRepository(where)),
    ),
    LayoutReference: _Place(
        read=open_layout,
        sink=lambda where, name: layout_sink(where.directory),
        check_free=lambda where: check_replaceable(where.directory),
        beside=lambda where: layout_beside(where.directory),
    ),
    ArchiveReference: _Place(
        read=open_archive,
        sink=lambda where, name: archive_sink(where.file, where.known_as(name)),
        check_free=lambda where: check_archive_replaceable(where.file),
        beside=_nothing_beside,
    ),
}


def _choose(index: OpenedImage, text: str, platform: Platform) -> OpenedImage:
    """Follow a multi-platform index to the manifest for the platform; one step, no more."""
    offered = set()
    for item in index.manifest["manifests"]:
        name = _offer(item)
        if name == str(platform):
            found = descriptor_from(item)
            chosen = replace(
                index,
                title=index.title.replace(index.descriptor.digest, found.digest),
                descriptor=found,
                content=index.blobs.read_named(found),
                from_index=True,
            )
            if chosen.is_index:
                raise ImageError(f"{text} is an index of indexes, which is not supported.")
            return chosen
        if name:
            offered.add(one_line(name, 60))
    shown = ", ".join(sorted(offered)[:10]) or "none that it names"
    raise ImageError(
        f"{text} has no image for {platform}, only for {shown}.",
        hint="Choose another image or another platform.",
    )


def _offer(item: object) -> str:
    """Give a platform; variants that we do not build for keep theirs in the name."""
    described = item.get("platform") if isinstance(item, dict) else None
    if not isinstance(described, dict):
        return ""
    name = f"{described.get('os')}/{described.get('architecture')}"
    variant = described.get("variant", "")
    return name if variant in ("", "v8") else f"{name}/{variant}"
