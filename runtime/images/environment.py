"""The dependency layer: a virtual environment at ``/app/.venv`` made from a hash-locked list.

uv unpacks wheels into a scratch directory; nothing is executed and nothing is built. The tree is
then made independent of this machine: interpreter paths, cache notes and bytecode.
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
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kfp_bento.runtime.errors import ImageError
from kfp_bento.runtime.images.blobs import BlobDirectory, storage_errors
from kfp_bento.runtime.images.bytecode import compile_tree
from kfp_bento.runtime.images.cache import LayerCache, cached_layer
from kfp_bento.runtime.images.config import VENV
from kfp_bento.runtime.images.image import Layer, Platform
from kfp_bento.runtime.images.layers import Codec, write_layer
from kfp_bento.runtime.images.tar import (
    TarEntry,
    content_entry,
    directory_entry,
    symlink_entry,
    walk_tree,
)

_UV_PLATFORMS = {"amd64": "x86_64-manylinux_2_28", "arm64": "aarch64-manylinux_2_28"}
# Notes of the installer about this machine's cache and paths.
_LOCAL_NOTES = {"uv_cache.json", "uv_build.json"}
# What `uv pip install --target` puts beside the packages belongs one level up in an environment.
_DATA_FOLDERS = ("bin", "etc", "include", "share")
_SCRIPT = re.compile(rb"\A#!(?:/bin/sh\n'''exec' .*\n' '''|[^\n]*python[^\n]*)\n")

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
class Lock:
    """A hash-locked requirements list.

    Attributes:
        file: The requirements file.
        folder: Where relative paths in it start.
        python: Minor version of the interpreter that will import the packages: ``3.11``.
    """

    file: Path
    folder: Path
    python: str

    @property
    def digest(self) -> str:
        """What the environment follows from: the list, and the local wheels it points to."""
        digest = hashlib.sha256(self.file.read_bytes())
        for wheel in sorted(self.folder.glob("wheels/*")):
            digest.update(f"\0{wheel.name}\0".encode())
            with wheel.open("rb") as content:
                digest.update(hashlib.file_digest(content, "sha256").digest())
        return digest.hexdigest()


def dependency_layer(
    lock: Lock,
    workspace: BlobDirectory,
    codec: Codec,
    *,
    platform: Platform,
    interpreter: str,
    epoch: int,
    cache: LayerCache | None,
    progress: Callable[[str], None],
) -> Layer:
    """Makes the layer that holds ``/app/.venv``, or takes it from the cache.

    Args:
        lock: What to install.
        workspace: Where the blob goes.
        codec: How to compress it.
        platform: For which platform the wheels are chosen.
        interpreter: The image's Python, for example ``/usr/local/bin/python3.11``.
        epoch: Seconds since 1970 for every timestamp.
        cache: Where layers are kept between builds.
        progress: Told what is going on.

    Raises:
        ImageError: uv cannot install the list; its last lines are in the message.
    """
    compiled = lock.python == f"{sys.version_info.major}.{sys.version_info.minor}"
    inputs = {
        "kind": "dependencies",
        "lock": lock.digest,
        "python": lock.python,
        "platform": str(platform),
        "interpreter": interpreter,
        "codec": codec.identity,
        "bytecode": sys.version.split()[0] if compiled else "",
        "epoch": epoch,
    }

    def build(blobs: BlobDirectory) -> Layer:
        with _scratch(blobs.root) as scratch:
            progress("installing the locked wheels")
            install(lock, scratch / "target", platform)
            wheels = settle(scratch / "target")
            if compiled:
                progress(f"compiling bytecode for Python {lock.python}")
                with storage_errors(scratch):
                    compile_tree(scratch / "target", _site_packages(lock.python))
            else:
                progress(
                    f"no bytecode: this is Python {sys.version.split()[0]}, "
                    f"the image has {lock.python}; it will start more slowly"
                )
            progress("packing the dependencies")
            return write_layer(
                environment_entries(scratch / "target", lock.python, interpreter),
                blobs,
                codec,
                kind="dependencies",
                title=f"dependencies ({wheels} wheel{'s' if wheels != 1 else ''})",
                epoch=epoch,
            )

    return cached_layer(cache, workspace, inputs, build)


def install(lock: Lock, target: Path, platform: Platform) -> None:
    """Unpacks the locked wheels with uv: no resolution, no builds, every hash checked.

    Raises:
        ImageError: uv is missing or fails.
    """
    command = [
        *_uv(),
        *("pip", "install", "--quiet", "--no-config", "--no-progress"),
        *("--target", str(target.absolute()), "--python", sys.executable),
        *("--python-version", lock.python),
        *("--python-platform", _UV_PLATFORMS[platform.architecture]),
        *("--require-hashes", "--no-deps", "--only-binary", ":all:", "--link-mode", "hardlink"),
        *("-r", str(lock.file.absolute())),
        *_cache_options(target.absolute().parent),
    ]
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    done = subprocess.run(
        command, cwd=lock.folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode == 0:
        return
    said = [line.rstrip() for line in done.stderr.splitlines() if line.strip()]
    raise ImageError(
        "The bento's dependencies cannot be installed. uv says:\n" + "\n".join(said[-12:]),
        hint="All packages must exist as wheels for the image's platform and Python. uv needs the "
        "package index or a warm cache, and SSL_CERT_FILE for certificates of your own.",
    )


def _cache_options(scratch: Path) -> list[str]:
    """Gives uv a cache in the scratch directory where its usual place cannot be written.

    A random uid has no home, or ``/``; without any, uv would take the working directory, which
    is the bento.
    """
    if "UV_CACHE_DIR" in os.environ:
        return []
    home = os.environ.get("HOME")
    usual = os.environ.get("XDG_CACHE_HOME") or (home and f"{home}/.cache")
    place = Path(usual or "/nowhere", "uv")
    while not place.exists():
        place = place.parent
    if os.access(place, os.W_OK | os.X_OK):
        return []
    return ["--cache-dir", str(scratch / "uv-cache")]


def settle(target: Path) -> int:
    """Takes this machine out of an installed tree, in place; says how many wheels it holds.

    Files are replaced, never written to: they may be hard links into uv's cache.
    """
    with storage_errors(target):
        (target / ".lock").unlink(missing_ok=True)
        changed = dict(_relocated_scripts(target))
        records = sorted(target.glob("*.dist-info/RECORD"))
        for record in records:
            dropped = set(_drop_local_notes(record.parent))
            _rewrite_record(record, changed, dropped)
    return len(records)


def environment_entries(target: Path, python: str, interpreter: str) -> Iterator[TarEntry]:
    """The members of the layer: ``app/.venv`` with the settled tree in its place."""
    venv = VENV.lstrip("/")
    site_packages = _site_packages(python).lstrip("/")
    data = [name for name in _DATA_FOLDERS if _is_data(target / name)]
    yield directory_entry("app")
    yield directory_entry(venv)
    yield content_entry(
        f"{venv}/pyvenv.cfg",
        f"home = {os.path.dirname(interpreter)}\n"  # noqa: PTH120
        f"include-system-site-packages = false\nversion = {python}\n".encode(),
    )
    yield directory_entry(f"{venv}/lib")
    yield directory_entry(f"{venv}/lib/python{python}")
    yield from walk_tree(target, site_packages, skip=lambda path: path in data)
    if "bin" not in data:
        yield directory_entry(f"{venv}/bin")
    for name in data:
        yield from walk_tree(target / name, f"{venv}/{name}", skip=_is_interpreter)
    yield content_entry(f"{venv}/bin/activate", _ACTIVATE.encode())
    yield symlink_entry(f"{venv}/bin/python", interpreter)
    yield symlink_entry(f"{venv}/bin/python3", "python")
    yield symlink_entry(f"{venv}/bin/python{python}", "python")


def _is_interpreter(path: str) -> bool:
    return re.fullmatch(r"python[0-9.]*|activate|__pycache__", path) is not None


def _is_data(folder: Path) -> bool:
    return folder.is_dir() and not (folder / "__init__.py").exists()


def _site_packages(python: str) -> str:
    return f"{VENV}/lib/python{python}/site-packages"


def _uv() -> list[str]:
    """The uv installed beside this interpreter, else from PATH."""
    with contextlib.suppress(ImportError, FileNotFoundError):
        from uv import find_uv_bin

        return [str(find_uv_bin())]
    found = shutil.which("uv")
    if found is None:
        raise ImageError(
            "uv was not found; it installs the bento's dependencies.",
            hint="Install it: pip install uv (it is part of kfp-bento[runtime]).",
        )
    return [found]


@contextlib.contextmanager
def _scratch(near: Path) -> Iterator[Path]:
    """A directory that goes away, on the disk of the blobs if need be."""
    with storage_errors(near):
        near.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".environment-", dir=near))
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _relocated_scripts(target: Path) -> Iterator[tuple[str, bytes]]:
    """Points the shebangs of commands to the environment's own Python."""
    if not _is_data(target / "bin"):
        return
    for script in sorted((target / "bin").iterdir()):
        if script.is_symlink() or not script.is_file():
            continue
        with script.open("rb") as file:
            if file.read(2) != b"#!":
                continue
        content = script.read_bytes()
        settled = _SCRIPT.sub(f"#!{VENV}/bin/python\n".encode(), content, count=1)
        if settled != content:
            _replace(script, settled)
            yield f"bin/{script.name}", settled


def _drop_local_notes(dist_info: Path) -> Iterator[str]:
    for note in sorted(dist_info.iterdir()):
        from_here = note.name == "direct_url.json" and b'"file:' in note.read_bytes()
        if from_here or note.name in _LOCAL_NOTES:
            note.unlink()
            yield f"{dist_info.name}/{note.name}"


def _rewrite_record(record: Path, changed: dict[str, bytes], dropped: set[str]) -> None:
    """Makes RECORD agree with the environment: moved data folders, rewritten scripts."""
    rows = []
    for row in csv.reader(record.read_text(encoding="utf-8").splitlines()):
        if not row or row[0] in dropped:
            continue
        name, digest, size = row
        if name in changed:
            value = base64.urlsafe_b64encode(hashlib.sha256(changed[name]).digest())
            digest, size = f"sha256={value.decode().rstrip('=')}", str(len(changed[name]))
        folder = name.split("/", 1)[0]
        if folder in _DATA_FOLDERS and _is_data(record.parent.parent / folder):
            name = f"../../../{name}"
        rows.append((name, digest, size))
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(sorted(rows))
    _replace(record, text.getvalue().encode())


def _replace(file: Path, content: bytes) -> None:
    fresh = file.with_name(f"{file.name}.settled")
    fresh.write_bytes(content)
    fresh.chmod(file.stat().st_mode & 0o777)
    fresh.replace(file)
