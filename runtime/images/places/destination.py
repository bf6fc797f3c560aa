"""Where images are written to: the sink for a destination, and the names that go with it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from kfp_bento.runtime.images.oci.image import ImageSink
from kfp_bento.runtime.images.oci.reference import ArchiveReference, ImageReference, LayoutReference
from kfp_bento.runtime.images.places.archive import archive_sink, check_archive_replaceable
from kfp_bento.runtime.images.places.layout import check_replaceable, layout_sink
from kfp_bento.runtime.images.registry.repository import Repository


@contextlib.contextmanager
def open_sink(target: ImageReference, repository: str = "") -> Iterator[ImageSink]:
    """Opens a destination for writing; nothing is visible there before the sink's `tag`.

    Args:
        target: Where to.
        repository: What the image is called in an archive that is not told its name.

    Raises:
        ImageError: There is something that kfp-bento did not write, or the disk is full.
    """
    if isinstance(target, LayoutReference):
        with layout_sink(target.directory) as layout:
            yield layout
    elif isinstance(target, ArchiveReference):
        with archive_sink(target.file, target.repository or repository) as archive:
            yield archive
    else:
        yield Repository(target)


def check_destination(target: ImageReference) -> None:
    """Makes sure that nothing of anybody else's would be overwritten.

    Raises:
        ImageError: There is something that kfp-bento did not write.
    """
    if isinstance(target, LayoutReference):
        check_replaceable(target.directory)
    elif isinstance(target, ArchiveReference):
        check_archive_replaceable(target.file)


def location(target: ImageReference) -> str:
    """Where to read the image from, for skopeo, podman and ourselves, without its tag."""
    if isinstance(target, LayoutReference):
        return f"oci:{target.directory}"
    if isinstance(target, ArchiveReference):
        return f"docker-archive:{target.file}"
    return f"docker://{target.name}"
