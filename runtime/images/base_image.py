"""Base images: choosing one, and reading it from a registry, an OCI layout or this machine."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from kfp_bento.runtime.errors import ImageError, KfpBentoError
from kfp_bento.runtime.images.blobs import BlobDirectory
from kfp_bento.runtime.images.cache import LayerCache
from kfp_bento.runtime.images.host import host_base
from kfp_bento.runtime.images.image import (
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    BlobSource,
    Descriptor,
    Layer,
    Platform,
    descriptor_from,
    is_digest,
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
from kfp_bento.runtime.storage import JSON_LIMIT, parse_json

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
# containerd and Docker take 127 layers in all; a bento needs some of them.
_MOST_LAYERS = 107
_CONFIG_SHAPES: dict[str, type] = {
    **{"Cmd": list, "Entrypoint": list, "Env": list, "OnBuild": list, "Shell": list},
    **{"ExposedPorts": dict, "Healthcheck": dict, "Labels": dict, "Volumes": dict},
    **{"ArgsEscaped": bool, "Image": str, "StopSignal": str, "User": str, "WorkingDir": str},
}
_CONFIG_NAMES = {name.casefold(): name for name in _CONFIG_SHAPES}
_KEPT_SHAPES: dict[str, type] = {
    **{"author": str, "os.features": list, "os.version": str, "variant": str}
}
_HISTORY_SHAPES: dict[str, type] = {
    **{"author": str, "comment": str, "created": str, "created_by": str, "empty_layer": bool}
}
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)", re.ASCII)
_PYTHON = re.compile(r"\d+(?:\.\d+)+[a-z0-9.+]*", re.ASCII)


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
    title = f"{where}@{descriptor.digest}"
    return _base(title, descriptor, manifest, source, python_version, platform)


def _from_registry(reference: Reference, python_version: str, platform: Platform) -> BaseImage:
    repository = Repository(reference)

    def read(descriptor: Descriptor) -> dict[str, Any]:
        given, document = repository.read_manifest(descriptor.digest)
        if given.size != descriptor.size:
            raise ImageError(
                f"{reference} names {descriptor.digest} with {descriptor.size} bytes, "
                f"but it has {given.size}."
            )
        return document

    found, manifest = repository.read_manifest(reference.identifier)
    descriptor, manifest = _for_platform(found, manifest, read, platform, str(reference))
    title = str(Reference(reference.host, reference.repository, reference.tag, descriptor.digest))
    return _base(title, descriptor, manifest, repository, python_version, platform)


def _for_platform(
    descriptor: Descriptor,
    document: dict[str, Any],
    read: Callable[[Descriptor], dict[str, Any]],
    platform: Platform,
    title: str,
) -> tuple[Descriptor, dict[str, Any]]:
    """Follows a multi-platform index to the manifest for the platform; one step, no more."""
    if not _is_index(descriptor, document, title):
        return descriptor, document
    offered = set()
    for item in document["manifests"]:
        described = item.get("platform") if isinstance(item, dict) else None
        if not isinstance(described, dict):
            continue
        name = f"{described.get('os')}/{described.get('architecture')}"
        if name == str(platform) and described.get("variant", "") in ("", "v8"):
            found = descriptor_from(item)
            manifest = read(found)
            if _is_index(found, manifest, title):
                raise ImageError(f"{title} is an index of indexes, which is not supported.")
            return found, manifest
        offered.add(name[:60])
    shown = ", ".join(sorted(offered)[:10]) or "none that it names"
    raise ImageError(
        f"{title} has no image for {platform}, only for {shown}.",
        hint="Choose another base image or another platform.",
    )


def _is_index(descriptor: Descriptor, document: object, title: str) -> bool:
    """Whether it is an index and not a manifest; anything that could be read as both is refused.

    What one program takes for an index and another for a manifest is two images under one digest
    (the manifest confusion that OCI image specification 1.0.1 warns of).
    """
    if not isinstance(document, dict) or not {"layers", "manifests"} & document.keys():
        raise ImageError(f"{title} is no image but '{descriptor.media_type}'.")
    said = document.get("mediaType", descriptor.media_type)
    known = _INDEXES | _MANIFESTS
    if descriptor.media_type in known and said != descriptor.media_type:
        raise ImageError(
            f"{title} is named as '{descriptor.media_type}' but says '{str(said)[:100]}'."
        )
    index = isinstance(document.get("manifests"), list)
    manifest = isinstance(document.get("layers"), list) and "config" in document
    one = index is not manifest and not ("manifests" in document and "layers" in document)
    if not one or document.get("schemaVersion") != 2:
        raise ImageError(f"{title} is neither an image manifest nor an index of images.")
    if descriptor.media_type in (_MANIFESTS if index else _INDEXES):
        raise ImageError(f"{title} is named as '{descriptor.media_type}' but is none.")
    return index


def _base(
    title: str,
    descriptor: Descriptor,
    manifest: dict[str, Any],
    blobs: BlobSource,
    python_version: str,
    platform: Platform,
) -> BaseImage:
    config = _parse(blobs, descriptor_from(manifest["config"]))
    try:
        _check_config(config)
        layers = _layers(manifest["layers"], config["rootfs"]["diff_ids"])
    except (KeyError, TypeError, ValueError) as error:
        raise ImageError(f"The base image {title} is malformed: {error}.") from error
    own = f"{config.get('os')}/{config.get('architecture')}"
    if own != str(platform):
        raise ImageError(
            f"The base image {title} is for {own}, not for {platform}.",
            hint="Choose another base image or another platform.",
        )
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
        python=version if _PYTHON.fullmatch(version) else "",
    )


def _check_config(config: dict[str, Any]) -> None:
    """Makes sure that what is taken over into our own configuration has the specified types.

    Programs in Go take ``user`` for ``User``, and the last one wins: a base could so undo what we
    set. Hence no name may come in another spelling.
    """
    inner = config.get("config")
    if not isinstance(inner, dict | None):
        raise TypeError("its configuration's 'config' is no object")
    inner = inner or {}
    for name in inner:
        proper = _CONFIG_NAMES.get(name.casefold(), name)
        if name != proper:
            raise ValueError(f"its configuration spells '{proper}' as {name!a}")
    _check_shapes("configuration", inner, _CONFIG_SHAPES)
    _check_shapes("configuration", config, _KEPT_SHAPES)
    for name in ("Env", "Cmd", "Entrypoint", "Shell", "OnBuild"):
        _check_texts(name, inner.get(name) or [])
    _check_texts("Labels", (inner.get("Labels") or {}).values())
    _check_texts("os.features", config.get("os.features") or [])
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


def _check_texts(name: str, values: Iterable[object]) -> None:
    if not all(isinstance(value, str) and "\0" not in value for value in values):
        raise TypeError(f"its configuration's '{name}' holds something that is no text")


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
    if len(items) > _MOST_LAYERS:
        raise ValueError(
            f"it has {len(items)} layers, and containers have at most 127 with the bento's own"
        )
    blobs = [descriptor_from(item) for item in items]
    unknown = [blob.media_type for blob in blobs if blob.media_type not in _LAYER_TYPES]
    if unknown:
        raise ValueError(f"it has a layer of type '{unknown[0]}'")
    return tuple(
        Layer(
            kind="base",
            digest=blob.digest,
            diff_id=diff_id,
            size=blob.size,
            media_type=_LAYER_TYPES[blob.media_type],
            origin="base",
            title=f"base layer {number}",
        )
        for number, (blob, diff_id) in enumerate(zip(blobs, diff_ids, strict=True), start=1)
    )


def _parse(blobs: BlobSource, descriptor: Descriptor) -> dict[str, Any]:
    """A manifest, index or configuration; `open_blob` has checked its digest."""
    if descriptor.size > JSON_LIMIT:
        raise ImageError(f"{descriptor.digest} is too large for a manifest or configuration.")
    content = b"".join(blobs.open_blob(descriptor))
    try:
        return parse_json(content)
    except ValueError as error:
        raise ImageError(
            f"{descriptor.digest} cannot be read as a manifest or configuration: {error}."
        ) from error
