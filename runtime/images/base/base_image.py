"""Base images: choosing one, and reading it, or making it of this machine."""

from __future__ import annotations

import os
import platform as host_platform
import re
import threading
from dataclasses import dataclass, field, replace
from typing import Any

from kfp_bento.runtime.errors import ImageError, KfpBentoError
from kfp_bento.runtime.images.base.host import host_base
from kfp_bento.runtime.images.cache.local import LayerBuilder
from kfp_bento.runtime.images.oci.config import MOST_LAYERS
from kfp_bento.runtime.images.oci.image import BlobSource, Layer, Platform
from kfp_bento.runtime.images.oci.reference import Reference, parse_reference
from kfp_bento.runtime.images.places.open import open_image
from kfp_bento.runtime.images.places.opened_image import (
    CONFIG_NAMES,
    OpenedImage,
    require_platform,
    well_formed,
)
from kfp_bento.runtime.images.registry.connections import RetryPolicy
from kfp_bento.runtime.images.registry.repository import Repository

HOST = "host"
BASE_VARIABLE = "KFP_BENTO_BASE_IMAGE"

_CONFIG_NAMES = {name.casefold(): name for name in CONFIG_NAMES}
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
        python: Its Python version where known, for example `3.11.7`, or an empty string.
        glibc: Its C library's version, or an empty string where nobody has looked.
        libraries: Names of the shared libraries that a loader finds in it; empty where nobody
            has looked.
    """

    title: str
    digest: str
    config: dict[str, Any]
    layers: tuple[Layer, ...]
    blobs: BlobSource
    interpreter: str
    python: str
    glibc: str = ""
    libraries: frozenset[str] = field(default=frozenset(), repr=False)

    def inputs(self) -> dict[str, Any]:
        """Give what an image on it follows from, as plain JSON values."""
        layers = [[layer.media_type, layer.digest, layer.diff_id] for layer in self.layers]
        return {"digest": self.digest, "config": self.config, "layers": layers}


def choose_base(
    python_version: str, *, wanted: str = "", allow_host: bool = True, seconds: float = 3.0
) -> str:
    """Decide on a base image: what is wanted, else Docker's Python, else this machine.

    Args:
        python_version: Minor version that the bento needs, for example `3.11`.
        wanted: A base asked for; wins, and so does `$KFP_BENTO_BASE_IMAGE` after it.
        allow_host: Whether `host` may be the answer.
        seconds: How long docker.io gets to answer.

    Returns:
        A registry reference, `oci:DIR`, `docker-archive:FILE` or `host`.

    Raises:
        ImageError: docker.io does not answer and `host` is not allowed.
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
        patience = RetryPolicy(attempts=1, connect=seconds, read=seconds)
        try:
            found.append(Repository(reference, patience).head_manifest(reference.identifier))
        except KfpBentoError:
            return

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return any(found)


def open_base(
    text: str, python_version: str, platform: Platform, builder: LayerBuilder
) -> BaseImage:
    """Resolve a base image to its digest and check what it says of itself.

    What it holds is for `fitting_base` to see, which reads its layers.

    Args:
        text: `host`, `oci:DIR[:TAG]`, `docker-archive:FILE[:TAG]` or a registry reference.
        python_version: Minor version of Python that the bento needs.
        platform: Which image of a multi-platform index.
        builder: Makes the layer of `host`.

    Raises:
        ImageError: It cannot be read, or has no image for the platform.
    """
    if text == HOST:
        return _host(python_version, platform, builder)
    image = open_image(text, platform)
    require_platform(image, platform)
    with well_formed(image.title):
        _check_limits(image)
    return _base(image, python_version)


def _host(python_version: str, platform: Platform, builder: LayerBuilder) -> BaseImage:
    layer, config, version, libraries = host_base(python_version, platform, builder)
    return BaseImage(
        title=HOST,
        digest="",
        config=config,
        layers=(layer,),
        blobs=builder.workspace,
        interpreter=f"/usr/local/bin/python{python_version}",
        python=version if _PYTHON.fullmatch(version) else "",
        glibc=host_platform.libc_ver()[1],
        libraries=libraries,
    )


def _check_limits(image: OpenedImage) -> None:
    """Refuse what a copy may carry along, but nothing can be built on.

    Programs in Go take `user` for `User`, and the last one wins: a base could so undo what we
    set. Hence no name may come in another spelling.
    """
    for name in image.config.get("config") or {}:
        proper = _CONFIG_NAMES.get(name.casefold(), name)
        if name != proper:
            raise ValueError(f"its configuration spells '{proper}' as {name!a}")
    if len(image.layers) >= MOST_LAYERS:
        raise ValueError(
            f"it has {len(image.layers)} layers, and containers have at most {MOST_LAYERS} with "
            "the bento's own"
        )


def _base(image: OpenedImage, python_version: str) -> BaseImage:
    environment = dict(
        pair.partition("=")[::2] for pair in (image.config.get("config") or {}).get("Env") or ()
    )
    version = environment.get("PYTHON_VERSION", "")
    # Docker's official images install below /usr/local and say their version; distributions do not.
    folder = "/usr/local/bin" if version else "/usr/bin"
    return BaseImage(
        title=image.title,
        digest=image.descriptor.digest,
        config=image.config,
        # Whatever kfp-bento noted about them, to an image on top they are all its base.
        layers=tuple(
            replace(layer, kind="base", title=f"base layer {number}")
            for number, layer in enumerate(image.layers, start=1)
        ),
        blobs=image.blobs,
        interpreter=f"{folder}/python{python_version}",
        python=version if _PYTHON.fullmatch(version) else "",
    )
