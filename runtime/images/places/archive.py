"""Archives as `docker save` writes them, as a source and a sink of images.

An archive is a tar file with `manifest.json`, which names an image's configuration and its
layers. Ours hold the layers uncompressed, each named by its diff id, so that `docker load`,
`podman load` and skopeo all read them. Bytes depend on the image and its name only.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import posixpath
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from kfp_bento.runtime.errors import ImageError, InvalidInput
from kfp_bento.runtime.files import (
    JSON_LIMIT,
    open_plain_file,
    parse_json,
    parse_json_value,
    read_small_file,
    scratch_beside,
)
from kfp_bento.runtime.images.oci.blobs import BlobDirectory, storage_errors, verified
from kfp_bento.runtime.images.oci.config import canonical_json, descriptor_of
from kfp_bento.runtime.images.oci.decompression import decompressed
from kfp_bento.runtime.images.oci.image import (
    OCI_CONFIG,
    OCI_LAYER,
    OCI_MANIFEST,
    BlobSource,
    BlobStream,
    Descriptor,
    ImageSource,
    Placement,
    descriptor_from,
    one_line,
)
from kfp_bento.runtime.images.oci.reference import ArchiveReference, parse_reference
from kfp_bento.runtime.images.oci.tar import DEFAULT_EPOCH
from kfp_bento.runtime.images.places.opened_image import OpenedImage
from kfp_bento.runtime.images.places.sink import ImageSink
from kfp_bento.runtime.images.places.tar_index import FileRange, TarIndex

# The first member of every archive of ours; only a file that begins with it is ever replaced.
MARKER = "kfp-bento.json"

_MANIFEST = "manifest.json"
# What is in an archive, in its order: bytes at hand, or those of a file.
Members = Mapping[str, bytes | Path]

_NAMED_BY_DIGEST = re.compile(r"(?:sha256:)?([0-9a-f]{64})(?:\.json)?")


@dataclass(frozen=True)
class ArchiveSource(ImageSource):
    """The blobs of one image of an archive, all of whose digests have been checked.

    Attributes:
        file: The archive.
        blobs: Where in it each blob lies, by its digest.
    """

    file: Path
    blobs: Mapping[str, FileRange]

    def open_blob(self, blob: Descriptor) -> Iterator[bytes]:
        """Yield a configuration or layer as it is stored, and check it again.

        Raises:
            ImageError: The archive holds no such blob, or was changed.
        """
        if blob.digest not in self.blobs:
            raise ImageError(f"The archive {self.file} holds no {blob.digest}.")
        return verified(self.blobs[blob.digest].read(), blob, str(self.file))


def open_archive(where: ArchiveReference) -> OpenedImage:
    """Find an image in an archive; read its layers once to check and to name them.

    Archives of docker (with or without an OCI layout inside), podman, skopeo and kfp-bento are
    read, with compressed layers too. The manifest, which an archive lacks, is made up.

    Raises:
        ImageError: There is no such image, or the archive is damaged or unfit to be trusted.
    """
    index = TarIndex(where.file)
    if _MANIFEST not in index:
        raise ImageError(
            f"{where.file} is no docker archive: it has no manifest.json.",
            hint="Save the image with `docker save` or `skopeo copy … docker-archive:FILE`; an "
            "OCI archive must be unpacked and named as oci:DIR.",
        )
    item, name = _choose(_json(index, _MANIFEST), where)
    try:
        place, paths = str(item["Config"]), [str(path) for path in item["Layers"]]
        config = _json(index, place)
        diff_ids = list(config["rootfs"]["diff_ids"])
    except KeyError as error:
        raise _unusable(where.file, f"its manifest.json or configuration lacks {error}") from error
    except TypeError as error:
        raise _unusable(where.file, f"its manifest.json is malformed ({error})") from error
    if len(paths) != len(diff_ids):
        raise _unusable(where.file, f"it has {len(paths)} layers but {len(diff_ids)} diff ids")
    blobs = {}
    layers = []
    for path, diff_id in zip(paths, diff_ids, strict=True):
        layer, found = _layer(index, path, diff_id)
        blobs[layer.digest] = found
        layers.append(layer.to_dict())
    packed = _describe_config(index, place)
    blobs[packed.digest] = index.find(place)
    document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": layers}
    content = canonical_json({**document, "config": packed.to_dict()})
    descriptor = descriptor_of(content, OCI_MANIFEST)
    repository, tag = _split(name)
    return OpenedImage(
        title=f"{where}@{descriptor.digest}",
        descriptor=descriptor,
        content=content,
        blobs=ArchiveSource(where.file, blobs),
        repository=repository,
        tag=tag,
    )


def _choose(images: Any, where: ArchiveReference) -> tuple[Mapping[str, Any], str]:
    """Give the entry of `manifest.json` that is asked for, and the name that it was found by."""
    if not isinstance(images, list) or not all(isinstance(item, dict) for item in images):
        raise _unusable(where.file, "its manifest.json is no list of images")
    named = [(item, _tags(item)) for item in images]
    if not where.tag and not where.repository:
        if len(named) == 1:
            return named[0][0], next(iter(named[0][1]), "")
        found = []
    else:
        found = [(item, tag) for item, tags in named for tag in tags if _is_meant(tag, where)]
    if len(found) == 1:
        return found[0]
    offered = ", ".join(tag for _, tags in named for tag in tags) or "none with a name"
    raise ImageError(
        f"The archive {where.file} holds {len(found) or 'no'} images that answer to "
        f"'{where.tag or where.repository}'; it offers: {offered}."
        if where.tag or where.repository
        else f"The archive {where.file} holds {len(named)} images: {offered}.",
        hint="Name one as docker-archive:FILE:REPOSITORY:TAG.",
    )


def _tags(item: Mapping[str, Any]) -> list[str]:
    tags = item.get("RepoTags")
    return [str(tag) for tag in tags] if isinstance(tags, list) else []


def _is_meant(name: str, where: ArchiveReference) -> bool:
    repository, tag = _split(name)
    return tag == (where.tag or "latest") and where.repository in {"", repository}


def _split(name: str) -> tuple[str, str]:
    """Repository and tag of a name in `RepoTags`, both empty where it is none."""
    try:
        reference = parse_reference(name)
    except InvalidInput:
        return "", ""
    return reference.name, reference.tag


def _layer(index: TarIndex, path: str, diff_id: str) -> tuple[Descriptor, FileRange]:
    """Hash a layer as it is stored and as it is unpacked, in one pass."""
    found = index.find(path)
    stored = hashlib.sha256()

    def chunks() -> Iterator[bytes]:
        for chunk in found.read():
            stored.update(chunk)
            yield chunk

    unpacked = hashlib.sha256()
    for chunk in decompressed(chunks()):
        unpacked.update(chunk)
    if f"sha256:{unpacked.hexdigest()}" != diff_id:
        raise _unusable(index.file, f"layer '{path}' is not what the configuration says it is")
    digest = f"sha256:{stored.hexdigest()}"
    if posixpath.dirname(path) == "blobs/sha256":
        _check_name(index.file, path, digest)
    start = next(found.read(), b"")
    media_type = OCI_LAYER
    if digest != diff_id:
        media_type += "+gzip" if start.startswith(b"\x1f\x8b") else "+zstd"
    return Descriptor(media_type, digest, found.size), found


def _describe_config(index: TarIndex, path: str) -> Descriptor:
    content = b"".join(index.find(path).read())
    found = descriptor_of(content, OCI_CONFIG)
    _check_name(index.file, path, found.digest)
    return found


def _check_name(file: Path, path: str, digest: str) -> None:
    named = _NAMED_BY_DIGEST.fullmatch(posixpath.basename(path))
    if named and f"sha256:{named[1]}" != digest:
        raise _unusable(file, f"'{path}' does not hold what its name says")


def _json(index: TarIndex, name: str) -> Any:
    found = index.find(name)
    if found.size > JSON_LIMIT:
        raise _unusable(index.file, f"'{name}' is larger than 4 MiB")
    try:
        return parse_json_value(b"".join(found.read()))
    except ValueError as error:
        raise _unusable(index.file, f"'{name}' is no JSON ({error})") from error


def _unusable(file: Path, why: str) -> ImageError:
    return ImageError(
        f"The image in {file} cannot be used: {one_line(why, 500)}.",
        hint="The archive is damaged or was tampered with: save the image again.",
    )


class ArchiveSink(ImageSink):
    """Writes one image as an archive that `docker load` reads.

    Blobs are decompressed into a directory beside the file, by as many threads as put them;
    `tag` joins them in the image's order, whatever order they came in, and renames the result
    into place. So it takes room for the archive and for its largest layer once more.
    """

    # An archive has no place for what refers to an image.
    carries_referrers: ClassVar[bool] = False

    def __init__(self, file: Path, scratch: Path, repository: str) -> None:
        self._file = file
        self._scratch = scratch
        self._repository = repository
        self._unpacked = BlobDirectory(scratch)
        # By the digest under which a blob was put: that of its decompressed bytes.
        self._kept: dict[str, str] = {}

    def put_blob(self, blob: Descriptor, source: BlobSource) -> Placement:
        """Store the blob, decompressed, unless it is there already."""
        if blob.digest in self._kept:
            return "present"
        self._kept[blob.digest] = self._unpack(source.open_blob(blob))
        return "sent"

    def put_stream(self, stream: BlobStream) -> None:
        """Store a blob that is made while it is read."""
        unpacked = self._unpack(stream.open())
        self._kept[stream.digest] = unpacked

    def put_manifest(self, manifest: Descriptor, content: bytes) -> None:
        """Do nothing: an archive says the same in `manifest.json`, which `tag` writes."""

    def put_referrers(
        self, manifests: Sequence[tuple[Descriptor, bytes]], subject: Descriptor
    ) -> None:
        """Do nothing, as `carries_referrers` says."""

    def tag(self, manifest: Descriptor, content: bytes, tag: str) -> bool:
        """Write the archive with the image under this tag, and put it into place.

        Raises:
            ImageError: It is no image but an index, a layer is not what the configuration says,
                or the disk is full.
        """
        members = self._members(manifest, parse_json(content), tag)
        with storage_errors(self._file):
            if _holds(self._file, members):
                return False
            whole = self._scratch / "archive.tar"
            _write(whole, members)
            whole.replace(self._file)
        return True

    def _unpack(self, chunks: Iterator[bytes]) -> str:
        with self._unpacked.writer() as writer:
            for chunk in decompressed(chunks):
                writer.write(chunk)
        return writer.digest

    def _members(self, manifest: Descriptor, document: dict[str, Any], tag: str) -> Members:
        if "layers" not in document:
            raise ImageError(
                "A docker archive holds an image for one platform only.",
                hint="Choose the platform, or copy to a registry or an oci:DIR.",
            )
        config = self._path(descriptor_from(document["config"]).digest)
        layers = [self._path(descriptor_from(item).digest) for item in document["layers"]]
        if [f"sha256:{layer.name}" for layer in layers] != _diff_ids(config):
            raise ImageError(
                f"The layers of {manifest.digest} are not those that its configuration names.",
                hint="The image is damaged or was tampered with: do not use it.",
            )
        name = f"{self._repository}:{tag}"
        described = {
            "Config": f"{config.name}.json",
            "RepoTags": [name],
            "Layers": [f"{layer.name}.tar" for layer in layers],
        }
        return {
            MARKER: canonical_json({"manifest": manifest.digest, "name": name}),
            _MANIFEST: canonical_json([described]),
            f"{config.name}.json": config,
            **{f"{layer.name}.tar": layer for layer in layers},
        }

    def _path(self, digest: str) -> Path:
        if digest not in self._kept:
            raise ImageError(f"The image names {digest}, which was never stored.")
        return self._unpacked.path(self._kept[digest])


def _diff_ids(config: Path) -> Any:
    try:
        rootfs = parse_json(read_small_file(config, JSON_LIMIT)).get("rootfs")
    except ValueError as error:
        raise ImageError(f"The image's configuration cannot be read: {error}.") from error
    return rootfs.get("diff_ids") if isinstance(rootfs, dict) else None


@contextlib.contextmanager
def archive_sink(file: Path, repository: str) -> Iterator[ArchiveSink]:
    """Open an archive for writing; unless an image is tagged, the disk stays as it was.

    Args:
        file: The file to be written.
        repository: What the image is called in it: `host/path` without tag.

    Raises:
        ImageError: The file is there and not ours, or cannot be written.
    """
    check_archive_replaceable(file)
    with contextlib.ExitStack() as stack:
        with storage_errors(file):
            scratch = stack.enter_context(scratch_beside(file))
        yield ArchiveSink(file, scratch, repository)


def check_archive_replaceable(file: Path) -> None:
    """Make sure that nothing of anybody else's would be overwritten.

    Raises:
        ImageError: There is something that is neither an empty file nor begins with our marker.
    """
    if not file.is_symlink() and not file.exists():
        return
    try:
        with open_plain_file(file) as stream:
            start = stream.read(len(MARKER) + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ImageError(f"The image cannot be written to {file}: {reason}.") from error
    if start not in {b"", f"{MARKER}\0".encode()}:
        raise ImageError(
            f"{file} already holds something that kfp-bento did not write; it was left alone.",
            hint="Choose another file, or remove this one yourself.",
        )


def _holds(file: Path, members: Members) -> bool:
    """Whether the file is this very archive: its marker names image and tag, and it is whole."""
    total = sum(512 + _size(content) + -_size(content) % 512 for content in members.values())
    try:
        marker = b"".join(TarIndex(file).find(MARKER).read())
    except ImageError:
        return False
    total += 1024  # the end of a tar file, which is filled up to a record
    whole = file.stat().st_size == total + -total % tarfile.RECORDSIZE
    return whole and marker == members[MARKER]


def _size(content: bytes | Path) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def _write(file: Path, members: Members) -> None:
    """Join the members; each is removed once it is in, to save room."""
    with tarfile.open(file, "w", format=tarfile.PAX_FORMAT) as whole:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = _size(content)
            info.mtime = DEFAULT_EPOCH
            if isinstance(content, bytes):
                whole.addfile(info, io.BytesIO(content))
                continue
            with content.open("rb") as part:
                whole.addfile(info, part)
            content.unlink()
