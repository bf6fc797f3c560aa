"""The `host` base: one layer made of this machine's own Python and what it needs to run.

For trying things out without a registry, not for production: it holds the interpreter that runs
this code, its standard library, the shared libraries these load, bash and a few commands, laid
out like Docker's `python:slim` (interpreter below `/usr/local`, merged `/usr`).
"""

from __future__ import annotations

import fnmatch
import os
import platform as host_platform
import re
import shutil
import stat
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfp_bento.runtime.errors import ImageError
from kfp_bento.runtime.images.cache.local import LayerBuilder
from kfp_bento.runtime.images.oci.blobs import BlobDirectory, scratch_directory, storage_errors
from kfp_bento.runtime.images.oci.config import DEFAULT_PATH, USER_ID
from kfp_bento.runtime.images.oci.image import Layer, Platform, parse_platform
from kfp_bento.runtime.images.oci.layers import Codec, write_layer
from kfp_bento.runtime.images.oci.tar import (
    TarEntry,
    content_entry,
    directory_entry,
    file_entry,
    symlink_entry,
    walk_tree,
)
from kfp_bento.runtime.images.python.bytecode import compile_tree
from kfp_bento.runtime.programs import clean_environment, run_program

TITLE = "this machine's own Python (for trying out, not for production)"

# BentoML's entrypoint needs bash and env, a pipeline's step needs mktemp; the rest makes a shell
# in the image usable.
_COMMANDS = (
    *("bash", "env"),
    *("basename", "cat", "chmod", "cp", "dirname", "head", "id", "ls", "mkdir", "mktemp", "mv"),
    *("readlink", "rm", "sleep", "tail", "uname"),
)
# What wheels may expect of any Linux (PEP 600), and what name resolution loads at run time.
_LIBRARIES = (
    *("libc.so.6", "libdl.so.2", "libgcc_s.so.1", "libm.so.6", "libpthread.so.0", "libresolv.so.2"),
    *("libmvec.so.1", "librt.so.1", "libstdc++.so.6", "libutil.so.1", "libz.so.1"),
    "libgomp.so.1",
    *("libnss_dns.so.2", "libnss_files.so.2"),
)
_UNWANTED_FOLDERS = {
    *("__pycache__", "dist-packages", "ensurepip", "idlelib", "site-packages", "test", "tests"),
    *("tkinter", "turtledemo"),
}
_UNWANTED = (
    *("config-*", "*.a", "*.o", "*.pyc", "EXTERNALLY-MANAGED"),
    *("sitecustomize.py", "usercustomize.py"),
    *("_tkinter.*", "_test*.so", "_ctypes_test.*", "_xxtestfuzz.*", "xxlimited*", "nis.*"),
)
_LOADED = re.compile(r"^\t(?:(?P<name>\S+) => )?(?P<path>/\S+) \(0x[0-9a-f]+\)$")
_SECONDS = 300.0
_LOADER = re.compile(r"ld[\w.-]*\.so(?:\.[0-9]+)?")
_NOT_FOUND = re.compile(r"^\t(?P<name>\S+) => not found$")

_FILES = {
    "etc/group": f"root:x:0:\nbentoml:x:{USER_ID}:\nnogroup:x:65534:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    "etc/os-release": f'NAME="kfp-bento host base"\nID=kfp-bento-host\nPRETTY_NAME="{TITLE}"\n',
    "etc/passwd": "root:x:0:0:root:/root:/bin/bash\n"
    f"bentoml:x:{USER_ID}:{USER_ID}:bentoml:/home/bentoml:/bin/bash\n"
    "nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
}
_LOCALE = "usr/lib/locale/C.utf8"
_MINOR = f"{sys.version_info.major}.{sys.version_info.minor}"
_FOLDERS = ("dev", "etc", "home", "proc", "root", "run", "sys", "usr", "var")


@dataclass(frozen=True)
class _Runtime:
    """The files of this machine that the layer is made of, by their paths in the image.

    Attributes:
        library: The standard library, below its own folder.
        programs: The interpreter, commands, shared libraries and the dynamic loader.
        locale: What the C.UTF-8 locale is made of.
    """

    library: dict[str, Path]
    programs: dict[str, Path]
    locale: dict[str, Path]

    def listing(self) -> list[list[Any]]:
        """Path, size and modification time of everything: what a cached layer depends on."""
        parts = (self.library, self.programs, self.locale)
        files = [(file, file.stat()) for part in parts for file in part.values()]
        return [[str(file), status.st_size, status.st_mtime_ns] for file, status in files]


def host_base(
    python_version: str, platform: Platform, builder: LayerBuilder
) -> tuple[Layer, dict[str, Any], str, frozenset[str]]:
    """Make the base layer, or take it from the cache.

    Returns:
        The layer, an image configuration for it, the full version of the Python inside, and the
        names of the shared libraries.

    Raises:
        ImageError: This is not Linux with glibc, the platform or the Python version is not this
            machine's, or bash or a library is missing.
    """
    version = host_platform.python_version()
    _check(python_version, platform)
    runtime = _find_runtime()
    inputs = {
        "kind": "host",
        "python": sys.version,
        "platform": str(platform),
        "files": runtime.listing(),
    }

    def build(blobs: BlobDirectory) -> Layer:
        builder.tell(f"packing this machine's Python {version} as a base layer")
        return _build(runtime, blobs, builder.codec, builder.epoch)

    layer = builder.layer(inputs, build)
    config = {
        "architecture": platform.architecture,
        "os": platform.os,
        "config": {
            "Env": [f"PATH={DEFAULT_PATH}", "LANG=C.UTF-8", f"PYTHON_VERSION={version}"],
            "Cmd": ["python3"],
        },
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]},
        "history": [{"created_by": f"kfp-bento: {TITLE}"}],
    }
    libraries = frozenset(path.rpartition("/")[2] for path in runtime.programs if ".so" in path)
    return layer, config, version, libraries


def _check(python_version: str, platform: Platform) -> None:
    away = "Name a base image instead, for example docker.io/library/python:3.11-slim."
    if sys.platform != "linux" or host_platform.libc_ver()[0] != "glibc":
        raise ImageError("The base 'host' works on Linux with glibc only.", hint=away)
    if platform != parse_platform():
        raise ImageError(f"The base 'host' is {parse_platform()}, not {platform}.", hint=away)
    if python_version != _MINOR:
        raise ImageError(
            f"The base 'host' has Python {_MINOR}, but the bento was built for {python_version}.",
            hint=f"Run this with Python {python_version}, or name a base image that has it.",
        )


def _find_runtime() -> _Runtime:
    executable = Path(sys.base_prefix, "bin", f"python{_MINOR}")
    if not executable.exists():
        executable = Path(getattr(sys, "_base_executable", sys.executable))
    executable = Path(os.path.realpath(executable))
    commands = dict(_find_commands())
    library = dict(_standard_library())
    loaded, broken = _shared_libraries(
        [executable, *commands.values(), *_system_libraries()],
        [file for name, file in library.items() if name.endswith(".so")],
    )
    return _Runtime(
        library={name: file for name, file in library.items() if str(file) not in broken},
        programs={f"usr/local/bin/python{_MINOR}": executable, **commands, **loaded},
        locale=dict(_locale()),
    )


def _locale() -> Iterator[tuple[str, Path]]:
    """Debian's glibc has the C.UTF-8 locale in files; others have it built in."""
    for file in sorted(Path("/", _LOCALE).rglob("*")):
        if file.is_file():
            yield file.relative_to("/").as_posix(), file


def _standard_library() -> Iterator[tuple[str, Path]]:
    """Files of the standard library; tests, Tk and installers are left out."""
    root = Path(sysconfig.get_path("stdlib"))
    for folder, folders, files in os.walk(root, followlinks=False):
        folders[:] = sorted(name for name in folders if not _unwanted(name, folder=True))
        for name in sorted(files):
            file = Path(folder, name)
            # Distributions link parts of the library to /etc, so links are followed.
            if not _unwanted(name, folder=False) and file.is_file():
                yield file.relative_to(root).as_posix(), file


def _unwanted(name: str, *, folder: bool) -> bool:
    if folder and name in _UNWANTED_FOLDERS:
        return True
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in _UNWANTED)


def _find_commands() -> Iterator[tuple[str, Path]]:
    for name in _COMMANDS:
        found = shutil.which(name, path="/usr/bin:/bin")
        if found:
            yield f"usr/bin/{name}", Path(os.path.realpath(found))
        elif name in {"bash", "env"}:
            raise ImageError(
                f"The base 'host' needs {name}, which is not on this machine.",
                hint="Install it, or name a base image.",
            )


def _system_libraries() -> Iterator[Path]:
    """Give the libraries that nothing here may need, but wheels do."""
    folders = {
        os.path.dirname(path)  # noqa: PTH120
        for path in _linked([Path(os.path.realpath(sys.executable))])[0].values()
    }
    for name in _LIBRARIES:
        for folder in sorted(folders):
            if Path(folder, name).exists():
                yield Path(folder, name)
                break


def _shared_libraries(needed: list[Path], optional: list[Path]) -> tuple[dict[str, Path], set[str]]:
    """Where each shared library goes in the image; and modules whose libraries are missing."""
    found, missing = _linked(needed)
    if missing:
        raise ImageError(f"This machine lacks shared libraries: {', '.join(sorted(missing))}.")
    more, broken = _linked(optional)
    libraries = {**more, **found, **{item.name: str(item) for item in _of(needed, "lib")}}
    folder = _below_usr(os.path.dirname(os.path.realpath(found["libc.so.6"])))  # noqa: PTH120
    placed = {}
    for name, path in libraries.items():
        # The loader is named by its full path inside every executable.
        place = _below_usr(name) if name.startswith("/") else f"{folder}/{name}"
        placed[place.lstrip("/")] = Path(os.path.realpath(path))
    return placed, broken


def _of(files: Iterable[Path], prefix: str) -> Iterator[Path]:
    return (file for file in files if file.name.startswith(prefix) and ".so" in file.name)


def _below_usr(path: str) -> str:
    return path if path.startswith("/usr/") else f"/usr{path}"


def _linked(files: list[Path]) -> tuple[dict[str, str], set[str]]:
    """Ask the dynamic loader: paths by library name, and the files it cannot load.

    As ldd does, which is a script that many images do not have. What is loaded for it is code of
    this machine's own Python and commands only, never of a model or of a wheel.
    """
    libraries: dict[str, str] = {}
    broken = set()
    loader = _loader()
    for file in files:
        done = run_program(
            [loader, str(file)],
            doing="Looking for shared libraries",
            directory=Path("/"),
            environment=clean_environment(LC_ALL="C", LD_TRACE_LOADED_OBJECTS="1"),
            seconds=_SECONDS,
            error=ImageError,
            hint="Name a base image.",
        )
        for line in done.output.splitlines():
            match = _LOADED.match(line)
            if match and match["path"] == loader and not match["name"]:
                continue  # as it was started here; executables name it by another path
            if match:
                libraries[match["name"] or match["path"]] = match["path"]
            elif _NOT_FOUND.match(line):
                broken.add(str(file))
    return libraries, broken


def _loader() -> str:
    """Give the dynamic loader of this process, which is mapped into it."""
    paths = (line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines())
    for path in paths:
        if _LOADER.fullmatch(Path(path).name):
            return path
    raise ImageError("This Python has no dynamic loader.", hint="Name a base image.")


def _build(runtime: _Runtime, blobs: BlobDirectory, codec: Codec, epoch: int) -> Layer:
    place = f"usr/local/{sys.platlibdir}/python{_MINOR}"
    with scratch_directory(".host-", blobs.root) as scratch:
        with storage_errors(scratch):
            for name, file in runtime.library.items():
                copy = scratch / name
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy)
                copy.chmod(stat.S_IMODE(file.stat().st_mode) & 0o755)
            compile_tree(scratch, f"/{place}")
        entries = [*_skeleton(), *_files(runtime), *walk_tree(scratch, place)]
        return write_layer(
            _with_parents(entries), blobs, codec, kind="base", title=TITLE, epoch=epoch
        )


def _skeleton() -> Iterator[TarEntry]:
    """Give a merged-/usr root with what a process without privileges looks up."""
    for name in _FOLDERS:
        yield directory_entry(name)
    for name in ("bin", "lib", "lib64", "sbin"):
        yield directory_entry(f"usr/{name}")
        yield symlink_entry(name, f"usr/{name}")
    for name in ("tmp", "var/tmp"):
        yield directory_entry(name, mode=0o1777)
    for name, text in _FILES.items():
        yield content_entry(name, text.encode())


def _files(runtime: _Runtime) -> Iterator[TarEntry]:
    yield symlink_entry("usr/bin/sh", "bash")
    yield symlink_entry("usr/local/bin/python3", f"python{_MINOR}")
    yield symlink_entry("usr/local/bin/python", "python3")
    for path, file in runtime.programs.items():
        yield file_entry(path, os.fsencode(file), executable=True)
    for path, file in runtime.locale.items():
        yield file_entry(path, os.fsencode(file), executable=False)


def _with_parents(entries: Iterable[TarEntry]) -> Iterator[TarEntry]:
    """Add the directories that nobody named."""
    given = list(entries)
    known = {entry.path for entry in given}
    yield from given
    for entry in given:
        for parent in Path(entry.path).parents:
            name = parent.as_posix()
            if name != "." and name not in known:
                known.add(name)
                yield directory_entry(name)
