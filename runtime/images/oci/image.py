"""What an image is made of, and the two small interfaces that images are read and written by.

An image is immutable. A source (registry, layout) gives out blobs by descriptor; a sink takes
them. Every source goes with every sink.
"""

from __future__ import annotations

import platform as host_platform
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from kfp_bento.runtime.errors import ImageError, InvalidInput
from kfp_bento.runtime.files import JSON_LIMIT
from kfp_bento.runtime.programs import cleaned

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"

# A descriptor that claims more is a lie or a mistake.
LARGEST_BLOB = 1 << 40

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_MACHINES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}

# How a blob came to be in a sink: it was there, came from a neighbour repository, or was sent.
Placement = Literal["present", "mounted", "sent"]
# How a blob would come to be there.
Outcome = Literal["present", "mount", "upload"]


@dataclass(frozen=True)
class Descriptor:
    """A blob by digest (`sha256:…`), with its size in bytes and its media type."""

    media_type: str
    digest: str
    size: int

    def to_dict(self) -> dict[str, Any]:
        """Give the descriptor as OCI manifests write it."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}


def one_line(value: object, longest: int = 200) -> str:
    """Give a value of somebody else's as it may be shown: one line that steers no terminal."""
    return " ".join(cleaned(str(value)[:longest]).split())


def is_digest(value: object) -> bool:
    """Whether it is `sha256:<64 lower case hex digits>`, which names a file as it stands."""
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


def signature_tag(digest: str) -> str:
    """Give the tag under which cosign looks for the signatures of a manifest."""
    return f"{digest.replace(':', '-', 1)}.sig"


def descriptor_from(item: object) -> Descriptor:
    """Read a descriptor from a manifest or index that somebody else wrote.

    `urls` and `data` are not looked at: blobs come from where the image comes from.

    Raises:
        ImageError: A field is missing or has a wrong type, the digest is no SHA-256 digest (it
            names a file), or the size is none.
    """
    if not isinstance(item, dict):
        raise ImageError("An image has something else where a descriptor must be.")
    digest, size, media_type = item.get("digest"), item.get("size"), item.get("mediaType", "")
    if not is_digest(digest):
        shown = one_line(digest, 100) if isinstance(digest, str) else type(digest).__name__
        raise ImageError(f"An image names a blob by '{shown}', which is no SHA-256 digest.")
    if type(size) is not int or not 0 <= size <= LARGEST_BLOB:
        raise ImageError(f"An image gives no size for {digest}, or one that cannot be.")
    if not isinstance(media_type, str) or not media_type.isprintable():
        raise ImageError(f"An image gives no media type for {digest}.")
    return Descriptor(media_type, str(digest), size)


def referrer_type(manifest: dict[str, Any]) -> str:
    """Give what a manifest says that it holds; the configuration's media type stands in for it."""
    config = manifest.get("config")
    other = config.get("mediaType") if isinstance(config, dict) else None
    return str(manifest.get("artifactType") or other or "")


# Of a layer, what its records do not hold: how it came to one image.
_LEFT_OUT = {"placement", "unverified"}


@dataclass(frozen=True)
class Layer:
    """One layer of an image.

    Attributes:
        kind: `base`, `system`, `dependencies`, `model` or `source`.
        digest: Digest of the blob as it is stored and sent.
        diff_id: Digest of the uncompressed tar.
        size: Size of the blob in bytes.
        media_type: OCI media type of the blob.
        origin: `base` (taken over), `built` (made now) or `reused` (from the cache).
        title: What it holds, for people: `dependencies (41 wheels)`.
        placement: How it came to its destination, or an empty string before it did.
        unverified: Whether it is reused on the word of a registry alone: a record without a seal
            of ours names it, and nobody here has seen what is in it.
        facts: What else was seen of its content when it was made, by the SHA-256 of the wheel or
            package that it is about; JSON values. It goes along with records alone.
    """

    kind: str
    digest: str
    diff_id: str
    size: int
    media_type: str
    origin: str
    title: str
    placement: Placement | Literal[""] = field(default="", compare=False)
    unverified: bool = field(default=False, compare=False)
    facts: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def descriptor(self) -> Descriptor:
        """The blob this layer is stored as."""
        return Descriptor(media_type=self.media_type, digest=self.digest, size=self.size)

    @classmethod
    def from_dict(cls, data: object) -> Layer:
        """Read a layer that was written down as plain JSON values, by whomever.

        Raises:
            ValueError: It is none.
        """
        names = {item.name for item in fields(cls)} - _LEFT_OUT
        if not isinstance(data, dict) or not names <= data.keys() <= names | {"placement"}:
            raise ValueError("a layer with other fields")
        if not isinstance(data["facts"], dict):
            raise ValueError("a layer with other facts")
        texts = [value for name, value in data.items() if name not in {"size", "facts"}]
        if not all(isinstance(value, str) for value in texts) or not is_digest(data["diff_id"]):
            raise ValueError("a layer with wrong values")
        try:
            descriptor_from({**data, "mediaType": data["media_type"]})
        except ImageError as error:
            raise ValueError(error.message) from error
        return cls(**data)

    def record(self) -> dict[str, Any]:
        """Give the layer as plain JSON values, for a build that will reuse it."""
        facts = asdict(replace(self, origin="reused"))
        return {name: facts[name] for name in facts.keys() - _LEFT_OUT}

    def to_dict(self) -> dict[str, Any]:
        """Give the layer as plain JSON values, for whoever looks at an image."""
        facts = asdict(self)
        del facts["facts"]
        return facts

    def with_origin(self, origin: str) -> Layer:
        """Give the same layer, said to come from elsewhere."""
        return replace(self, origin=origin)

    def placed(self, placement: Placement) -> Layer:
        """Give the same layer, arrived at its destination."""
        return replace(self, placement=placement)


@dataclass(frozen=True)
class Document:
    """A document about an image, which can be attached to it.

    Attributes:
        media_type: What it is; also the `artifactType` that it is found by.
        content: Its bytes.
        filename: What a client that downloads it calls the file.
        annotations: More to find it by.
    """

    media_type: str
    content: bytes
    filename: str
    annotations: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Image:
    """An image that has been written somewhere, fixed by its digest.

    Attributes:
        repository: `host/path` without tag; `localhost/<bento name>` in a layout.
        digest: Digest of the image manifest, or of the index.
        tags: Tags that pointed to it when it was written.
        base: The base image for people, with its digest; `host` for this machine's own.
        location: Where to read it: `oci:DIR`, `docker-archive:FILE` or `docker://host/path`.
        layers: From the lowest to the highest; of an index those of all its images, each once.
        platform: `linux/amd64` or `linux/arm64`, or both with a comma between.
        reused: Whether the destination held this very image already, so that nothing changed.
        documents: Bill of materials and provenance as the build that gave this value knows them,
            where some layers are unverified, when those attached to the image may be anybody's, or
            where the registry takes no documents.
        notes: What else there is to know of the build: what was left out and why.
        base_signed_by: SHA-256 of the public key that the base had to be signed with, and was.
        signed_by: SHA-256 of the public key that verifies the image's signature.
        parts: The image for each platform, where this is an index of several.
    """

    repository: str
    digest: str
    tags: tuple[str, ...]
    base: str
    location: str
    layers: tuple[Layer, ...]
    platform: str
    reused: bool = field(default=False, compare=False)
    documents: tuple[Document, ...] = field(default=(), compare=False, repr=False)
    notes: tuple[str, ...] = field(default=(), compare=False)
    base_signed_by: str = field(default="", compare=False)
    signed_by: str = field(default="", compare=False)
    parts: tuple[Image, ...] = field(default=(), compare=False, repr=False)

    @property
    def reference(self) -> str:
        """`repository@sha256:…`: the only name that cannot come to mean something else."""
        return f"{self.repository}@{self.digest}"

    @property
    def size(self) -> int:
        """Bytes of all layers as they are stored and sent."""
        return sum(layer.size for layer in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """Give the image as plain JSON values, its reference and size among them."""
        derived = {"reference": self.reference, "size": self.size}
        layers = [layer.to_dict() for layer in self.layers]
        facts = asdict(replace(self, documents=(), parts=()))
        del facts["documents"], facts["parts"]
        parts = {"parts": [part.to_dict() for part in self.parts]} if self.parts else {}
        lists = {"tags": list(self.tags), "notes": list(self.notes), "layers": layers}
        return {**facts, **derived, **lists, **parts}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Image:
        """Read what `to_dict` wrote."""
        own = {item.name: data[item.name] for item in fields(cls) if item.name in data}
        layers = tuple(Layer(**layer) for layer in data["layers"])
        texts = {"tags": tuple(data["tags"]), "notes": tuple(data.get("notes", ()))}
        parts = tuple(cls.from_dict(part) for part in data.get("parts", ()))
        return cls(**{**own, **texts, "layers": layers, "parts": parts})


@dataclass(frozen=True)
class Platform:
    """An operating system and a processor, in the words of the image specification."""

    os: str
    architecture: str

    def __str__(self) -> str:
        return f"{self.os}/{self.architecture}"


def own_platform() -> str:
    """Give what images for this machine's processor are for, be they built or not."""
    return f"linux/{_MACHINES.get(host_platform.machine().lower(), host_platform.machine())}"


def parse_platform(text: str = "") -> Platform:
    """Parse `linux/amd64` or `linux/arm64`; an empty text means this machine's processor.

    Raises:
        InvalidInput: Another platform.
    """
    text = text or own_platform()
    os, _, architecture = text.partition("/")
    if os != "linux" or architecture not in {"amd64", "arm64"}:
        raise _no_platform(text)
    return Platform(os=os, architecture=architecture)


def parse_platforms(text: str = "") -> tuple[Platform, ...]:
    """Parse one or more platforms with commas between, in an order of their own.

    Raises:
        InvalidInput: One of them is another platform.
    """
    names = sorted({name.strip() for name in text.split(",")})
    if names[0] or names == [""] == text.split(","):
        return tuple(map(parse_platform, names))
    raise _no_platform(text)


def _no_platform(text: str) -> InvalidInput:
    return InvalidInput(
        f"Images for the platform '{text}' cannot be built.",
        hint="Choose linux/amd64 or linux/arm64; builds of bentos take both, with a comma between.",
    )


class BlobSource(Protocol):
    """Gives out blobs. What it yields has been checked against the descriptor at its end."""

    def open_blob(self, blob: Descriptor) -> Iterator[bytes]:
        """Yield the blob in chunks; raise ImageError when digest or size turn out wrong."""

    def local_path(self, blob: Descriptor) -> Path | None:
        """Give the file that holds the blob, where there is one and nobody else can change it."""
        return None


def read_small(blobs: BlobSource, blob: Descriptor) -> bytes:
    """Read a configuration or manifest as a whole.

    Raises:
        ImageError: It is too large for what it is, missing or not what its digest says.
    """
    if blob.size > JSON_LIMIT:
        raise ImageError(f"{blob.digest} is too large for a manifest or configuration.")
    return b"".join(blobs.open_blob(blob))


class ImageSource(BlobSource, Protocol):
    """Gives out the blobs of images, and knows what refers to them."""

    def referrers(self, digest: str) -> list[dict[str, Any]]:
        """List descriptors of the manifests whose `subject` has this digest: SBOMs, signatures."""
        return []

    def named(self, tag: str) -> tuple[Descriptor, bytes] | None:
        """Read the manifest with this tag; None if there is none, or no place for tags."""
        return None

    def read_named(self, manifest: Descriptor) -> bytes:
        """Read a manifest that another one names; see `read_small`."""
        return read_small(self, manifest)


class BlobStream(Protocol):
    """A blob that is made while it is sent, so that its digest is known only at its end."""

    def open(self) -> Iterator[bytes]:
        """Yield the bytes from the first one on; may be called again after a failure."""

    @property
    def digest(self) -> str:
        """Digest of the bytes, once the last `open` was read to its end."""

    @property
    def size(self) -> int:
        """Number of the bytes, once the last `open` was read to its end."""


class BlobSink(Protocol):
    """Takes blobs."""

    def put_blob(self, blob: Descriptor, source: BlobSource) -> Placement:
        """Store the blob unless it is there already."""
