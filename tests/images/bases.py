"""Bases of all kinds, made of one small Debian: its files moved, taken away, or written anew."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from elf_files import program
from handmade import MINOR
from moving import base_of_layers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MULTIARCH = "usr/lib/x86_64-linux-gnu"
SOURCES = Path("/etc/apt/sources.list.d/debian.sources")
STATUS = "var/lib/dpkg/status"
LIBRARIES = ("libgomp1", "libstdc++6")
_OF_LIBRARIES = re.compile(rf"{MULTIARCH}/(libgomp|libstdc\+\+)\.so[.\d]*")


def debian(folder: Path, suite: str, *packages: str, architecture: str = "") -> Path:
    """A tar of a Debian's root; skips where it cannot be made.

    That of another processor is unpacked only: nothing of it can be run here.
    """
    if os.geteuid() != 0 or shutil.which("mmdebstrap") is None:
        pytest.skip("a Debian base needs root and mmdebstrap")
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{suite}{architecture}.tar"
    command = ["mmdebstrap", "--quiet", f"--include={','.join(packages)}"]
    foreign = (f"--architectures={architecture}", "--variant=extract")
    command += foreign if architecture else ("--variant=essential",)
    key = "signed-by=/usr/share/keyrings/debian-archive-keyring.gpg"
    # The archive that this machine itself has its packages from.
    used = re.search(r"^URIs:\s*(\S+)", SOURCES.read_text(), re.M) if SOURCES.is_file() else None
    if used is None:
        pytest.skip(f"{SOURCES} names no archive of Debian")
    source = f"deb [{key}] {used[1]} {suite} main"
    made = subprocess.run(
        [*command, suite, file, source], capture_output=True, text=True, check=False
    )
    if made.returncode != 0:
        pytest.skip(f"mmdebstrap cannot make {suite} here: {made.stderr.strip()[-300:]}")
    return file


class Root:
    """The files of a root, to be changed before they become a base."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.moves: list[Callable[[str], str]] = []
        self.written: dict[str, bytes] = {}
        self.environment = ["PATH=/usr/local/bin:/usr/bin:/bin"]

    def without(self, pattern: str) -> Root:
        gone = re.compile(pattern)
        self.moves.append(lambda path: "" if gone.fullmatch(path) else path)
        return self

    def moved(self, pattern: str, to: str) -> Root:
        self.moves.append(lambda path: re.sub(f"^{pattern}", to, path))
        return self

    def having(self, files: Mapping[str, bytes]) -> Root:
        self.written.update(files)
        return self

    def read(self, path: str) -> bytes:
        with tarfile.open(self.file) as archive:
            content = archive.extractfile(f"./{path}")
            assert content is not None
            return content.read()

    def layer(self) -> bytes:
        plain = io.BytesIO()
        with tarfile.open(self.file) as source, tarfile.open(fileobj=plain, mode="w") as target:
            for member in source:
                path = self._placed(member.name.removeprefix("./"))
                if not path or path in self.written or member.isdev():
                    continue
                if member.islnk():
                    member.linkname = self._placed(member.linkname.removeprefix("./"))
                member.name = path
                target.addfile(member, source.extractfile(member) if member.isreg() else None)
            for name, content in self.written.items():
                info = tarfile.TarInfo(name)
                info.size, info.mode = len(content), 0o755
                target.addfile(info, io.BytesIO(content))
        return plain.getvalue()

    def _placed(self, path: str) -> str:
        for move in self.moves:
            path = move(path) if path else ""
        return path

    def write(self, folder: Path) -> str:
        return base_of_layers(folder, [self.layer()], environment=self.environment)


def bare(root: Root) -> Root:
    """Without the libraries that LightGBM leaves to the system, as dpkg would have it."""
    stanzas = root.read(STATUS).decode().strip().split("\n\n")
    kept = [one for one in stanzas if one.split("\n")[0].split()[1] not in LIBRARIES]
    return root.without(_OF_LIBRARIES.pattern).having({STATUS: ("\n\n".join(kept) + "\n").encode()})


def without_python(root: Root) -> Root:
    return root.without(r"usr/bin/python3.*")


def without_shell(root: Root) -> Root:
    """As distroless images are: an interpreter, its libraries, and records of packages."""
    return root.without(r"(usr/)?bin/(?!python3)[^/]+")


def for_musl(root: Root) -> Root:
    """As Alpine is; Debian has no Python for musl, and its head is all that is looked at."""
    loader = "lib/ld-musl-x86_64.so.1"
    python = program(f"/{loader}")
    release = b'ID=alpine\nVERSION_ID=3.20.3\nPRETTY_NAME="Alpine Linux v3.20"\n'
    return (
        root.without(rf"{MULTIARCH}/.*|var/lib/dpkg/.*|etc/apt/.*|usr/lib64/.*")
        .without(r"lib|lib64|(usr/lib|etc)/os-release|usr/bin/python3.*")
        .having({loader: b"", f"usr/bin/python{MINOR}": python, "etc/os-release": release})
    )


def below_opt(root: Root) -> Root:
    """As Miniconda's images are: Python below /opt/conda alone, on a Debian."""
    bare(root)
    root.moved(r"usr/bin/python3", "opt/conda/bin/python3")
    root.moved(r"usr/lib/python3", "opt/conda/lib/python3")
    root.environment = ["PATH=/opt/conda/bin:/usr/bin:/bin"]
    return root


def like_red_hat(root: Root, scratch: Path, *, libraries: bool) -> Root:
    """As UBI is: libraries in /usr/lib64, known to the loader's cache, and no dpkg."""
    release = b'NAME="Red Hat Enterprise Linux"\nID="rhel"\nID_LIKE="fedora"\nVERSION_ID="9.4"\n'
    root.without(r"var/lib/dpkg/.*|etc/apt/.*|(usr/lib|etc)/os-release|usr/lib64/.*")
    root.moved(f"{MULTIARCH}/", "usr/lib64/")
    if not libraries:
        root.without(r"usr/lib64/libgomp\.so.*")
    root.having({"etc/os-release": release, "etc/ld.so.conf": b"/usr/lib64\n"})
    (scratch / "tree").mkdir(parents=True)
    with tarfile.open(fileobj=io.BytesIO(root.layer())) as archive:
        archive.extractall(scratch / "tree", filter="tar")
    subprocess.run(["ldconfig", "-r", scratch / "tree"], check=True)
    cache = (scratch / "tree/etc/ld.so.cache").read_bytes()
    shutil.rmtree(scratch / "tree")
    return root.having({"etc/ld.so.cache": cache})
