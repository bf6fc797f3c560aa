"""The virtual environment at `/app/.venv`, tree by tree: what wheels put there, and its own files.

uv unpacks wheels into a scratch directory; nothing is executed and nothing is built. The tree is
then made independent of this machine: interpreter paths, cache notes and bytecode. What a tree
holds follows from its wheels alone.
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
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from kfp_bento.runtime.errors import ImageError
from kfp_bento.runtime.images.oci.blobs import scratch_directory, storage_errors
from kfp_bento.runtime.images.oci.config import VENV
from kfp_bento.runtime.images.oci.image import Platform, one_line
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
    Compilers,
    cache_path,
    wants_bytecode,
)
from kfp_bento.runtime.images.python.installer import (
    install_wheels,
    recorded_files,
    wheel_records,
)
from kfp_bento.runtime.images.python.lock import Lock
from kfp_bento.runtime.images.python.selection import Wheel

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


@contextlib.contextmanager
def installed_wheels(
    wheels: Sequence[Wheel],
    lock: Lock,
    platform: Platform,
    scratch: Path,
    compilers: Compilers | None,
    progress: Callable[[str], None],
    *,
    spare: Path | None = None,
) -> Iterator[Callable[[], Iterable[TarEntry]]]:
    """Install wheels into a directory below `scratch` that goes away with the block.

    Bytecode is still being written when the block begins: listing the members waits where it has
    to, so that packing overlaps with compiling.

    Args:
        wheels: Which wheels. Where two of them have the same file, the later one's counts.
        lock: What they are locked by.
        platform: For which platform they were chosen.
        scratch: A directory.
        compilers: Write the bytecode; None for none.
        progress: Told what is going on.
        spare: See `install_wheels`.

    Yields:
        A function that lists the members of a layer, in order; it may be called again.

    Raises:
        ImageError: uv cannot install the wheels, one puts a file in the place of a folder of
            another or of all, or the disk is full.
    """
    with scratch_directory(".environment-", scratch) as folder, contextlib.ExitStack() as stack:
        trees: list[_Tree] = []
        install = partial(
            install_wheels, lock=lock, platform=platform, progress=progress, spare=spare
        )
        for tree in _installed(wheels, folder, install):
            settle(tree, lock.python)
            work = None
            if compilers is not None:
                work = stack.enter_context(compilers.compilation(tree, VENV))
            trees.append((tree, work))
        members = _list_members(trees, lock.python)
        yield lambda: InOrder(_in_order(members, folder))


def _installed(wheels: Sequence[Wheel], folder: Path, install: Callable[..., None]) -> list[Path]:
    """Give trees that hold the wheels: one for all, or one for each where they share files."""
    together = folder / "all/tree"
    try:
        install(wheels, tree=together)
    except ImageError:
        if clash := _clash(wheels, folder, install):
            raise ImageError(
                f"{clash}, which no directory can hold both.",
                hint="Lock other versions of them, or do without one.",
            ) from None
        raise
    if not _contested(together):
        return [together]
    # uv unpacks side by side, so that it is chance whose file is left.
    trees = []
    for number, wheel in enumerate(wheels):
        trees.append(folder / f"{number}/tree")
        install([wheel], tree=trees[-1])
    return trees


def _clash(wheels: Sequence[Wheel], folder: Path, install: Callable[..., None]) -> str:
    """Say which wheel has a file where another has a folder; empty if none can be seen to.

    uv only says what it could not make.
    """
    files: dict[str, str] = {}
    folders: dict[str, str] = {}
    for number, wheel in enumerate(wheels):
        tree, name = folder / f"alone-{number}/tree", f"{wheel.name} {wheel.version}"
        try:
            install([wheel], tree=tree)
        except ImageError:
            return ""
        for found in tree.rglob("*"):
            kind = folders if found.is_dir() else files
            kind[found.relative_to(tree).as_posix()] = name
        shutil.rmtree(tree.parent)
    for path in sorted(files.keys() & folders.keys()):
        return f"{files[path]} has a file '{one_line(path)}' where {folders[path]} has a folder"
    return ""


def own_files(python: str, interpreter: str) -> list[TarEntry]:
    """List what makes `/app/.venv` a virtual environment, with the folders above.

    Args:
        python: Minor version of the image's Python.
        interpreter: Its path, for example `/usr/local/bin/python3.11`.
    """
    venv = VENV.lstrip("/")
    return [
        *(directory_entry(path) for path in _folders(python)),
        content_entry(
            f"{venv}/pyvenv.cfg",
            f"home = {os.path.dirname(interpreter)}\n"  # noqa: PTH120
            f"include-system-site-packages = false\nversion = {python}\n".encode(),
        ),
        content_entry(f"{venv}/bin/activate", _ACTIVATE.encode()),
        symlink_entry(f"{venv}/bin/python", interpreter),
        symlink_entry(f"{venv}/bin/python3", "python"),
        symlink_entry(f"{venv}/bin/python{python}", "python"),
    ]


def _folders(python: str) -> list[str]:
    """Give the folders that the trees of all wheels have in common."""
    venv = VENV.lstrip("/")
    library = f"{venv}/lib/python{python}"
    return ["app", venv, f"{venv}/bin", f"{venv}/lib", library, f"{library}/site-packages"]


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
        for record in wheel_records(tree):
            dropped = set(_drop_local_notes(record.parent))
            _rewrite_record(record, scripts, dropped, python)


_Tree = tuple[Path, Compilation | None]


@dataclass(frozen=True)
class _Pending:
    """Bytecode that is not written yet: a file, or the folder of several."""

    path: str
    sources: list[tuple[Compilation, str]]
    file: Path | None = None

    @property
    def is_there(self) -> bool:
        """Whether any was written, once that is known."""
        return any(work.wrote(source) for work, source in self.sources)


def _list_members(trees: Sequence[_Tree], python: str) -> list[tuple[bytes, TarEntry | _Pending]]:
    """Give the members of the layer by their paths' bytes; sources are handed to the compilers."""
    venv = VENV.lstrip("/")
    packages = f"{venv}/lib/python{python}/site-packages/"
    found: dict[str, TarEntry | _Pending] = {"app": directory_entry("app")}
    for tree, work in trees:
        for entry in walk_tree(tree, venv, skip=_is_cache):
            found[entry.path] = entry
            if work and entry.path.startswith(packages) and _is_source(entry):
                source = entry.path[len(venv) + 1 :]
                work.add(source, entry.size)
                path = f"{venv}/{cache_path(source)}"
                found[path] = _Pending(path, [(work, source)], tree / cache_path(source))
                folder = path.rpartition("/")[0]
                whole = found.setdefault(folder, _Pending(folder, []))
                assert isinstance(whole, _Pending)  # noqa: S101 - no tree is listed with caches
                whole.sources.append((work, source))
        if work:
            work.flush()
    for path in _folders(python):
        if path in found and found[path] != directory_entry(path):
            raise ImageError(
                f"A wheel puts a file where every environment has the folder '/{path}'.",
                hint="Do without it, or build it anew without that file.",
            )
    keyed = ((path.encode("utf-8", "surrogateescape"), item) for path, item in found.items())
    return sorted(keyed, key=lambda pair: pair[0])


def _in_order(members: list[tuple[bytes, TarEntry | _Pending]], folder: Path) -> Iterator[TarEntry]:
    """Give the members that there are, waiting for bytecode where its turn comes."""
    for _, member in members:
        if isinstance(member, TarEntry):
            yield member
            continue
        with storage_errors(folder):
            if not member.is_there:
                continue
        if member.file is None:
            yield directory_entry(member.path)
        else:
            yield file_entry(member.path, os.fsencode(member.file), executable=False)


def _contested(tree: Path) -> bool:
    """Whether two wheels in a tree have a file in common."""
    seen: set[str] = set()
    for record in wheel_records(tree):
        here = record.parent.parent
        own = {os.path.normpath(f"{here}/{name}") for name, _, _ in recorded_files(record)}
        if not seen.isdisjoint(own):
            return True
        seen |= own
    return False


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
