"""OCI layout directories as a source and a sink of images (``image-layout.md``)."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfp_bento.runtime.errors import ImageError
from kfp_bento.runtime.images.blobs import BlobDirectory, storage_errors
from kfp_bento.runtime.images.image import (
    OCI_INDEX,
    BlobSource,
    BlobStream,
    Descriptor,
    Placement,
    descriptor_from,
)
from kfp_bento.runtime.storage import (
    JSON_LIMIT,
    parse_json,
    put_in_place,
    read_small_file,
    scratch_beside,
)

REF_NAME = "org.opencontainers.image.ref.name"
WRITER = "kfp-bento.writer"
_PARTS = {"oci-layout", "index.json", "blobs"}


@dataclass(frozen=True)
class LayoutSource:
    """Reads images from an OCI layout directory."""

    directory: Path

    def open_blob(self, blob: Descriptor) -> Iterator[bytes]:
        """Yields a blob and checks it."""
        return BlobDirectory(self.directory).open_blob(blob)

    def local_path(self, blob: Descriptor) -> Path | None:
        """None: files of others are copied and checked, not linked, since they may change."""
        return None

    def find(self, tag: str = "") -> Descriptor:
        """The image, or index of images, that the layout names.

        Args:
            tag: Which one; may be left out when the layout holds a single image.

        Raises:
            ImageError: There is no such layout or no such tag, or several images and no tag.
        """
        found = [item for item in self._manifests() if not tag or _name(item) == tag]
        if len(found) != 1:
            which = f"image tagged '{tag}'" if tag else "image"
            count = f"{len(found)} images" if found else f"no {which}"
            raise ImageError(
                f"The OCI layout {self.directory} holds {count}.",
                hint="Name one as oci:DIR:TAG; `skopeo inspect oci:DIR` shows what is there.",
            )
        return descriptor_from(found[0])

    def _manifests(self) -> list[Any]:
        try:
            index = _read_index(self.directory)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise ImageError(
                f"{self.directory} is no OCI layout: its index.json cannot be read ({reason}).",
                hint="An OCI layout directory holds oci-layout, index.json and blobs/.",
            ) from error
        manifests = index.get("manifests", [])
        if not isinstance(manifests, list):
            raise ImageError(f"The index.json of {self.directory} lists no manifests.")
        return manifests


def _read_index(directory: Path) -> dict[str, Any]:
    return parse_json(read_small_file(directory / "index.json", JSON_LIMIT))


def _name(item: Any) -> Any:
    """The name that an entry of an index gives its image."""
    annotations = item.get("annotations") if isinstance(item, dict) else None
    return annotations.get(REF_NAME) if isinstance(annotations, dict) else None


class LayoutSink:
    """Writes one image as an OCI layout directory.

    Everything is written into a directory beside it, which `tag` renames into place.
    """

    def __init__(self, directory: Path, partial: Path) -> None:
        self._directory = directory
        self._partial = partial
        self.blobs = BlobDirectory(partial)
        self._referrers: list[dict[str, Any]] = []

    def put_blob(self, blob: Descriptor, source: BlobSource) -> Placement:
        """Stores the blob unless it is there already."""
        return self.blobs.put_blob(blob, source)

    def put_stream(self, stream: BlobStream) -> None:
        """Stores a blob that is made while it is read."""
        self.blobs.put_stream(stream)

    def put_manifest(self, manifest: Descriptor, content: bytes) -> None:
        """Stores the manifest."""
        self.blobs.put_bytes(content, manifest.media_type)

    def put_referrer(self, manifest: Descriptor, content: bytes, subject: Descriptor) -> None:
        """Stores the manifest; the index will list it without a name."""
        self.put_manifest(manifest, content)
        kind = json.loads(content).get("artifactType", "")
        self._referrers.append({**manifest.to_dict(), "artifactType": kind})

    def tag(self, manifest: Descriptor, content: bytes, tag: str) -> bool:
        """Names the manifest in the index, and puts the layout into place."""
        entry = {**manifest.to_dict(), "annotations": {REF_NAME: tag}}
        index = {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [entry, *self._referrers],
            "annotations": {WRITER: "1"},
        }
        with storage_errors(self._directory):
            (self._partial / "index.json").write_text(json.dumps(index, indent=2))
            (self._partial / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
            if self._is_there():
                return False
            put_in_place(self._partial, self._directory)
        return True

    def _is_there(self) -> bool:
        """Whether the directory holds just this image already; then it is left untouched."""
        fresh, present = (_listing(folder) for folder in (self._partial, self._directory))
        index = self._directory / "index.json"
        return (
            fresh == present and index.read_bytes() == (self._partial / "index.json").read_bytes()
        )


def _listing(folder: Path) -> dict[str, int]:
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file()
    }


@contextlib.contextmanager
def layout_sink(directory: Path) -> Iterator[LayoutSink]:
    """Opens a layout for writing; unless an image is put, the disk stays as it was.

    Raises:
        ImageError: The directory holds something that we did not write, or cannot be written.
    """
    check_replaceable(directory)
    with contextlib.ExitStack() as stack:
        with storage_errors(directory):
            partial = stack.enter_context(scratch_beside(directory))
        yield LayoutSink(directory, partial)


def check_replaceable(directory: Path) -> None:
    """Makes sure that nothing of anybody else's would be overwritten.

    Raises:
        ImageError: The directory exists, is not empty and is no layout written by kfp-bento.
    """
    if not os.path.lexists(directory):
        return
    try:
        found = {item.name for item in directory.iterdir()}
    except OSError as error:
        raise ImageError(
            f"The image cannot be written to {directory}: {error.strerror}."
        ) from error
    if not found:
        return
    with contextlib.suppress(OSError, ValueError):
        written = _read_index(directory).get("annotations")
        if found <= _PARTS and isinstance(written, dict) and WRITER in written:
            return
    raise ImageError(
        f"{directory} already holds something that kfp-bento did not write; it was left alone.",
        hint="Choose another directory, or remove this one yourself.",
    )
