"""What a base image can run: its programs, their dynamic loaders, and its C library.

The facts are the same for every distribution; they come from the same reading of the layers as
those that Debian packages need.
"""

from __future__ import annotations

import io
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from kfp_bento.runtime.errors import ImageError
from kfp_bento.runtime.images.oci.elf import linking_of, loader_of

PROGRAMS = r"python3\.\d{1,3}|(?:ba)?sh|env|ln|ls|sleep|ld[\w.-]*\.so(?:\.\d+)*"
"""Names of what a base is looked at for, as a regular expression."""
_PROGRAM = re.compile(PROGRAMS)
_PYTHON = re.compile(r"python3\.(\d{1,3})")
# Older releases of glibc have its version in the file's name, and a link beside it.
_LIBC = re.compile(r"libc\.so\.6|libc-2\.\d{1,3}\.so")
_RELEASE = re.compile(rb"GNU C Library [^\n]{0,200}? release version (\d{1,3}\.\d{1,3})")
_VERSION = re.compile(r"\d{1,3}\.\d{1,3}", re.ASCII)
_LIBRARY = re.compile(r"lib[^/]{1,200}\.so(?:\.\d+)*")
# Where glibc looks without being told, in Debian's builds of it and in others'.
_TRIPLETS = ("x86_64-linux-gnu", "aarch64-linux-gnu")
_DEFAULT_FOLDERS = (
    *(f"{usr}lib/{triplet}" for usr in ("", "usr/") for triplet in _TRIPLETS),
    *("lib64", "usr/lib64", "lib", "usr/lib"),
)
_LINKS_FOLLOWED = 40


@dataclass(frozen=True)
class Note:
    """What is remembered of an executable file.

    Attributes:
        loader: The dynamic loader that it asks for.
        release: Of the C library that it is.
        search: Folders where whatever it loads is looked for (`DT_RPATH`).
    """

    loader: str = ""
    release: str = ""
    search: tuple[str, ...] = ()


@dataclass(frozen=True)
class Userland:
    """What there is to run in a base image.

    Attributes:
        distribution: Such as `debian 12`; `unknown` where the base does not say.
        programs: Path of each of `PROGRAMS`, without leading slash and with the links of its folder
            followed; and the loader that it asks for, empty for none.
        glibc: Version of the GNU C library, such as `2.36`; empty where there is none.
        libraries: Names of the shared libraries in each folder that has some.
        search: Folders where libraries are looked for besides the usual ones: those of
            `ld.so.conf`, and those that a Python names for all that it loads.
        links: Path and target of every symbolic link that leads to a directory.
    """

    distribution: str = "unknown"
    programs: Mapping[str, str] = field(default_factory=dict)
    glibc: str = ""
    libraries: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False)
    search: tuple[str, ...] = ()
    links: Mapping[str, str] = field(default_factory=dict, repr=False)

    def has(self, path: str) -> bool:
        """Tell whether a program is at a path, itself or as a link."""
        return self._place(path) in self.programs

    def find(self, name: str, search: str) -> str:
        """Give the absolute path of a program, as a shell finds it; empty if it is not there.

        Args:
            name: Such as `python3.11`.
            search: Directories, separated by colons (`PATH`).
        """
        folders = [folder.rstrip("/") for folder in search.split(":") if folder.startswith("/")]
        return next((f"{item}/{name}" for item in folders if self.has(f"{item}/{name}")), "")

    def loader(self, program: str) -> str:
        """Give the dynamic loader that a program asks for; empty for none, or no such program."""
        return self.programs.get(self._place(program), "")

    def libraries_on(self, path: str = "") -> frozenset[str]:
        """Give the names of the shared libraries that a dynamic loader finds.

        Args:
            path: Further directories, separated by colons (`LD_LIBRARY_PATH`).
        """
        wanted = (*_DEFAULT_FOLDERS, *self.search, *filter(None, path.split(":")))
        folders = {resolved(folder, self.links) for folder in wanted}
        return frozenset(name for folder in folders for name in self.libraries.get(folder, ()))

    @property
    def pythons(self) -> list[str]:
        """Absolute paths of the Pythons inside."""
        names = (path.rpartition("/")[2] for path in self.programs)
        found = zip(self.programs, map(_PYTHON.fullmatch, names), strict=True)
        return sorted(f"/{path}" for path, match in found if match)

    def to_dict(self) -> dict[str, Any]:
        """Give the facts as plain JSON values."""
        return {
            "distribution": self.distribution,
            "programs": dict(self.programs),
            "glibc": self.glibc,
            "libraries": {folder: list(names) for folder, names in self.libraries.items()},
            "search": list(self.search),
            "links": dict(self.links),
        }

    @classmethod
    def from_dict(cls, data: Any) -> Userland:
        """Read what `to_dict` wrote, or somebody else in its name.

        Raises:
            ValueError: These are no facts.
        """
        try:
            texts = [{str(key): str(to) for key, to in data[name].items()} for name in _TABLES]
            glibc = str(data["glibc"])
            if glibc and not _VERSION.fullmatch(glibc):
                raise ValueError("no version of a C library")
            libraries = {
                str(folder): tuple(map(str, names)) for folder, names in data["libraries"].items()
            }
            search = tuple(map(str, data["search"]))
            return cls(str(data["distribution"]), texts[0], glibc, libraries, search, texts[1])
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError("no facts about what a base runs") from error

    def _place(self, path: str) -> str:
        return placed(path, self.links)


_TABLES = ("programs", "links")


def noted(path: str, content: bytes) -> Note:
    """Give what to remember of the C library, or of an interpreter.

    Args:
        path: Where it is.
        content: All its bytes.
    """
    if is_libc(path):
        found = _RELEASE.search(content)
        return Note(release=found[1].decode() if found else "")
    linking = linking_of(io.BytesIO(content))
    search: tuple[str, ...] = ()
    if linking and linking.inherited:
        origin = f"/{posixpath.dirname(path)}"
        search = tuple(
            posixpath.normpath(re.sub(r"\$ORIGIN\b|\$\{ORIGIN\}", origin, folder)).lstrip("/")
            for folder in linking.search
        )
    return Note(loader=loader_of(content), search=search)


def is_libc(path: str) -> bool:
    """Tell whether a file is the C library, by its name."""
    return _LIBC.fullmatch(path.rpartition("/")[2]) is not None


def is_python(path: str) -> bool:
    """Tell whether a file is a Python interpreter, by its name."""
    return _PYTHON.fullmatch(path.rpartition("/")[2]) is not None


def userland_of(
    distribution: str,
    files: Mapping[str, Note],
    links: Mapping[str, str],
    folders: Mapping[str, str],
    configured: Iterable[str] = (),
) -> Userland:
    """Say what a base can run.

    Args:
        distribution: Such as `debian 12`.
        files: Executable files and shared libraries by their paths, with what was noted of them.
        links: All symbolic links.
        folders: Those that lead to directories.
        configured: Texts of `ld.so.conf`.
    """
    settled = {placed(path, links): note for path, note in files.items()}
    programs = {}
    for path in _named((*files, *links), _PROGRAM):
        target = resolved(path, links)
        if target in settled:
            programs[placed(path, links)] = settled[target].loader
    libraries: dict[str, set[str]] = {}
    for path in _named((*files, *links), _LIBRARY):
        if resolved(path, links) in settled:
            folder, _, name = placed(path, links).rpartition("/")
            libraries.setdefault(folder, set()).add(name)
    releases = {note.release for note in settled.values() if note.release}
    search = [folder for text in configured for folder in _configured(text)]
    search += [folder for note in settled.values() for folder in note.search]
    return Userland(
        distribution=distribution,
        programs=dict(sorted(programs.items())),
        # Where there are two, such as one of an emulated processor, the older one counts.
        glibc=min(releases, key=version_of, default=""),
        libraries={folder: tuple(sorted(names)) for folder, names in sorted(libraries.items())},
        search=tuple(dict.fromkeys(search)),
        links=dict(folders),
    )


def _configured(text: str) -> Iterator[str]:
    """Give the folders in a text of `ld.so.conf`."""
    for line in text.splitlines():
        folder = line.partition("#")[0].strip()
        if folder.startswith("/"):
            yield folder.strip("/")


def version_of(text: str) -> tuple[int, int]:
    """Read a version such as `2.36`.

    Raises:
        ValueError: It is none.
    """
    if not _VERSION.fullmatch(text):
        raise ValueError(f"no version: {text[:40]!a}")
    major, minor = text.split(".")
    return int(major), int(minor)


def _named(paths: Iterable[str], pattern: re.Pattern[str]) -> list[str]:
    return [path for path in paths if pattern.fullmatch(path.rpartition("/")[2])]


def placed(path: str, links: Mapping[str, str]) -> str:
    """Give a path with the links of its folder followed, and without a slash before it."""
    folder, _, name = path.lstrip("/").rpartition("/")
    return f"{resolved(folder, links)}/{name}".lstrip("/")


def resolved(path: str, links: Mapping[str, str]) -> str:
    """Where a path leads when the links on its way, itself included, are followed.

    Returns:
        The path without a slash before it; empty where the links go in a circle.
    """
    try:
        return follow(path, links)
    except ImageError:
        return ""


def follow(path: str, links: Mapping[str, str]) -> str:
    """Follow the links on a path's way, itself included.

    Raises:
        ImageError: They go in a circle.
    """
    done: list[str] = []
    left = path.split("/")
    for _ in range(_LINKS_FOLLOWED):
        while left:
            part = left.pop(0)
            if part == "..":
                done = done[:-1]
            elif part not in {"", "."}:
                done.append(part)
            target = links.get("/".join(done))
            if part != ".." and target is not None:
                break
        else:
            return "/".join(done)
        done = [] if target.startswith("/") else done[:-1]
        left = [*target.split("/"), *left]
    raise ImageError(f"The base image's links go in a circle at '{path}'.")
