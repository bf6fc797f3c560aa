"""Shared libraries that wheels look for and do not bring, read from their files.

A wheel is to bring its libraries (PEP 600), and many do not: LightGBM leaves libgomp to the system,
OpenCV libGL. Whether that matters is seen from the wheel as a whole. Where none of its modules
can be loaded without a library, the wheel is of no use without it. Where only some cannot, these
are most often ones that the package tries and does without (Numba's thread pools, readers of
video, providers for other processors).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name, parse_wheel_filename

from kfp_bento.runtime.images.oci.blobs import scratch_directory, storage_errors
from kfp_bento.runtime.images.oci.elf import linking_of
from kfp_bento.runtime.images.oci.image import Platform
from kfp_bento.runtime.images.python.installer import install_wheels, recorded_files
from kfp_bento.runtime.images.python.lock import Lock
from kfp_bento.runtime.images.python.selection import Wheel

GLIBC_NAME = "libc.so.6"
"""What every base has for which it is known what it has."""

# Whatever has the C library has these.
_OF_GLIBC = re.compile(
    r"ld-linux\S*|lib(?:anl|c|dl|m|mvec|nsl|pthread|resolv|rt|thread_db|util)\.so\.\d+"
)
# Nobody needs these to be in the image: the driver's come with the node, Python's with Python.
_FROM_ELSEWHERE = re.compile(
    r"lib(?:cuda|nvcuvid|nvidia-[\w-]+|nvoptix)\.so(?:\.\d+)*|libpython3\S*\.so\S*"
)
# What most else is built on: without them a package fails at its core, however few of its modules
# ask for them (NumPy's linear algebra gets to zlib through Fortran's runtime).
_RUNTIME = {"libgcc_s.so.1", "libstdc++.so.6", "libz.so.1"}
_MODULE_TAG = re.compile(r"\.(?:cpython-\d+\w*|abi3)[\w-]*\.so$")


@dataclass(frozen=True)
class ModulesAlike:
    """Compiled modules of a wheel that look for the same libraries elsewhere.

    Attributes:
        libraries: Names of these libraries, through libraries in the wheel, too.
        count: How many modules.
    """

    libraries: tuple[str, ...]
    count: int


@dataclass(frozen=True)
class WheelNeeds:
    """What a wheel looks for, and what others may find in it.

    Attributes:
        brings: Names of its shared libraries.
        modules: Its compiled modules, by what they look for.
    """

    brings: tuple[str, ...] = ()
    modules: tuple[ModulesAlike, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Give the facts as plain JSON values."""
        return {
            "brings": list(self.brings),
            "modules": [[list(one.libraries), one.count] for one in self.modules],
        }

    @classmethod
    def from_dict(cls, data: Any) -> WheelNeeds:
        """Read what `to_dict` wrote, or somebody else in its name.

        Raises:
            ValueError: These are no facts.
        """
        try:
            modules = tuple(
                ModulesAlike(tuple(map(str, libraries)), int(count))
                for libraries, count in data["modules"]
            )
            return cls(tuple(map(str, data["brings"])), modules)
        except (KeyError, TypeError) as error:
            raise ValueError("no facts about a wheel") from error


@dataclass(frozen=True)
class Lacking:
    """What wheels look for that neither they nor the base have.

    Attributes:
        needed: By library, the wheels that are of no use without it.
        optional: For people: which other wheels have modules that cannot be loaded.
    """

    needed: Mapping[str, tuple[str, ...]]
    optional: tuple[str, ...]


def lacking(needs: Mapping[str, WheelNeeds], there: frozenset[str]) -> Lacking:
    """Tell what is missing where wheels and a base come together.

    Args:
        needs: What each wheel looks for, by the wheel's name for people.
        there: Names of the libraries that the base has.
    """
    found = there.union(*(wheel.brings for wheel in needs.values()))
    needed: dict[str, list[str]] = {}
    optional = []
    for title, wheel in needs.items():
        missing = {one: _not_in(found, one.libraries) for one in wheel.modules}
        touched = [one for one in wheel.modules if missing[one] - _RUNTIME]
        all_missing = sorted(set().union(*missing.values()))
        useless = len(touched) == len(wheel.modules)
        for library in all_missing:
            if useless or library in _RUNTIME:
                needed.setdefault(library, []).append(title)
        if touched and not useless:
            rest = [name for name in all_missing if name not in _RUNTIME]
            count = sum(one.count for one in touched)
            total = sum(one.count for one in wheel.modules)
            optional.append(f"{title} ({count} of {total} modules: {', '.join(rest)})")
    return Lacking({library: tuple(needed[library]) for library in sorted(needed)}, tuple(optional))


def needed_of_base(needs: Iterable[WheelNeeds]) -> frozenset[str]:
    """Give the libraries that no base can be without, whichever else it has.

    Args:
        needs: What each wheel looks for.
    """
    wheels = tuple(needs)
    found: set[str] = set()
    for wheel in wheels:
        sets = [set(one.libraries) for one in wheel.modules]
        if sets:
            found |= set.intersection(*sets) | (_RUNTIME & set().union(*sets))
    brought = frozenset(name for wheel in wheels for name in wheel.brings)
    return frozenset(_not_in(brought, found))


def _not_in(found: frozenset[str], libraries: Iterable[str]) -> set[str]:
    wanted = {name for name in libraries if not _FROM_ELSEWHERE.fullmatch(name)}
    return wanted - found


def is_compiled(wheel: Wheel) -> bool:
    """Tell whether a wheel can have compiled files, by its name."""
    return any(tag.platform != "any" for tag in parse_wheel_filename(wheel.filename)[3])


def read_needs(
    wheels: Sequence[Wheel],
    lock: Lock,
    platform: Platform,
    scratch: Path,
    spare: Path | None = None,
) -> dict[str, WheelNeeds]:
    """Say what wheels look for, by SHA-256. They are unpacked for it, and come into uv's cache.

    Args:
        wheels: Which wheels.
        lock: What they were chosen for.
        platform: For which platform.
        scratch: A directory for what is needed meanwhile.
        spare: See `install_wheels`.

    Raises:
        ImageError: See `install_wheels`.
    """
    if not wheels:
        return {}
    with scratch_directory(".needs-", scratch) as folder:
        tree = folder / "tree"
        install_wheels(wheels, lock, tree, platform, spare=spare)
        with storage_errors(tree):
            records = tree.glob("lib*/python3.*/site-packages/*.dist-info/RECORD")
            found: dict[str, WheelNeeds] = {}
            for record in sorted(records):
                name = canonicalize_name(record.parent.name.partition("-")[0])
                found[name] = needs_of(dict(_linked(record, tree)))
    return {wheel.sha256: found.get(wheel.name, WheelNeeds()) for wheel in wheels}


def _linked(record: Path, tree: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Give the compiled files of a wheel with the libraries that they ask for."""
    place = record.parent.parent
    for name, _, _ in recorded_files(record):
        file = Path(os.path.normpath(place / name))
        if ".so" not in file.name and file.parent != tree / "bin":
            continue
        if not file.is_relative_to(tree) or file.is_symlink() or not file.is_file():
            continue
        with file.open("rb") as content:
            linking = linking_of(content)
        if linking is not None:
            yield name, linking.needed


def needs_of(files: Mapping[str, tuple[str, ...]]) -> WheelNeeds:
    """Say what a wheel looks for elsewhere.

    Args:
        files: The libraries that its compiled files ask for, by their paths.
    """
    own = {path.rpartition("/")[2]: path for path in files}
    asked = {name for path, names in files.items() for name in names if own.get(name) != path}
    alike: dict[tuple[str, ...], int] = {}
    for path in sorted(files):
        folder, _, name = path.rpartition("/")
        # Libraries are loaded by what needs them, which counts in their place.
        if name not in asked and not folder.endswith(".libs"):
            libraries = tuple(sorted(set(_elsewhere(path, files, own))))
            alike[libraries] = alike.get(libraries, 0) + 1
    return WheelNeeds(
        brings=tuple(sorted(name for name in own if not _MODULE_TAG.search(name))),
        modules=tuple(ModulesAlike(libraries, count) for libraries, count in sorted(alike.items())),
    )


def _elsewhere(
    path: str, files: Mapping[str, tuple[str, ...]], own: Mapping[str, str]
) -> Iterator[str]:
    """Give what a file asks for, itself or through libraries beside it, that is not beside it."""
    seen, left = {path}, [path]
    while left:
        for name in files[left.pop()]:
            inside = own.get(name)
            if inside is None:
                if not _OF_GLIBC.fullmatch(name):
                    yield name
            elif inside not in seen:
                seen.add(inside)
                left.append(inside)
