"""Which packages bring shared libraries: looked up in the archive's own list of files.

The lists (`Contents`, as apt-file reads them) come through apt like the packages: from the base's
sources, with their signatures checked. That of a Debian release has some 12 MB.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from kfp_bento.runtime.images.debian.apt import apt_root, run_apt
from kfp_bento.runtime.images.debian.rootfs import RootFilesystem, release_of
from kfp_bento.runtime.images.oci.blobs import storage_errors
from kfp_bento.runtime.images.oci.decompression import decompressed
from kfp_bento.runtime.images.oci.tar import CHUNK

_TRIPLETS = {"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}
# Debian keeps a list for each component, Ubuntu one for all.
_PLACES = ("$(COMPONENT)/Contents-{}", "Contents-{}")


def _settings(architecture: str) -> dict[str, str]:
    """Have apt fetch these lists, and no others."""
    settings = {
        f"Acquire::IndexTargets::deb::{name}::DefaultEnabled": "false"
        for name in ("Packages", "Translations")
    }
    for number, place in enumerate(_PLACES):
        values = {
            "MetaKey": place.format(architecture),
            "flatMetaKey": f"Contents-{architecture}",
            "ShortDescription": f"Contents-{architecture}",
            "Description": f"$(RELEASE) {place.format(architecture)}",
            "KeepCompressed": "true",
            "KeepCompressedAs": "gz",
        }
        target = f"Acquire::IndexTargets::deb::Contents-{number}"
        settings |= {f"{target}::{key}": value for key, value in values.items()}
    return settings


def packages_with(
    libraries: Iterable[str],
    facts: RootFilesystem,
    architecture: str,
    progress: Callable[[str], None] = lambda sentence: None,
) -> dict[str, str]:
    """Find the packages of a base's release that bring shared libraries.

    Args:
        libraries: Their names, such as `libgomp.so.1`.
        facts: What the base is made of.
        architecture: Such as `amd64`.
        progress: Told what is going on.

    Returns:
        A package by library; those that no package has are left out.

    Raises:
        InvalidInput: The sources that were named cannot be used.
        ImageError: apt is missing, or the archive cannot be reached or trusted.
    """
    wanted = sorted(set(libraries))
    progress(f"finding which packages of {release_of(facts)} have {', '.join(wanted)}")
    found: dict[str, set[str]] = {}
    with apt_root(facts, architecture, _settings(architecture)) as root:
        run_apt(root, "apt-get", "update", "-qq", "-o", "APT::Update::Error-Mode=any")
        for file in sorted(root.glob("lists/*Contents-*")):
            with storage_errors(file):
                for name, package in _listed(file, wanted, architecture):
                    found.setdefault(name, set()).add(package)
    return {name: _likeliest(name, found[name]) for name in wanted if name in found}


def _listed(file: Path, wanted: list[str], architecture: str) -> Iterator[tuple[str, str]]:
    """Give the wanted libraries, in the directories where a loader looks, with their packages."""
    folders = rf"(?:usr/)?lib(?:64)?/(?:{_TRIPLETS.get(architecture, '-')}/)?"
    names = "|".join(map(re.escape, wanted))
    line = re.compile(rf"^{folders}({names})[ \t]+(\S+)$".encode(), re.MULTILINE)
    rest = b""
    for chunk in decompressed(_chunks(file), f"The archive's list of files {file.name}"):
        whole, _, rest = (rest + chunk).rpartition(b"\n")
        for name, places in line.findall(whole):
            for place in places.decode("utf-8", "replace").split(","):
                yield name.decode(), place.rpartition("/")[2]


def _chunks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            yield chunk


def package_named_after(library: str) -> str:
    """Give the name that a library's package should have (Debian policy, 8.1)."""
    stem, _, version = library.partition(".so.")
    hyphen = "-" if stem[-1:].isdigit() else ""
    return f"{stem}{hyphen}{version}".lower().replace("_", "-")


def _likeliest(library: str, packages: Iterable[str]) -> str:
    own = package_named_after(library)
    return min(packages, key=lambda name: (name.removesuffix("t64") != own, len(name), name))
