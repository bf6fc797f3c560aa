"""Choosing and fetching Debian packages for a base image, with apt as the solver."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kfp_bento.runtime.bentos import DEBIAN_PACKAGE
from kfp_bento.runtime.errors import ImageError, InvalidInput
from kfp_bento.runtime.files import file_sha256
from kfp_bento.runtime.images.debian.apt import apt_root, run_apt
from kfp_bento.runtime.images.debian.rootfs import RootFilesystem, release_of
from kfp_bento.runtime.images.oci.blobs import storage_errors
from kfp_bento.runtime.images.oci.image import Platform

# Raised when the same packages would come to give another layer.
SYSTEM_FORMAT = 1

_URI_LINE = re.compile(r"'([^']+)' (\S+) (\d+) SHA256:([0-9a-f]{64})")
_FILE_NAME = re.compile(r"([a-z0-9][a-z0-9+.-]*)_([A-Za-z0-9.+~%-]+)_([a-z0-9-]+)\.deb")
_HELPER = "/usr/lib/apt/apt-helper"


@dataclass(frozen=True)
class DebianPackage:
    """One package of one version, fixed by the digest of its file.

    Attributes:
        name: Binary package.
        version: Debian version, with its epoch where there is one.
        architecture: Such as `amd64`, or `all`.
        sha256: Of the `.deb`, in hexadecimal.
        size: Of the `.deb` in bytes.
        filename: Name of the `.deb`, such as `libgomp1_12.2.0-14_amd64.deb`.
        codename: The release that it was chosen for, such as `bookworm`.
        uri: Where it was found; no part of its identity, and it may hold a password.
    """

    name: str
    version: str
    architecture: str
    sha256: str
    size: int
    filename: str
    codename: str = ""
    uri: str = field(default="", repr=False, compare=False)


@dataclass(frozen=True)
class SystemPackages:
    """The packages that a base lacks, in the order of their names.

    Attributes:
        packages: What is to be added, dependencies among them.
        release: What they were made for, such as `debian 12`.
        architecture: The processor in dpkg's words, such as `amd64`.
    """

    packages: tuple[DebianPackage, ...]
    release: str
    architecture: str

    def inputs(self) -> dict[str, Any]:
        """Give what the layer's bytes depend on, besides codec and epoch: the key of its cache."""
        return {
            "kind": "system",
            "format": SYSTEM_FORMAT,
            "packages": sorted(package.sha256 for package in self.packages),
        }


def resolve_packages(
    names: Sequence[str],
    facts: RootFilesystem,
    platform: Platform,
    progress: Callable[[str], None] | None = None,
) -> SystemPackages:
    """Find which packages a base lacks for the wanted ones to work, without recommended ones.

    The answer depends on the base and on what the archive holds now; a package can be pinned as
    `name=version`. What the base has already is left as it is.

    Args:
        names: Wanted packages, with or without `=version`.
        facts: What the base is made of.
        platform: The image's platform.
        progress: Told what is going on.

    Raises:
        InvalidInput: A name is none, or the sources cannot be used.
        ImageError: The base is no Debian, apt is missing, a package does not exist, the archive
            cannot be reached or its signature is wrong, or the base's own packages would change.
    """
    _check_names(names)
    _check_base(facts, platform)
    if progress:
        progress(f"finding system packages for {release_of(facts)}: {' '.join(names)}")
    with apt_root(facts, platform.architecture) as root:
        run_apt(root, "apt-get", "update", "-qq", "-o", "APT::Update::Error-Mode=any")
        install = ("apt-get", "install", "-qq", "-y", "--no-upgrade", "--no-install-recommends")
        plan = run_apt(root, *install, "--simulate", *names)
        _check_plan(plan)
        uris = run_apt(root, *install, "--print-uris", *names)
        codename = facts.os_release.get("VERSION_CODENAME", "")
        found = sorted(_packages(uris, codename), key=lambda item: (item.name, item.architecture))
    if {item.name for item in found} != set(re.findall(r"^Inst (\S+)", plan, re.MULTILINE)):
        raise ImageError("apt gave no SHA-256 digest for every package that it chose.")
    # Where a base's record is abridged, apt takes a package of the same version for another one.
    present = facts.packages
    packages = [item for item in found if present.get(item.name) != item.version]
    return SystemPackages(tuple(packages), release_of(facts), platform.architecture)


def fetch_packages(
    chosen: SystemPackages, facts: RootFilesystem, folder: Path
) -> dict[DebianPackage, Path]:
    """Download packages that `resolve_packages` gave, and checks their digests.

    Raises:
        ImageError: One cannot be fetched, or is not what was chosen.
    """
    found = {package: folder / package.filename for package in chosen.packages}
    if not found:
        return found
    arguments = []
    for package, path in found.items():
        arguments += [package.uri, str(path), f"SHA256:{package.sha256}"]
    with apt_root(facts, chosen.architecture) as root:
        run_apt(root, _HELPER, "download-file", *arguments)
    for package, path in found.items():
        with storage_errors(path):
            found_sha256 = file_sha256(path)
        if found_sha256 != package.sha256:
            raise ImageError(f"{package.filename} is not the file that the archive names.")
    return found


def _check_names(names: Sequence[str]) -> None:
    for name in names:
        if not DEBIAN_PACKAGE.fullmatch(name):
            raise InvalidInput(
                f"'{name}' is no name of a Debian package.",
                hint="Write name or name=version, for example libgomp1.",
            )


def _check_base(facts: RootFilesystem, platform: Platform) -> None:
    if not facts.is_debian:
        raise ImageError(
            f"System packages cannot be added to a base that is no Debian "
            f"('{release_of(facts)}', {len(facts.packages)} packages).",
            hint="Choose a base made from Debian, such as python:3.11-slim, "
            "or one that has the packages already. A bento that does without them is taken in so: "
            "kfp-bento bento import … --without system_packages.",
        )
    if facts.architecture not in {"", platform.architecture}:
        raise ImageError(f"The base is {facts.architecture}, but the image is for {platform}.")


def _check_plan(plan: str) -> None:
    """See that packages are only added: what the base has must stay as it is."""
    removed = re.findall(r"^Remv (\S+)", plan, re.MULTILINE)
    replaced = re.findall(r"^Inst (\S+) \[(\S+)\] \((\S+)", plan, re.MULTILINE)
    changed = [item for item in replaced if item[1] != item[2]]
    if not removed and not changed:
        return
    parts = [f"{name} {old} to be replaced by {new}" for name, old, new in changed]
    parts += [f"{name} to be removed" for name in removed]
    raise ImageError(
        f"The system packages would need packages of the base to change: {', '.join(parts)}.",
        hint="Use a newer build of the base image; its packages are older than the archive's.",
    )


def _packages(uris: str, codename: str) -> Iterator[DebianPackage]:
    for line in uris.splitlines():
        if match := _URI_LINE.fullmatch(line.strip()):
            uri, filename, size, sha256 = match.groups()
            parts = _FILE_NAME.fullmatch(filename)
            if parts is None:
                raise ImageError(f"The archive holds a package file of no valid name: {filename}.")
            name, version, architecture = map(urllib.parse.unquote, parts.groups())
            yield DebianPackage(
                name, version, architecture, sha256, int(size), filename, codename, uri
            )
