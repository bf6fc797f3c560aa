"""What is known of one build of one image: what its documents are made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kfp_bento.runtime.bentos import BentoModel
    from kfp_bento.runtime.images.base.base_image import BaseImage
    from kfp_bento.runtime.images.debian import DebianPackage
    from kfp_bento.runtime.images.oci.image import Platform
    from kfp_bento.runtime.images.python.selection import Wheel

DISTRIBUTION = "kfp-bento"
_Part = TypeVar("_Part", "Wheel", "DebianPackage")


def builder_version() -> str:
    """Give the version of kfp-bento that is running; `unknown` for an uninstalled source tree."""
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "unknown"


@dataclass(frozen=True)
class ImageBuild:
    """One build of one image.

    Attributes:
        repository: The repository that the image is known by; never a directory.
        digest: Digest of the image's manifest.
        name: Name of the bento.
        version: Version of the bento.
        asked_base: The base as it was asked for: a reference, `oci:…`, `docker-archive:…`, `host`.
        base: The base image that it was resolved to.
        platform: For which it is.
        compression: `zstd`, `gzip` or `none`.
        format: Version of the image format that the builder writes.
        epoch: Seconds since 1970 that stand in every timestamp of the image.
        bento_digest: Content digest of the bento, `sha256:…`; may be empty.
        wheels: The wheels of its environment.
        debs: The Debian packages on top of the base.
        models: Its models, with their origins.
        unverified_layers: Digests of layers that were reused on the word of a registry: nobody
            here has seen that the wheels and packages are what they hold.
        unverified_parts: SHA-256 of those wheels and packages.
        invocation: What names this run of the build to people, globally unique; may be empty.
        builder: Version of kfp-bento.
    """

    repository: str
    digest: str
    name: str
    version: str
    asked_base: str
    base: BaseImage
    platform: Platform
    compression: str
    format: str
    epoch: int
    bento_digest: str = ""
    wheels: tuple[Wheel, ...] = ()
    debs: tuple[DebianPackage, ...] = ()
    models: tuple[BentoModel, ...] = ()
    unverified_layers: tuple[str, ...] = ()
    unverified_parts: frozenset[str] = frozenset()
    invocation: str = ""
    builder: str = field(default_factory=builder_version)


def unique(parts: Iterable[_Part]) -> Iterable[_Part]:
    """Give every wheel or package once, whoever asked for it."""
    return {part.sha256: part for part in parts}.values()


def wheel_url(wheel: Wheel) -> str:
    """Give the package URL of a wheel, type `pypi`."""
    return package_url("pypi", wheel.name, wheel.version)


def deb_url(deb: DebianPackage) -> str:
    """Give the package URL of a Debian package, type `deb`."""
    qualifiers = {"arch": deb.architecture, "distro": deb.codename}
    return package_url("deb/debian", deb.name, deb.version, qualifiers)


def package_url(
    kind: str, name: str, version: str, qualifiers: Mapping[str, str] | None = None
) -> str:
    """Give a package URL (purl specification); qualifiers without a value are left out.

    Args:
        kind: The type, with the namespace if the type has one: `deb/debian`.
        name: The name, written as the type wants it.
        version: The version, which may be empty.
        qualifiers: More about it, such as `arch`.
    """
    url = f"pkg:{kind}/{quote(name, safe=':')}"
    if version:
        url += f"@{quote(version, safe=':')}"
    pairs = sorted((key, value) for key, value in (qualifiers or {}).items() if value)
    if pairs:
        url += "?" + "&".join(f"{key}={quote(value, safe=':/')}" for key, value in pairs)
    return url
