"""Which wheels an image gets, decided from the lock before anything is downloaded.

uv reads the lock and the index for the image's platform, and evaluates environment markers for
it. Of the files it lists, only those count whose SHA-256 the lock holds; among them the order of
compatibility tags decides (PEP 425). So a selection follows from the lock alone: a file that is
uploaded later has a hash that no older lock holds. A file that is taken off the index can make a
selection fail, or fall to another file of the lock, never to an unknown one.
"""

from __future__ import annotations

import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from kfp_bento.runtime.errors import ImageError
from kfp_bento.runtime.files import file_sha256, parse_toml
from kfp_bento.runtime.images.oci.blobs import scratch_directory, storage_errors
from kfp_bento.runtime.images.oci.image import Platform, is_digest
from kfp_bento.runtime.images.python.installer import (
    GLIBC,
    MACHINES,
    NEWEST_GLIBC,
    glibc_of,
    manylinux,
    run_uv,
)
from kfp_bento.runtime.images.python.lock import (
    Lock,
    filename_in,
    installer_lines,
    locked_hashes,
    not_a_wheel,
    required_name,
    requirement_in,
)
from kfp_bento.runtime.images.python.sizes import sizes_of

_ANY_GLIBC = (2, 99)
# Raised whenever the same lock comes to give another selection.
_RULES = 2
# PEP 599, 571 and 513: names from before manylinux wheels carried the version of glibc.
_LEGACY = {(2, 17): "manylinux2014", (2, 12): "manylinux2010", (2, 5): "manylinux1"}
_OLDEST_GLIBC = {"x86_64": (2, 5), "aarch64": (2, 17)}


@dataclass(frozen=True)
class Wheel:
    """One wheel that goes into the image.

    Attributes:
        name: Normalised name of the distribution.
        version: Its version.
        filename: `name-version-…-tags.whl`.
        sha256: Of the file, in hex.
        size: Of the file in bytes.
        source: How the lock names it if not by name and version: a path relative to the lock's
            folder, or an address. Empty for a wheel from an index.
    """

    name: str
    version: str
    filename: str
    sha256: str
    size: int
    source: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Give the wheel as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Any) -> Wheel:
        """Read what `to_dict` wrote, or somebody else in its name.

        Raises:
            ValueError: It is no wheel, or would be more than one line of a requirements list.
        """
        if not isinstance(data, dict) or type(data.get("size")) is not int:
            raise ValueError("no wheel")
        texts = [value for name, value in data.items() if name != "size"]
        if not all(isinstance(text, str) and len(text.split()) <= 1 for text in texts):
            raise ValueError("a wheel with wrong values")
        if data.keys() != cls.__annotations__.keys() or not is_digest(f"sha256:{data['sha256']}"):
            raise ValueError("a wheel with other fields")
        return cls(**data)


def selection_inputs(
    lock: Lock, platform: Platform, glibc: tuple[int, int] = GLIBC
) -> dict[str, Any]:
    """Give what a selection follows from, as plain JSON values: a key to keep selections under."""
    return {
        "kind": "selection",
        "rules": _RULES,
        "lock": lock.digest,
        "python": lock.python,
        "platform": str(platform),
        "glibc": ".".join(map(str, glibc)),
    }


def select_wheels(
    lock: Lock, platform: Platform, glibc: tuple[int, int] = GLIBC
) -> tuple[Wheel, ...]:
    """Decide which wheel of each locked requirement goes into the image.

    Needs the package index or a warm uv cache (`UV_OFFLINE=1`); downloads no wheel. An index
    that does not give sizes (PEP 700) is asked for those of the selected files one by one.

    Args:
        lock: What to select for.
        platform: The image's platform.
        glibc: The base's C library. What a base with `GLIBC` can load is taken first, so that the
            same wheels are chosen on most bases.

    Returns:
        The wheels in the order of their names, without what markers exclude.

    Raises:
        ImageError: A requirement is a source distribution or comes from version control, the
            index has no wheel for the platform and Python among those of the lock, a local wheel
            is not the locked one, the size of a wheel is not to be had, or uv fails.
    """
    known = locked_hashes(lock)
    if not known:
        return ()
    ranks = _tag_ranks(lock.python, platform.architecture, glibc)
    found = []
    for package in _compiled(lock, platform):
        candidates = list(_candidates(package, lock))
        name = canonicalize_name(package["name"])
        allowed = known.get(name, frozenset())
        best = _best(candidates, allowed, ranks)
        if best is None:
            what = f"{name} {package.get('version', '')}".strip()
            later = _tag_ranks(lock.python, platform.architecture, _ANY_GLIBC)
            newer = _best(candidates, allowed, later)
            raise (
                _too_new(what, newer[0], glibc)
                if newer
                else _no_wheel(what, candidates, lock, platform)
            )
        found.append(best)
    return tuple(sorted(_with_sizes(found, lock), key=lambda wheel: wheel.name))


def locked(wheels: Sequence[Wheel], lock: Lock) -> bool:
    """Tell whether `select_wheels` can have given these wheels for the lock, whoever says so.

    The lock holds the hash of every wheel, names its file or address, and has no requirement
    without a condition that is left out.

    Raises:
        ImageError: The lock cannot be read.
    """
    known = locked_hashes(lock)
    lines = [line for line in lock.lines() if not line.startswith("-")]
    chosen = {wheel.name: wheel for wheel in wheels}
    always = {required_name(requirement_in(line)) for line in lines if ";" not in line}
    return (
        len(chosen) == len(wheels)
        and always <= chosen.keys()
        and all(wheel.sha256 in known.get(name, frozenset()) for name, wheel in chosen.items())
        and all(_is_named(wheel, lines) for wheel in chosen.values() if wheel.source)
    )


def _is_named(wheel: Wheel, lines: Iterable[str]) -> bool:
    """Tell whether a lock names a wheel's place: an address as it stands, a file by name."""
    if "://" in wheel.source:
        return any(wheel.source in line for line in lines)
    place = PurePosixPath(wheel.source)
    inside = not place.is_absolute() and ".." not in place.parts
    return inside and any(place.name in line for line in lines)


def _compiled(lock: Lock, platform: Platform) -> list[dict[str, Any]]:
    """Give the packages of the lock as uv finds them in the index (PEP 751, `packages`)."""
    with scratch_directory("kfp-bento-lock-") as folder:
        file = folder / "requirements.txt"
        text = "".join(f"{line}\n" for line in installer_lines(lock))
        with storage_errors(file):
            file.write_text(text, encoding="utf-8")
        text = run_uv(
            *(lock, platform, "pip", "compile", str(file)),
            *("--format", "pylock.toml", "--no-header"),
            glibc=NEWEST_GLIBC,  # what the base cannot load is sorted out here, and named
        )
    packages: list[dict[str, Any]] = parse_toml(text.encode()).get("packages", [])
    return packages


def _with_sizes(found: Sequence[tuple[Wheel, str]], lock: Lock) -> Iterator[Wheel]:
    """Give the wheels, with the sizes that the index did not give."""
    sizes = iter(sizes_of([address for wheel, address in found if not wheel.size], lock))
    for wheel, _ in found:
        yield wheel if wheel.size else replace(wheel, size=next(sizes))


def _candidates(package: dict[str, Any], lock: Lock) -> Iterator[tuple[Wheel, str]]:
    """Give the wheels that uv lists for one package, each with the address it is at."""
    archive: dict[str, Any] = package.get("archive") or {}
    listed: list[dict[str, Any]] = [archive] if archive else package.get("wheels", [])
    if not listed:
        raise not_a_wheel(f"{package['name']} {package.get('version', '')}".rstrip())
    for item in listed:
        address = str(item.get("url", ""))
        filename = str(item.get("name") or filename_in(address or item["path"]))
        try:
            _, version, _, _ = parse_wheel_filename(filename)
        except InvalidWheelFilename:
            continue
        # A local file is what it is, whatever a page beside it says.
        file = _local_file(item, lock)
        wheel = Wheel(
            name=canonicalize_name(package["name"]),
            version=str(package.get("version", version)),
            filename=filename,
            sha256=file_sha256(file) if file else item.get("hashes", {}).get("sha256", "").lower(),
            size=file.stat().st_size if file else int(item.get("size", 0)),
            source=_source(archive, file, lock),
        )
        yield wheel, address


def _source(archive: Mapping[str, Any], file: Path | None, lock: Lock) -> str:
    """How the lock names a wheel that no index gives; paths start in its folder."""
    folder = lock.folder.absolute()
    if archive and file and file.is_relative_to(folder):
        return file.relative_to(folder).as_posix()
    return str(archive.get("path") or archive.get("url", ""))


def _local_file(item: Mapping[str, Any], lock: Lock) -> Path | None:
    address = urllib.parse.urlsplit(str(item.get("url", "")))
    if address.scheme == "file":
        return Path(urllib.request.url2pathname(address.path))
    return lock.folder / item["path"] if item.get("path") else None


def _best(
    candidates: Sequence[tuple[Wheel, str]],
    allowed: frozenset[str],
    ranks: Mapping[Tag, int],
) -> tuple[Wheel, str] | None:
    """Give the candidate that fits best, of those with an allowed hash that fit at all."""
    rated = []
    for wheel, address in candidates:
        _, _, build, tags = parse_wheel_filename(wheel.filename)
        fitting = [ranks[tag] for tag in tags if tag in ranks]
        if fitting and wheel.sha256 in allowed:
            rated.append((-min(fitting), build, wheel.filename, wheel, address))
    if not rated:
        return None
    *_, wheel, address = max(rated, key=lambda item: item[:3])
    return wheel, address


@lru_cache
def _tag_ranks(python: str, architecture: str, glibc: tuple[int, int]) -> Mapping[Tag, int]:
    """Give the tags that an image's Python accepts; the lower the number, the better."""
    version = tuple(int(part) for part in python.split("."))[:2]
    machine = MACHINES[architecture]
    interpreter = f"cp{version[0]}{version[1]}"
    newer = [(2, minor) for minor in range(GLIBC[1] + 1, glibc[1] + 1)]
    tags = [
        *_tags(version, interpreter, _platforms(machine, min(GLIBC, glibc))),
        *_tags(version, interpreter, [f"{manylinux(item)}_{machine}" for item in newer]),
    ]
    return {tag: rank for rank, tag in reversed(list(enumerate(tags)))}


def _tags(version: Sequence[int], interpreter: str, platforms: list[str]) -> Iterator[Tag]:
    if not platforms:
        return  # those functions would take this machine's
    yield from cpython_tags(version, [interpreter], platforms)
    yield from compatible_tags(version, interpreter, platforms)


def _platforms(machine: str, glibc: tuple[int, int]) -> list[str]:
    """Platform tags from the newest C library on, as pip orders them (PEP 600)."""
    names = []
    for minor in range(glibc[1], _OLDEST_GLIBC[machine][1] - 1, -1):
        names.append(f"{manylinux((2, minor))}_{machine}")
        if old := _LEGACY.get((2, minor)):
            names.append(f"{old}_{machine}")
    return [*names, f"linux_{machine}"]


def _too_new(what: str, wheel: Wheel, glibc: tuple[int, int]) -> ImageError:
    needed, has = (".".join(map(str, item)) for item in (glibc_of(wheel.filename), glibc))
    return ImageError(
        f"{what} needs glibc {needed}, and the base has {has}: {wheel.filename}.",
        hint=f"Choose a base with glibc {needed} or later (Debian 11 has 2.31, Debian 12 2.36, "
        "Ubuntu 24.04 2.39), or lock a version that has wheels for older ones.",
    )


def _no_wheel(
    what: str, candidates: Sequence[tuple[Wheel, str]], lock: Lock, platform: Platform
) -> ImageError:
    offered = ", ".join(sorted(wheel.filename for wheel, _ in candidates)) or "none"
    return ImageError(
        f"No wheel of {what.strip()} for {platform} and Python {lock.python} has a hash that the "
        f"lock holds. There is: {offered}.",
        hint="Lock again for this platform and Python (`uv pip compile --generate-hashes`). If "
        "a file of the bento was changed after it was locked, build the bento again.",
    )
