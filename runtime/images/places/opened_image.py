"""An image opened for reading: its documents, parsed and checked, whoever wrote them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from kfp_bento.runtime.errors import ImageError, InvalidInput
from kfp_bento.runtime.files import parse_json
from kfp_bento.runtime.images.oci.config import IMAGE_TITLE, KIND, TITLE
from kfp_bento.runtime.images.oci.image import (
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    ImageSource,
    Layer,
    Platform,
    descriptor_from,
    is_digest,
    one_line,
    read_small,
)
from kfp_bento.runtime.images.oci.reference import parse_reference

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
_CONFIG_SHAPES: dict[str, type] = {
    **{"Cmd": list, "Entrypoint": list, "Env": list, "OnBuild": list, "Shell": list},
    **{"ExposedPorts": dict, "Healthcheck": dict, "Labels": dict, "Volumes": dict},
    **{"ArgsEscaped": bool, "Image": str, "StopSignal": str, "User": str, "WorkingDir": str},
}
CONFIG_NAMES = frozenset(_CONFIG_SHAPES)
"""What a configuration may tell a container runtime (image specification, `config.md`)."""

_KEPT_SHAPES: dict[str, type] = {
    **{"author": str, "os.features": list, "os.version": str, "variant": str}
}
_HISTORY_SHAPES: dict[str, type] = {
    **{"author": str, "comment": str, "created": str, "created_by": str, "empty_layer": bool}
}
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)", re.ASCII)


@dataclass(frozen=True)
class OpenedImage:
    """An image, or an index of images, that can be read.

    Attributes:
        title: For people: its name with its digest.
        descriptor: Its manifest.
        content: The manifest's bytes.
        blobs: Gives out its configuration and layers, and says what refers to it.
        repository: What it is called where it is, `host/path`, or an empty string.
        tag: Its tag where it is, or an empty string.
        from_index: Whether it was chosen for its platform from several.
    """

    title: str
    descriptor: Descriptor
    content: bytes
    blobs: ImageSource
    repository: str = ""
    tag: str = ""
    from_index: bool = False

    @property
    def name(self) -> str:
        """What to call it where it must have a name: its repository, or after its title."""
        if self.repository:
            return self.repository
        with well_formed(self.title):
            title = (self.manifest.get("annotations") or {}).get(IMAGE_TITLE, "")
        try:
            return parse_reference(f"localhost/{title}").name
        except InvalidInput:
            return "localhost/image"

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """The manifest, parsed.

        Raises:
            ImageError: It is no JSON object.
        """
        return parse_document(self.content, f"The manifest of {self.title}")

    @cached_property
    def is_index(self) -> bool:
        """Whether this is an index of images rather than an image.

        Raises:
            ImageError: It is neither, or could be read as both.
        """
        return is_index(self.descriptor, self.manifest, self.title)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The configuration file, parsed; every field that it has is of the specified type.

        Raises:
            ImageError: It is missing, too large, no JSON object or malformed.
        """
        with well_formed(self.title):
            packed = descriptor_from(self.manifest["config"])
        content = read_small(self.blobs, Descriptor(OCI_CONFIG, packed.digest, packed.size))
        config = parse_document(content, f"The configuration of {self.title}")
        with well_formed(self.title):
            _check_config(config)
        return config

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """Its layers with OCI media types; their kinds as kfp-bento noted them, else `base`.

        Raises:
            ImageError: The manifest is malformed or does not match the configuration.
        """
        with well_formed(self.title):
            return _layers(self.manifest["layers"], self.config["rootfs"]["diff_ids"])

    @property
    def platform(self) -> Platform:
        """What its configuration says that it is for."""
        os, architecture = self.config.get("os"), self.config.get("architecture")
        return Platform(one_line(os or "unknown", 60), one_line(architecture or "unknown", 60))


def require_platform(image: OpenedImage, platform: Platform) -> None:
    """Make sure that an image that was no choice among several is for this platform.

    Raises:
        ImageError: Its configuration says another one.
    """
    if image.platform != platform:
        raise ImageError(
            f"{image.title} has no image for {platform}, only for {image.platform}.",
            hint="Choose another image or another platform.",
        )


def parse_document(content: bytes, what: str) -> dict[str, Any]:
    """Give a JSON object that somebody else wrote.

    Raises:
        ImageError: It is none.
    """
    try:
        return parse_json(content)
    except ValueError as error:
        raise ImageError(f"{what} cannot be read: {error}.") from error


def is_index(descriptor: Descriptor, document: dict[str, Any], title: str) -> bool:
    """Whether it is an index and not a manifest; anything that could be read as both is refused.

    What one program takes for an index and another for a manifest is two images under one digest
    (the manifest confusion that OCI image specification 1.0.1 warns of).

    Args:
        descriptor: How the document is named.
        document: The manifest or index.
        title: What it belongs to, for people.

    Raises:
        ImageError: It is neither, or both.
    """
    if not {"layers", "manifests"} & document.keys():
        raise ImageError(f"{title} is no image but '{one_line(descriptor.media_type, 100)}'.")
    said = document.get("mediaType", descriptor.media_type)
    if descriptor.media_type in _INDEXES | _MANIFESTS and said != descriptor.media_type:
        raise ImageError(
            f"{title} is named as '{descriptor.media_type}' but says '{one_line(said, 100)}'."
        )
    index = isinstance(document.get("manifests"), list)
    manifest = isinstance(document.get("layers"), list) and "config" in document
    one = index is not manifest and not {"layers", "manifests"} <= document.keys()
    if not one or document.get("schemaVersion") != 2:
        raise ImageError(f"{title} is neither an image manifest nor an index of images.")
    if isinstance(said, str) and said in (_MANIFESTS if index else _INDEXES):
        raise ImageError(f"{title} says that it is '{said}', but it is none.")
    return index


@contextlib.contextmanager
def well_formed(title: str) -> Iterator[None]:
    """Surround the reading of fields from a document that somebody else wrote.

    Raises:
        ImageError: A field is missing or has another type than it must have.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ImageError(f"The image {title} is malformed: {one_line(error)}.") from error


def check_texts(what: str, values: Iterable[object]) -> None:
    """Make sure that every value is a text that a container can be given.

    Raises:
        TypeError: One is not.
    """
    if not all(isinstance(value, str) and "\0" not in value for value in values):
        raise TypeError(f"{what} holds something that is no text")


def oci_layer_type(media_type: str) -> str:
    """Give the OCI media type of a layer with the same bytes.

    Raises:
        ValueError: There is none.
    """
    if media_type not in _LAYER_TYPES:
        raise ValueError(f"it has a layer of type '{media_type}'")
    return _LAYER_TYPES[media_type]


def _check_config(config: dict[str, Any]) -> None:
    """Make sure that what may be taken over from a configuration has the specified types."""
    inner = config.get("config")
    if not isinstance(inner, dict | None):
        raise TypeError("its configuration's 'config' is no object")
    inner = inner or {}
    _check_shapes("configuration", inner, _CONFIG_SHAPES)
    _check_shapes("configuration", config, _KEPT_SHAPES)
    for name in ("Env", "Cmd", "Entrypoint", "Shell", "OnBuild"):
        check_texts(f"its configuration's '{name}'", inner.get(name) or [])
    check_texts("its configuration's 'Labels'", (inner.get("Labels") or {}).values())
    check_texts("its configuration's 'os.features'", config.get("os.features") or [])
    for name in ("ExposedPorts", "Volumes"):
        if not all(value == {} for value in (inner.get(name) or {}).values()):
            raise TypeError(f"its configuration's '{name}' holds more than names")
    history = config.get("history")
    if not isinstance(history, list | None):
        raise TypeError("its history is no list")
    for item in history or ():
        _check_history(item)


def _check_shapes(where: str, found: dict[str, Any], shapes: dict[str, type]) -> None:
    for name, shape in shapes.items():
        if not isinstance(found.get(name), shape | None):
            raise TypeError(f"its {where}'s '{name}' has a wrong type")


def _check_history(item: object) -> None:
    if not isinstance(item, dict):
        raise TypeError("its history holds something that is no object")
    _check_shapes("history", item, _HISTORY_SHAPES)
    if item.get("created") and not _MOMENT.fullmatch(item["created"]):
        raise ValueError("its history holds a malformed time")


def _layers(items: list[Any], diff_ids: list[Any]) -> tuple[Layer, ...]:
    if not isinstance(diff_ids, list) or not all(map(is_digest, diff_ids)):
        raise ValueError("it has a diff id that is no SHA-256 digest")
    if len(items) != len(diff_ids):
        raise ValueError(f"it has {len(items)} layers but {len(diff_ids)} diff ids")
    return tuple(
        _layer(item, diff_id, number)
        for number, (item, diff_id) in enumerate(zip(items, diff_ids, strict=True), start=1)
    )


def _layer(item: Any, diff_id: str, number: int) -> Layer:
    blob = descriptor_from(item)
    notes = item.get("annotations") or {}
    return Layer(
        kind=one_line(notes.get(KIND, "base")),
        digest=blob.digest,
        diff_id=diff_id,
        size=blob.size,
        media_type=oci_layer_type(blob.media_type),
        origin="base",
        title=one_line(notes.get(TITLE, f"base layer {number}")),
    )
