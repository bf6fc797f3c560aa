"""The dependency layers: a virtual environment at `/app/.venv` made from a hash-locked list.

uv unpacks wheels into a scratch directory; nothing is executed and nothing is built. The tree is
then made independent of this machine: interpreter paths, cache notes and bytecode. Big wheels
have layers of their own, whose content depends on the wheel alone, so that bentos with different
locks share them.
"""

from __future__ import annotations

import base64
import contextlib
import csv
import hashlib
import io
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kfp_bento.runtime.images.oci.blobs import scratch_directory, storage_errors
from kfp_bento.runtime.images.oci.config import VENV
from kfp_bento.runtime.images.oci.image import Platform
from kfp_bento.runtime.images.oci.tar import (
    InOrder,
    TarEntry,
    content_entry,
    directory_entry,
    file_entry,
    symlink_entry,
    walk_tree,
)
from kfp_bento.runtime.images.python.bytecode import (
    Compilation,
    cache_path,
    compilation,
    wants_bytecode,
)
from kfp_bento.runtime.images.python.installer import install_wheels, recorded_files
from kfp_bento.runtime.images.python.lock import Lock
from kfp_bento.runtime.images.python.selection import Wheel, select_wheels

BIG_WHEEL = 64_000_000
"""From this size on, in bytes of the wheel file, a wheel gets a layer of its own."""

MOST_BIG_GROUPS = 12
"""Containers may have 127 layers, and pulls gain nothing beyond a few."""

# Notes of the installer about this machine's cache, and where a wheel came from: a path here, or
# an address that the wheel's hash says nothing about.
_LOCAL_NOTES = {"uv_cache.json", "uv_build.json", "direct_url.json"}
_SCRIPT = re.compile(rb"\A#!(?:/bin/sh\n'''exec' .*\n' '''|[^\n]*python[^\n]*)\n")
_PYTHON_FOLDER = re.compile(r"python3\.\d+")

_ACTIVATE = f"""\
# Source this from a POSIX shell.
deactivate () {{
    PATH="${{_KEPT_PATH:-$PATH}}"
    export PATH
    unset _KEPT_PATH VIRTUAL_ENV
    unset -f deactivate
    hash -r 2>/dev/null || true
}}
_KEPT_PATH="$PATH"
VIRTUAL_ENV={VENV}
PATH="$VIRTUAL_ENV/bin:$PATH"
export VIRTUAL_ENV PATH
hash -r 2>/dev/null || true
"""


@dataclass(frozen=True)
class DependencyGroup:
    """Wheels that make one layer of the environment.

    Attributes:
        wheels: Which wheels, in the order of their names.
        last: Whether the environment's own files (`pyvenv.cfg`, `bin/python` …) are with them;
            true for one group at most, which may have no wheels at all.
        lock: What to install.
        platform: For which platform the wheels were chosen.
        interpreter: The image's Python, for example `/usr/local/bin/python3.11`.
        bytecode: Which compiler writes the bytecode; empty for none.
    """

    wheels: tuple[Wheel, ...]
    last: bool
    lock: Lock = field(repr=False)
    platform: Platform = field(repr=False)
    interpreter: str = field(repr=False)
    bytecode: str = field(repr=False)

    @property
    def title(self) -> str:
        """For people: `torch 2.4.0`, `dependencies (41 wheels)`."""
        count = f"({len(self.wheels)} wheel{'s' if len(self.wheels) != 1 else ''})"
        if self.last:
            return f"dependencies {count}"
        first = f"{self.wheels[0].name} {self.wheels[0].version}"
        if len(self.wheels) == 1:
            return first
        large = all(wheel.size >= BIG_WHEEL for wheel in self.wheels)
        return f"{'large dependencies' if large else 'own wheels'} {count}"

    @property
    def download_size(self) -> int:
        """Bytes of the wheel files, as far as known."""
        return sum(wheel.size for wheel in self.wheels)

    @property
    def inputs(self) -> dict[str, Any]:
        """Everything that the group's files follow from, as plain JSON values.

        Neither the lock nor the platform is among it: the wheels say it all. The interpreter's
        path is in the environment's own files only.
        """
        inputs: dict[str, Any] = {
            "kind": "dependencies",
            "wheels": [wheel.sha256 for wheel in self.wheels],
            "python": self.lock.python,
            "bytecode": self.bytecode,
        }
        return {**inputs, "interpreter": self.interpreter} if self.last else inputs

    @contextlib.contextmanager
    def prepared(
        self, scratch: Path, progress: Callable[[str], None]
    ) -> Iterator[Callable[[], Iterable[TarEntry]]]:
        """Install the wheels into a directory below `scratch` that goes away with the block.

        Bytecode is still being written when the block begins: listing the members waits where it
        has to, so that packing overlaps with compiling.

        Yields:
            A function that lists the layer's members, in order; it may be called again.

        Raises:
            ImageError: uv cannot install the wheels, or the disk is full.
        """
        python = self.lock.python
        interpreter = self.interpreter if self.last else ""
        with scratch_directory(".environment-", scratch) as folder, contextlib.ExitStack() as stack:
            tree = folder / "tree"
            work = None
            if self.wheels and self.bytecode:
                with storage_errors(folder):
                    work = stack.enter_context(compilation(tree, VENV))
            elif self.wheels:
                progress(
                    f"no bytecode: this is Python {_release()}, the image has {python}; "
                    "it will start more slowly"
                )
            progress(f"installing {self.title}")
            install_wheels(self.wheels, self.lock, tree, self.platform, progress)
            settle(tree, python)
            members = _list_members(tree, python, interpreter, work)
            if work is not None:
                progress(f"compiling bytecode for Python {python}")
            yield lambda: InOrder(_in_order(members, tree, work))


def dependency_groups(
    lock: Lock,
    platform: Platform,
    *,
    interpreter: str,
    wheels: Iterable[Wheel] | None = None,
    own_files: bool = True,
) -> tuple[DependencyGroup, ...]:
    """Decide on the layers of the environment, from the lowest to the highest.

    Nothing is downloaded or installed for it. Big wheels come first, then all others with the
    environment's own files.

    Args:
        lock: What to install.
        platform: For which platform the wheels are chosen.
        interpreter: The image's Python, for example `/usr/local/bin/python3.11`.
        wheels: What `select_wheels` gave for the lock and platform, if it is known already.
        own_files: Whether the environment is made here; False for wheels that are added to one
            in a lower layer.

    Raises:
        ImageError: See `select_wheels`.
    """
    chosen = select_wheels(lock, platform) if wheels is None else tuple(wheels)
    rest = [wheel for wheel in chosen if wheel.size < BIG_WHEEL]
    parts: list[tuple[Sequence[Wheel], bool]] = [(part, False) for part in _big_parts(chosen)]
    if rest or own_files:
        parts.append((rest, own_files))
    compiler = bytecode_identity(lock.python)
    return tuple(
        DependencyGroup(_by_name(part), last, lock, platform, interpreter, compiler)
        for part, last in parts
    )


def _big_parts(wheels: Iterable[Wheel]) -> Iterator[Sequence[Wheel]]:
    """Each big wheel alone, largest first; of more than may be, the smallest share a layer."""
    big = sorted(
        (wheel for wheel in wheels if wheel.size >= BIG_WHEEL),
        key=lambda wheel: (-wheel.size, wheel.name),
    )
    alone = MOST_BIG_GROUPS if len(big) <= MOST_BIG_GROUPS else MOST_BIG_GROUPS - 1
    yield from ([wheel] for wheel in big[:alone])
    if together := big[alone:]:
        yield together


def _by_name(wheels: Iterable[Wheel]) -> tuple[Wheel, ...]:
    return tuple(sorted(wheels, key=lambda wheel: wheel.name))


def bytecode_identity(python: str) -> str:
    """Which compiler writes bytecode for a Python of this minor version; empty if none here does.

    The full release counts: bytecode differs between releases with the same magic number.
    """
    if sys.implementation.name != "cpython" or not _release().startswith(f"{python}."):
        return ""
    return f"cpython-{_release()}"


def settle(tree: Path, python: str) -> None:
    """Take this machine out of an installed tree, in place.

    Files are replaced, never written to: they may be hard links into uv's cache.

    Args:
        tree: A virtual environment's directory, as `install_wheels` leaves it.
        python: Minor version of the image's Python.
    """
    with storage_errors(tree):
        (tree / ".lock").unlink(missing_ok=True)
        _one_library(tree)
        for folder in (tree / "lib", tree / "include/site"):
            _rename_python(folder, python)
        scripts = dict(_relocated_scripts(tree / "bin"))
        packages = tree / f"lib/python{python}/site-packages"
        for record in sorted(packages.glob("*.dist-info/RECORD")):
            dropped = set(_drop_local_notes(record.parent))
            _rewrite_record(record, scripts, dropped, python)


@dataclass(frozen=True)
class _Pending:
    """Bytecode that is not written yet: a file, or the folder of several."""

    path: str
    sources: tuple[str, ...]
    file: Path | None = None


def _list_members(
    tree: Path, python: str, interpreter: str, work: Compilation | None
) -> list[tuple[bytes, TarEntry | _Pending]]:
    """Give the members of the layer by their paths' bytes; sources are handed to the compiler."""
    venv = VENV.lstrip("/")
    packages = f"{venv}/lib/python{python}/site-packages/"
    found: dict[str, TarEntry | _Pending] = {"app": directory_entry("app")}
    folders: dict[str, list[str]] = {}
    for entry in walk_tree(tree, venv, skip=_is_cache):
        found[entry.path] = entry
        if work and entry.path.startswith(packages) and _is_source(entry):
            source = entry.path[len(venv) + 1 :]
            work.add(source, entry.size)
            path = f"{venv}/{cache_path(source)}"
            found[path] = _Pending(path, (source,), tree / cache_path(source))
            folders.setdefault(path.rpartition("/")[0], []).append(source)
    if work:
        work.flush()
    for path, sources in folders.items():
        found[path] = _Pending(path, tuple(sources))
    if interpreter:
        found.update((entry.path, entry) for entry in _own_files(python, interpreter))
        for path in (f"{venv}/lib", f"{venv}/lib/python{python}", packages[:-1], f"{venv}/bin"):
            found.setdefault(path, directory_entry(path))
    keyed = ((path.encode("utf-8", "surrogateescape"), item) for path, item in found.items())
    return sorted(keyed, key=lambda pair: pair[0])


def _in_order(
    members: list[tuple[bytes, TarEntry | _Pending]], tree: Path, work: Compilation | None
) -> Iterator[TarEntry]:
    """Give the members that there are, waiting for bytecode where its turn comes."""
    for _, member in members:
        if isinstance(member, TarEntry):
            yield member
            continue
        assert work is not None  # noqa: S101
        with storage_errors(tree):
            if not any(work.wrote(source) for source in member.sources):
                continue
        if member.file is None:
            yield directory_entry(member.path)
        else:
            yield file_entry(member.path, os.fsencode(member.file), executable=False)


def _own_files(python: str, interpreter: str) -> Iterator[TarEntry]:
    """Give what makes a directory a virtual environment."""
    venv = VENV.lstrip("/")
    yield content_entry(
        f"{venv}/pyvenv.cfg",
        f"home = {os.path.dirname(interpreter)}\n"  # noqa: PTH120
        f"include-system-site-packages = false\nversion = {python}\n".encode(),
    )
    yield content_entry(f"{venv}/bin/activate", _ACTIVATE.encode())
    yield symlink_entry(f"{venv}/bin/python", interpreter)
    yield symlink_entry(f"{venv}/bin/python3", "python")
    yield symlink_entry(f"{venv}/bin/python{python}", "python")


def _is_cache(path: str) -> bool:
    """Bytecode that a wheel brings is stale: it names the time of a source."""
    return path.rpartition("/")[2] == "__pycache__"


def _is_source(entry: TarEntry) -> bool:
    return entry.kind == "file" and wants_bytecode(entry.path)


def _release() -> str:
    return sys.version.split()[0]


def _one_library(tree: Path) -> None:
    """Move `lib64` into `lib`, where a virtual environment has only a link between them."""
    other = tree / "lib64"
    if other.is_symlink():
        other.unlink()
    if not other.is_dir():
        return
    for file in sorted(path for path in other.rglob("*") if not path.is_dir()):
        place = tree / "lib" / file.relative_to(other)
        place.parent.mkdir(parents=True, exist_ok=True)
        file.replace(place)
    shutil.rmtree(other)


def _rename_python(folder: Path, python: str) -> None:
    """Rename folders that uv named after the Python that runs here, not after the image's."""
    wanted = f"python{python}"
    for found in sorted(folder.glob("python3.*")):
        if found.name != wanted and _PYTHON_FOLDER.fullmatch(found.name):
            found.replace(folder / wanted)


def _relocated_scripts(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Point the shebangs of commands to the environment's own Python."""
    if not folder.is_dir():
        return
    for script in sorted(folder.iterdir()):
        if script.is_symlink() or not script.is_file():
            continue
        with script.open("rb") as file:
            if file.read(2) != b"#!":
                continue
        content = script.read_bytes()
        settled = _SCRIPT.sub(f"#!{VENV}/bin/python\n".encode(), content, count=1)
        if settled != content:
            _replace(script, settled)
            yield f"../../../bin/{script.name}", settled


def _drop_local_notes(dist_info: Path) -> Iterator[str]:
    for name in sorted(_LOCAL_NOTES):
        note = dist_info / name
        if note.is_file():
            note.unlink()
            yield f"{dist_info.name}/{name}"


def _rewrite_record(
    record: Path, scripts: dict[str, bytes], dropped: set[str], python: str
) -> None:
    """Make RECORD agree with the tree: rewritten scripts, what was left out, folder names."""
    headers = re.compile(r"(\.\./\.\./\.\./include/site/)python3\.\d+/")
    rows = []
    for name, digest, size in recorded_files(record):
        if name in dropped or "__pycache__" in name.split("/"):
            continue
        if name in scripts:
            value = base64.urlsafe_b64encode(hashlib.sha256(scripts[name]).digest())
            digest, size = f"sha256={value.decode().rstrip('=')}", str(len(scripts[name]))
        rows.append((headers.sub(rf"\1python{python}/", name), digest, size))
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(sorted(rows))
    _replace(record, text.getvalue().encode())


def _replace(file: Path, content: bytes) -> None:
    fresh = file.with_name(f"{file.name}.settled")
    fresh.write_bytes(content)
    fresh.chmod(file.stat().st_mode & 0o777)
    fresh.replace(file)
