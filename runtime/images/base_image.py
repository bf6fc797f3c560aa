"""Base images: choosing one, and reading it from a registry, an OCI layout or this machine."""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kfp_bento.runtime.errors import ImageError, KfpBentoError
from kfp_bento.runtime.images.blobs import BlobDirectory
from kfp_bento.runtime.images.cache import LayerCache
from kfp_bento.runtime.images.host import host_base
from kfp_bento.runtime.images.image import (
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    BlobSource,
    Descriptor,
    Layer,
    Platform,
    descriptor_from,
)
from kfp_bento.runtime.images.layers import Codec
from kfp_bento.runtime.images.layout import LayoutSource
from kfp_bento.runtime.images.reference import (
    LayoutReference,
    Reference,
    parse_layout,
    parse_reference,
)
from kfp_bento.runtime.images.registry import Patience, Repository

HOST = "host"
BASE_VARIABLE = "KFP_BENTO_BASE_IMAGE"

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
_CONFIG_LIMIT = 4 << 20
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class BaseImage:
    """The layers and configuration that an image is put on.

    Attributes:
        title: For people, with the digest where there is one.
        digest: Digest of the base's manifest for the platform; empty for `host`.
        config: The base's configuration file, parsed.
        layers: Its layers, with OCI media types.
        blobs: Where the layers' bytes come from.
        interpreter: The Python executable inside it.
        python: Its Python version where known, for example ``3.11.7``, or an empty string.
    """

    title: str
    digest: str
    config: dict[str, Any]
    layers: tuple[Layer, ...]
    blobs: BlobSource
    interpreter: str
    python: str


def choose_base(
    python_version: str, *, wanted: str = "", allow_host: bool = True, seconds: float = 3.0
) -> str:
    """Decides on a base image: what is wanted, else Docker's Python, else this machine.

    Args:
        python_version: Minor version that the bento needs, for example ``3.11``.
        wanted: A base asked for; wins, and so does ``$KFP_BENTO_BASE_IMAGE`` after it.
        allow_host: Whether ``host`` may be the answer.
        seconds: How long docker.io gets to answer.

    Returns:
        A registry reference, ``oci:DIR`` or ``host``.

    Raises:
        ImageError: docker.io does not answer and ``host`` is not allowed.
    """
    if chosen := wanted or os.environ.get(BASE_VARIABLE, ""):
        return chosen
    official = f"docker.io/library/python:{python_version}-slim"
    if _answers(parse_reference(official), seconds):
        return official
    if allow_host:
        return HOST
    raise ImageError(
        f"No base image: docker.io did not give {official} within {seconds:g} seconds.",
        hint=f"Name a base image (or set {BASE_VARIABLE}) from a registry that you can reach, "
        f"or {HOST}: a base made of this machine, for trying out.",
    )


def _answers(reference: Reference, seconds: float) -> bool:
    """Whether the registry knows the image; name resolution has no time-out, hence the thread."""
    found = []

    def ask() -> None:
        patience = Patience(attempts=1, connect=seconds, read=seconds)
        try:
            found.append(Repository(reference, patience).head_manifest(reference.identifier))
        except KfpBentoError:
            return

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return any(found)


def open_base(
    text: str,
    python_version: str,
    platform: Platform,
    *,
    workspace: BlobDirectory,
    codec: Codec,
    cache: LayerCache | None,
    epoch: int,
    progress: Callable[[str], None],
) -> BaseImage:
    """Resolves a base image to its digest and checks that the bento can run on it.

    Args:
        text: ``host``, ``oci:DIR[:TAG]`` or a registry reference.
        python_version: Minor version of Python that the bento needs.
        platform: Which image of a multi-platform index.
        workspace: Where a host layer is written.
        codec: How a host layer is compressed.
        cache: Where layers are kept between builds.
        epoch: Seconds since 1970 for timestamps of a host layer.
        progress: Told what is going on.

    Raises:
        ImageError: It cannot be read, has no image for the platform or another Python.
    """
    if text == HOST:
        return _host(python_version, platform, workspace, codec, cache, epoch, progress)
    if text.startswith("oci:"):
        base = _from_layout(parse_layout(text), python_version, platform)
    else:
        base = _from_registry(parse_reference(text), python_version, platform)
    if base.python and not f"{base.python}.".startswith(f"{python_version}."):
        raise ImageError(
            f"The base image {base.title} has Python {base.python}, "
            f"but the bento was built for {python_version}.",
            hint=f"Choose a base with Python {python_version}, or rebuild the bento with "
            f"python_version={'.'.join(base.python.split('.')[:2])}.",
        )
    if not base.python:
        progress(f"the base does not say where its Python is; taking {base.interpreter}")
    return base


def _host(
    python_version: str,
    platform: Platform,
    workspace: BlobDirectory,
    codec: Codec,
    cache: LayerCache | None,
    epoch: int,
    progress: Callable[[str], None],
) -> BaseImage:
    layer, config, version = host_base(
        python_version, platform, workspace, codec, cache=cache, epoch=epoch, progress=progress
    )
    minor = ".".join(version.split(".")[:2])
    return BaseImage(
        title=HOST,
        digest="",
        config=config,
        layers=(layer,),
        blobs=workspace,
        interpreter=f"/usr/local/bin/python{minor}",
        python=version,
    )


def _from_layout(where: LayoutReference, python_version: str, platform: Platform) -> BaseImage:
    source = LayoutSource(where.directory)

    def read(descriptor: Descriptor) -> dict[str, Any]:
        return _parse(source, descriptor)

    found = source.find(where.tag)
    descriptor, manifest = _for_platform(found, read(found), read, platform, str(where))
    return _base(f"{where}@{descriptor.digest}", descriptor, manifest, source, python_version)


def _from_registry(reference: Reference, python_version: str, platform: Platform) -> BaseImage:
    repository = Repository(reference)

    def read(descriptor: Descriptor) -> dict[str, Any]:
        return repository.read_manifest(descriptor.digest)[1]

    found, manifest = repository.read_manifest(reference.identifier)
    descriptor, manifest = _for_platform(found, manifest, read, platform, str(reference))
    title = str(Reference(reference.host, reference.repository, reference.tag, descriptor.digest))
    return _base(title, descriptor, manifest, repository, python_version)


def _for_platform(
    descriptor: Descriptor,
    document: dict[str, Any],
    read: Callable[[Descriptor], dict[str, Any]],
    platform: Platform,
    title: str,
) -> tuple[Descriptor, dict[str, Any]]:
    """Follows a multi-platform index to the manifest for the platform."""
    if descriptor.media_type in _MANIFESTS or "layers" in document:
        return descriptor, document
    if descriptor.media_type not in _INDEXES and "manifests" not in document:
        raise ImageError(f"{title} is no image but '{descriptor.media_type}'.")
    offered = []
    for item in document.get("manifests", ()):
        described = item.get("platform") or {}
        name = f"{described.get('os')}/{described.get('architecture')}"
        if name == str(platform) and described.get("variant", "") in {"", "v8"}:
            found = descriptor_from(item)
            return found, read(found)
        offered.append(name)
    raise ImageError(
        f"{title} has no image for {platform}, only for {', '.join(sorted(set(offered)))}.",
        hint="Choose another base image or another platform.",
    )


def _base(
    title: str,
    descriptor: Descriptor,
    manifest: dict[str, Any],
    blobs: BlobSource,
    python_version: str,
) -> BaseImage:
    try:
        packed = manifest["config"]
        config = _parse(blobs, descriptor_from({**packed, "mediaType": OCI_CONFIG}))
        layers = _layers(manifest["layers"], config["rootfs"]["diff_ids"])
    except (KeyError, TypeError, ValueError) as error:
        raise ImageError(f"The base image {title} has a malformed manifest: {error}.") from error
    environment = dict(
        pair.partition("=")[::2] for pair in (config.get("config") or {}).get("Env") or ()
    )
    version = environment.get("PYTHON_VERSION", "")
    # Docker's official images install below /usr/local and say their version; distributions do not.
    folder = "/usr/local/bin" if version else "/usr/bin"
    return BaseImage(
        title=title,
        digest=descriptor.digest,
        config=config,
        layers=layers,
        blobs=blobs,
        interpreter=f"{folder}/python{python_version}",
        python=version,
    )


def _layers(items: list[dict[str, Any]], diff_ids: list[str]) -> tuple[Layer, ...]:
    if len(items) != len(diff_ids):
        raise ValueError(f"{len(items)} layers but {len(diff_ids)} diff ids")
    if not all(_DIGEST.fullmatch(diff_id) for diff_id in diff_ids):
        raise ValueError("a diff id that is no SHA-256 digest")
    unknown = [item["mediaType"] for item in items if item["mediaType"] not in _LAYER_TYPES]
    if unknown:
        raise ValueError(f"a layer of type {unknown[0]}")
    return tuple(
        Layer(
            kind="base",
            digest=descriptor_from(item).digest,
            diff_id=diff_id,
            size=descriptor_from(item).size,
            media_type=_LAYER_TYPES[item["mediaType"]],
            origin="base",
            title=f"base layer {number}",
        )
        for number, (item, diff_id) in enumerate(zip(items, diff_ids, strict=True), start=1)
    )


def _parse(blobs: BlobSource, descriptor: Descriptor) -> dict[str, Any]:
    if descriptor.size > _CONFIG_LIMIT:
        raise ImageError(f"{descriptor.digest} is too large for a manifest or configuration.")
    content = b"".join(blobs.open_blob(descriptor))
    if f"sha256:{hashlib.sha256(content).hexdigest()}" != descriptor.digest:
        raise ImageError(f"{descriptor.digest} does not hold what its name says.")
    parsed: dict[str, Any] = json.loads(content)
    return parsed
