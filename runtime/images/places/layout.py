"""OCI layout directories as a source and a sink of images (`image-layout.md`)."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfp_bento.runtime.errors import ImageError
from kfp_bento.runtime.files import (
    JSON_LIMIT,
    held,
    parse_json,
    put_in_place,
    read_small_file,
    remove_tree,
    scratch_beside,
    write_whole,
)
from kfp_bento.runtime.images.oci.blobs import BlobDirectory, storage_errors
from kfp_bento.runtime.images.oci.image import (
    OCI_INDEX,
    BlobSource,
    BlobStream,
    Descriptor,
    ImageSource,
    Placement,
    descriptor_from,
    read_small,
    referrer_type,
    signature_tag,
)
from kfp_bento.runtime.images.oci.reference import LayoutReference
from kfp_bento.runtime.images.places.opened_image import OpenedImage
from kfp_bento.runtime.images.places.sink import ImageSink

REF_NAME = "org.opencontainers.image.ref.name"
WRITER = "kfp-bento.writer"
INPUTS = "kfp-bento.inputs"
_PARTS = {"oci-layout", "index.json", "blobs"}
_MOST_NAMED = 10


@dataclass(frozen=True)
class LayoutSource(ImageSource):
    """Reads images from an OCI layout directory.

    Files of others are copied and checked, not linked, since they may change.
    """

    directory: Path

    def open_blob(self, blob: Descriptor) -> Iterator[bytes]:
        """Yield a blob and check it."""
        return BlobDirectory(self.directory).open_blob(blob)

    def find(self, tag: str = "") -> Descriptor:
        """Give the image, or index of images, that the layout names.

        Args:
            tag: Which one; may be left out when the layout holds a single image.

        Raises:
            ImageError: There is no such layout or no such tag, or several images and no tag.
        """
        return self.find_named(tag)[0]

    def find_named(self, tag: str = "") -> tuple[Descriptor, str]:
        """Give what `find` finds, and the name that the layout gives it (may be empty)."""
        found = [
            item
            for item in self._manifests()
            if (_name(item) == tag if tag else not _is_referrer(item))
        ]
        if len(found) != 1:
            which = f"image tagged '{tag}'" if tag else "image"
            count = f"{len(found)} images" if found else f"no {which}"
            there = [_name(item) for item in self._manifests() if _name(item)]
            names = f" It holds {', '.join(sorted(there)[:_MOST_NAMED])}." if there else ""
            raise ImageError(
                f"The OCI layout {self.directory} holds {count}.",
                hint=f"Name one as oci:DIR:TAG.{names}",
            )
        return descriptor_from(found[0]), _name(found[0])

    def referrers(self, digest: str) -> list[dict[str, Any]]:
        """Descriptors of the manifests whose `subject` is the image with this digest."""
        listed = [item for item in self._manifests() if _is_referrer(item)]
        return [item for item in listed if self._subject(descriptor_from(item)) == digest]

    def named(self, tag: str) -> tuple[Descriptor, bytes] | None:
        """Read the manifest with this tag."""
        found = next((item for item in self._manifests() if _name(item) == tag), None)
        if found is None:
            return None
        described = descriptor_from(found)
        return described, read_small(self, described)

    def _subject(self, referrer: Descriptor) -> Any:
        try:
            subject = parse_json(read_small(self, referrer)).get("subject")
        except ValueError as error:
            raise ImageError(f"{referrer.digest} is no manifest: {error}.") from error
        return subject.get("digest") if isinstance(subject, dict) else None

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


def _is_referrer(item: Any) -> bool:
    return isinstance(item, dict) and "artifactType" in item


def _name(item: Any) -> str:
    """Give the name that an entry of an index gives its image; empty if it gives none."""
    annotations = item.get("annotations") if isinstance(item, dict) else None
    name = annotations.get(REF_NAME) if isinstance(annotations, dict) else None
    return name if isinstance(name, str) else ""


class LayoutSink(ImageSink):
    """Writes one image as an OCI layout directory.

    Everything is written into a directory beside it, which `tag` renames into place.
    """

    def __init__(self, directory: Path, partial: Path) -> None:
        self.directory = directory
        self._partial = partial
        # What the image follows from, for whoever asks whether it is up to date.
        self._inputs = ""
        self._recorded = ("", "")  # digest and tag of an image that is in place already
        self._referrers: list[dict[str, Any]] = []
        self._named: dict[str, tuple[Descriptor, bytes]] = {}

    @property
    def blobs(self) -> BlobDirectory:
        """The blobs of the layout to come."""
        return BlobDirectory(self._partial)

    def put_blob(self, blob: Descriptor, source: BlobSource) -> Placement:
        """Store the blob unless it is there already."""
        placed = self.blobs.put_blob(blob, source)
        # What was made in place is there already, and was written all the same.
        own = source.local_path(blob) == self.blobs.path(blob.digest)
        return "sent" if own and placed == "present" else placed

    def put_stream(self, stream: BlobStream) -> None:
        """Store a blob that is made while it is read."""
        self.blobs.put_stream(stream)

    def put_manifest(self, manifest: Descriptor, content: bytes) -> None:
        """Store the manifest."""
        self.blobs.put_bytes(content, manifest.media_type)

    def put_referrers(
        self, manifests: Sequence[tuple[Descriptor, bytes]], subject: Descriptor
    ) -> None:
        """Store the manifests; the index will list them without a name."""
        for manifest, content in manifests:
            self.put_manifest(manifest, content)
            kind = parse_json(content).get("artifactType", "")
            self._referrers.append({**manifest.to_dict(), "artifactType": kind})

    def named(self, tag: str) -> tuple[Descriptor, bytes] | None:
        """Read the manifest that was put under this tag, or that the layout in place has there."""
        if tag not in self._named:
            with contextlib.suppress(ImageError):
                return LayoutSource(self.directory).named(tag)
        return self._named.get(tag)

    def put_named(self, manifest: Descriptor, content: bytes, tag: str) -> None:
        """Store a manifest; the index will list it under its tag."""
        self.put_manifest(manifest, content)
        self._named[tag] = manifest, content

    def recorded(self, key: str, tag: str) -> OpenedImage | None:
        """Find the image in place, if it has this tag; all its blobs are read."""
        found = recorded_image(self.directory, key, tag)
        if found:
            self._recorded = (found.descriptor.digest, tag)
        return found

    def remember(self, key: str, manifest: Descriptor, content: bytes) -> None:
        """Have the index say it, which `tag` writes."""
        self._inputs = key

    def tag(self, manifest: Descriptor, content: bytes, tag: str) -> bool:
        """Name the manifest in the index, and put the layout into place."""
        with held(self.directory):
            return self._put(manifest, tag)

    def _put(self, manifest: Descriptor, tag: str) -> bool:
        if self._recorded == (manifest.digest, tag):
            self.add_named()
            return False
        self._keep_named(signature_tag(manifest.digest))
        entry = {**manifest.to_dict(), "annotations": {REF_NAME: tag}}
        index = {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [entry, *self._referrers, *self._named_entries()],
            "annotations": {WRITER: "1", INPUTS: self._inputs},
        }
        with storage_errors(self.directory):
            for left in self._partial.iterdir():
                if left.name not in _PARTS:  # what builds keep for their own length
                    remove_tree(left)
            (self._partial / "index.json").write_text(json.dumps(index, indent=2))
            (self._partial / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
            if self._is_there():
                return False
            changed = _image_named(self.directory, tag) != manifest.digest
            put_in_place(self._partial, self.directory)
        return changed

    def add_named(self) -> None:
        """Put what has a tag of its own beside the image in place, which stays as it is."""
        if not self._named:
            return
        there = BlobDirectory(self.directory)
        with storage_errors(self.directory):
            for path in (self._partial / "blobs" / "sha256").iterdir():
                blob = Descriptor("", f"sha256:{path.name}", path.stat().st_size)
                there.put_blob(blob, self.blobs)
            index = _read_index(self.directory)
            others = [item for item in index["manifests"] if _name(item) not in self._named]
            index["manifests"] = [*others, *self._named_entries()]
            write_whole(json.dumps(index, indent=2).encode(), self.directory / "index.json")

    def _named_entries(self) -> list[dict[str, Any]]:
        """Give the entries of signatures; with a type, so that none is taken for an image."""
        return [
            {
                **manifest.to_dict(),
                "artifactType": referrer_type(parse_json(content)),
                "annotations": {REF_NAME: tag},
            }
            for tag, (manifest, content) in sorted(self._named.items())
        ]

    def _keep_named(self, tag: str) -> None:
        """Take over what the same image has in place under this tag, as far as it is whole."""
        if (found := self.named(tag)) is None:
            return
        there = BlobDirectory(self.directory)
        try:
            document = parse_json(found[1])
            blobs = [descriptor_from(item) for item in (document["config"], *document["layers"])]
        except (ImageError, KeyError, TypeError, ValueError):
            return  # somebody else's
        if all(self.blobs.local_path(blob) or there.holds(blob) for blob in blobs):
            for blob in blobs:
                self.blobs.put_blob(blob, there)
            self.put_named(*found, tag)

    def _is_there(self) -> bool:
        """Whether the directory holds just this image already; then it is left untouched."""
        fresh, present = (_listing(folder) for folder in (self._partial, self.directory))
        index = self.directory / "index.json"
        if fresh != present or index.read_bytes() != (self._partial / "index.json").read_bytes():
            return False
        there = BlobDirectory(self.directory)
        return all(
            there.holds(Descriptor("", f"sha256:{path.rpartition('/')[2]}", size))
            for path, size in present.items()
            if path.startswith("blobs/")
        )


def _image_named(directory: Path, tag: str) -> str:
    """Digest of the image with this tag; empty if there is none."""
    try:
        return LayoutSource(directory).find(tag).digest
    except ImageError:
        return ""


def _listing(folder: Path) -> dict[str, int]:
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file()
    }


def open_layout(where: LayoutReference) -> OpenedImage:
    """Open the image, or index of images, that a layout names.

    Raises:
        ImageError: There is no such layout or no such tag, or several images and no tag.
    """
    source = LayoutSource(where.directory)
    descriptor, name = source.find_named(where.tag)
    return OpenedImage(
        title=f"{where}@{descriptor.digest}",
        descriptor=descriptor,
        content=read_small(source, descriptor),
        blobs=source,
        # Some writers put the whole reference where the specification wants the tag.
        tag=name.rpartition("/")[2].rpartition(":")[2],
    )


def recorded_image(directory: Path, inputs: str, tag: str) -> OpenedImage | None:
    """Find the image that a layout holds under this tag, if it was made of these inputs.

    Args:
        directory: The layout.
        inputs: Key of the inputs, as `LayoutSink.remember` was told it.
        tag: The image's name in the layout.

    Returns:
        None if there is none, or any blob of it is not whole.
    """
    try:
        if _read_index(directory)["annotations"].get(INPUTS) != inputs:
            return None
        found = open_layout(LayoutReference(directory, tag))
        needed = [found.manifest["config"], *found.manifest["layers"]]
        whole = all(BlobDirectory(directory).holds(descriptor_from(item)) for item in needed)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImageError):
        return None
    return found if whole else None


@contextlib.contextmanager
def layout_sink(directory: Path) -> Iterator[LayoutSink]:
    """Open a layout for writing; unless an image is put, the disk stays as it was.

    Raises:
        ImageError: The directory holds something that we did not write, or cannot be written.
    """
    check_replaceable(directory)
    with contextlib.ExitStack() as stack:
        with storage_errors(directory):
            partial = stack.enter_context(scratch_beside(directory))
        yield LayoutSink(directory, partial)


@contextlib.contextmanager
def layout_beside(directory: Path) -> Iterator[LayoutSink]:
    """Open a layout to put signatures beside its image, with nobody else at it.

    Raises:
        ImageError: It is none that we wrote, or cannot be written.
    """
    with held(directory), layout_sink(directory) as sink:
        yield sink
        sink.add_named()


def check_replaceable(directory: Path) -> None:
    """Make sure that nothing of anybody else's would be overwritten.

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
