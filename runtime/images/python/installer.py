"""uv as the installer: for an image's Python and platform, and of wheels alone."""

from __future__ import annotations

import csv
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from kfp_bento.runtime import programs
from kfp_bento.runtime.errors import ImageError
from kfp_bento.runtime.files import read_small_file
from kfp_bento.runtime.images.oci.blobs import scratch_directory, storage_errors
from kfp_bento.runtime.images.oci.image import Platform
from kfp_bento.runtime.images.python.lock import Lock, not_a_wheel
from kfp_bento.runtime.images.python.requirements import addresses_in, variables_in

if TYPE_CHECKING:
    from kfp_bento.runtime.images.python.selection import Wheel

GLIBC = (2, 28)
"""Debian 10, RHEL 8, Ubuntu 20.04 and everything newer: what wheels are chosen for first."""

# The C libraries that uv has names for (uv pip install --help, --python-platform), from GLIBC on.
_NAMED_BY_UV = (GLIBC, *((2, minor) for minor in range(31, 41)))
NEWEST_GLIBC = _NAMED_BY_UV[-1]
_MANYLINUX = re.compile(r"manylinux_(\d{1,3})_(\d{1,3})_")

MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
"""Processors in Python's words, by those of images."""

_LEGACY = {"manylinux1": 5, "manylinux2010": 12, "manylinux2014": 17}
_UV_SECONDS = 3600.0
_RECORD_LIMIT = 64 << 20


def install_wheels(
    wheels: Sequence[Wheel],
    lock: Lock,
    tree: Path,
    platform: Platform,
    progress: Callable[[str], None] = lambda sentence: None,
    *,
    spare: Path | None = None,
) -> None:
    """Unpack exactly these wheels with uv, as into a virtual environment at `tree`.

    uv's cache is tried alone first: every hash is given, so it cannot be out of date. It can be
    damaged, though: a virtual environment's files may be hard links into it, and some programs
    add certificates to such a file. What does not have the size that its wheel says is taken
    again, past the cache.

    Args:
        wheels: Which wheels.
        lock: What they are locked by.
        tree: The directory.
        platform: For which platform they were chosen.
        progress: Told what is going on.
        spare: Uv's cache where its own place cannot be written; one beside `tree` if not given.

    Raises:
        ImageError: uv is missing or fails, or the disk is full.
    """
    with storage_errors(tree):
        tree.mkdir(parents=True, exist_ok=True)
    if not wheels:
        return
    arguments, glibc = _installation(wheels, lock, tree), needed_glibc(wheels)
    spare = spare or tree.parent / "uv-cache"
    try:
        run_uv(lock, platform, *arguments, offline=True, spare=spare, glibc=glibc)
    except ImageError:
        run_uv(lock, platform, *arguments, spare=spare, glibc=glibc)
    if damaged := _damaged(tree):
        names = " ".join(sorted(damaged))
        progress(f"uv's cache was changed by another program (uv cache clean {names})")
        again = [wheel for wheel in wheels if wheel.name in damaged]
        fresh = str(tree.with_name("fresh").absolute())
        arguments = _installation(again, lock, tree)
        run_uv(lock, platform, *arguments, "--reinstall", "--cache-dir", fresh, glibc=glibc)


def _installation(wheels: Iterable[Wheel], lock: Lock, tree: Path) -> list[str]:
    """Arguments of uv for exactly these wheels, which are listed in a file beside the tree."""
    file = tree.with_name("requirements.txt").absolute()
    lines = [*lock.options(), *(_requirement(wheel, lock) for wheel in wheels)]
    with storage_errors(file):
        file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return [
        *("pip", "install", "--prefix", str(tree.absolute()), "--require-hashes"),
        *("--link-mode", "hardlink", "-r", str(file)),
    ]


def run_uv(
    lock: Lock,
    platform: Platform,
    *arguments: str,
    offline: bool = False,
    spare: Path | None = None,
    glibc: tuple[int, int] = GLIBC,
) -> str:
    """Run uv for the lock's Python and the image's platform, and give what it prints.

    Args:
        lock: Whose Python, and from whose folder.
        platform: The image's.
        arguments: The command and its options.
        offline: Whether uv's cache must do.
        spare: Uv's cache if its own place cannot be written and none is among the arguments; a
            temporary directory if not given.
        glibc: The C library that wheels may need; the next one that uv has a name for is taken.

    Raises:
        ImageError: uv is missing or fails, its last lines are in the message; or the disk is full.
    """
    with scratch_directory("kfp-bento-uv-") as folder:
        if "--cache-dir" not in arguments and not programs.keeps_downloads():
            cache = (spare or folder / "uv-cache").absolute()
            arguments = (*arguments, "--cache-dir", str(cache))
        # In a directory of our own: uv looks for its settings where it runs.
        options = ["--offline"] if offline else []
        return _run_uv(lock, platform, *arguments, *options, directory=folder, glibc=glibc)


def _run_uv(
    lock: Lock, platform: Platform, *arguments: str, directory: Path, glibc: tuple[int, int]
) -> str:
    named = next((known for known in _NAMED_BY_UV if known >= glibc), NEWEST_GLIBC)
    lines = list(lock.lines())
    done = programs.run_uv(
        [
            *(*arguments, "--quiet", "--no-deps", "--only-binary", ":all:"),
            *("--python", sys.executable, "--python-version", lock.python),
            *("--python-platform", f"{MACHINES[platform.architecture]}-{manylinux(named)}"),
        ],
        doing="Installing the bento's dependencies",
        directory=directory,
        seconds=_UV_SECONDS,
        error=ImageError,
        # Only entries for these very hosts are taken from the netrc file.
        indexes=[address for line in lines for address in addresses_in(line)],
        variables=[name for line in lines for name in variables_in(line)] if lock.own else (),
    )
    if done.status == 0:
        return done.output
    if package := programs.without_wheel(done.complaint):
        raise not_a_wheel(package)
    raise ImageError(
        f"The bento's dependencies cannot be installed. uv says:\n{done.last_lines()}",
        hint="All packages must exist as wheels for the image's platform and Python. "
        + programs.UV_DOES_NOT_ANSWER,
    )


def _requirement(wheel: Wheel, lock: Lock) -> str:
    """One line of a requirements list that only this very file meets."""
    if not wheel.source:
        what = f"{wheel.name}=={wheel.version}"
    elif "://" in wheel.source:
        what = f"{wheel.name} @ {wheel.source}"
    else:
        what = f"{wheel.name} @ {(lock.folder.absolute() / wheel.source).as_uri()}"
    return f"{what} --hash=sha256:{wheel.sha256}"


def _damaged(tree: Path) -> set[str]:
    """Give the distributions with a file that has not the size that any RECORD gives it."""
    sizes: dict[str, set[str]] = {}
    owners: dict[str, str] = {}
    for record in wheel_records(tree):
        for name, _, size in recorded_files(record):
            if not size or name.endswith(".dist-info/RECORD"):
                continue
            path = f"{record.parent.parent}/{name}"
            sizes.setdefault(path, set()).add(size)
            owners[path] = canonicalize_name(record.parent.name.partition("-")[0])
    return {owners[path] for path, said in sizes.items() if _size(path) not in said}


def wheel_records(tree: Path) -> list[Path]:
    """Find the lists of files of all wheels in a virtual environment."""
    return sorted(tree.glob("lib*/python3.*/site-packages/*.dist-info/RECORD"))


def recorded_files(record: Path) -> Iterator[list[str]]:
    """Read path, hash and size of each file of a wheel, as the wheel says them.

    Raises:
        ImageError: They cannot be read.
    """
    try:
        for row in csv.reader(read_small_file(record, _RECORD_LIMIT).decode().splitlines()):
            if row:
                name, digest, size = row
                yield [name, digest, size]
    except (ValueError, csv.Error) as error:
        raise ImageError(
            f"The RECORD of {record.parent.name} cannot be read: {error}.",
            hint="The wheel is damaged: build or publish it anew, and lock it again.",
        ) from error


def _size(path: str) -> str:
    try:
        return str(os.stat(path).st_size)  # noqa: PTH116
    except (OSError, ValueError):
        return ""


def needed_glibc(wheels: Iterable[Wheel]) -> tuple[int, int]:
    """Give the C library that wheels need, by the names of their files; `GLIBC` at least."""
    return max([GLIBC, *(glibc_of(wheel.filename) for wheel in wheels)])


def glibc_of(filename: str) -> tuple[int, int]:
    """Give the oldest C library that a wheel runs with, by its file's name; (0, 0) for any."""
    old = [(2, _LEGACY[name]) for name in _LEGACY if f"{name}_" in filename]
    named = [(int(major), int(minor)) for major, minor in _MANYLINUX.findall(filename)]
    return min([*old, *named], default=(0, 0))


def manylinux(glibc: tuple[int, int]) -> str:
    """Give the name of what runs with a C library of this version and newer (PEP 600)."""
    return f"manylinux_{glibc[0]}_{glibc[1]}"
