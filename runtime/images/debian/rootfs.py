"""What a base image is made of, as far as running a bento and adding Debian packages need it.

The layers are streamed once, from the lowest to the highest, as an image's file system is put
together from them (OCI image specification, `layer.md`, whiteouts included). Nothing is
unpacked; directories, links and a few small files are remembered.
"""

from __future__ import annotations

import base64
import io
import posixpath
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from kfp_bento.runtime.errors import ImageError
from kfp_bento.runtime.files import ChunkReader
from kfp_bento.runtime.images.debian.userland import (
    Note,
    Userland,
    follow,
    is_libc,
    is_python,
    noted,
    userland_of,
)
from kfp_bento.runtime.images.oci.decompression import decompressed
from kfp_bento.runtime.images.oci.image import BlobSource, Layer, one_line

_WANTED = re.compile(
    r"usr/lib/os-release|etc/os-release|etc/debian_version"
    r"|var/lib/dpkg/status|var/lib/dpkg/status\.d/(?!.*\.md5sums$)[^/]+"
    r"|var/lib/dpkg/alternatives/[^/]+"
    r"|etc/apt/sources\.list|etc/apt/sources\.list\.d/[^/]+\.(list|sources)"
    r"|etc/ld\.so\.conf|etc/ld\.so\.conf\.d/[^/]+\.conf"
    r"|etc/apt/preferences|etc/apt/preferences\.d/[^/]+"
    r"|etc/apt/trusted\.gpg|(etc/apt/trusted\.gpg\.d|etc/apt/keyrings|usr/share/keyrings)/[^/]+"
)
_LIMIT = 32 << 20
# No image of a distribution comes near; a few kilobytes of gzip could otherwise fill the memory.
_MOST_MEMBERS = 2_000_000
_MOST_CONTENT = 256 << 20
_LONGEST_PATH, _DEEPEST = 4095, 200
_HEADER_LIMIT = 1 << 20
_LONG_HEADERS = {
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
}
_KEYRINGS = ("etc/apt/trusted.gpg", "etc/apt/keyrings/", "usr/share/keyrings/")
_TRUSTED = re.compile(
    r"etc/apt/trusted\.gpg|etc/apt/trusted\.gpg\.d/.*"
    r"|usr/share/keyrings/(debian|ubuntu)-archive-keyring\.(gpg|pgp|asc)"
)
_DAMAGES = (tarfile.TarError, EOFError, OSError, ValueError, OverflowError, RecursionError)


@dataclass(frozen=True)
class RootFilesystem:
    """What there is to know of a base image before Debian packages are added to it.

    Attributes:
        os_release: The assignments of `os-release`.
        status: dpkg's record of the installed packages, in its own format.
        sources: Name and text of apt's source files.
        preferences: Name and text of apt's preferences (pins).
        keyrings: Absolute path and bytes of the keyrings of package archives.
        alternatives: Name and record of each group of `update-alternatives`.
        directories: Path of every directory, without leading slash.
        links: Path and target of every symbolic link that leads to a directory.
        userland: What it can run.
    """

    os_release: dict[str, str]
    status: str
    sources: dict[str, str]
    preferences: dict[str, str]
    keyrings: dict[str, bytes] = field(repr=False)
    alternatives: dict[str, str]
    directories: frozenset[str] = field(repr=False)
    links: dict[str, str] = field(repr=False)
    userland: Userland = field(default_factory=Userland)

    @property
    def is_debian(self) -> bool:
        """Whether this is Debian or a distribution made from it."""
        family = [self.os_release.get("ID", ""), *self.os_release.get("ID_LIKE", "").split()]
        return "debian" in family and bool(self.status)

    @property
    def architecture(self) -> str:
        """The processor in dpkg's words, such as `amd64`; empty when nothing is installed."""
        found = re.search(r"^Architecture: (?!all$)(\S+)$", self.status, re.MULTILINE)
        return found[1] if found else ""

    @property
    def packages(self) -> dict[str, str]:
        """Name and version of what is installed."""
        found = {}
        for stanza in self.status.split("\n\n"):
            fields = dict(re.findall(r"^(Package|Version|Status): (.*)$", stanza, re.MULTILINE))
            if fields.get("Status", "").endswith(" installed"):
                found[fields.get("Package", "")] = fields.get("Version", "")
        return found

    def resolve(self, path: str) -> str:
        """Where a path leads when the links on its way, itself included, are followed.

        Raises:
            ImageError: The links go in a circle.
        """
        return follow(path, self.links)

    def to_dict(self) -> dict[str, Any]:
        """Give the facts as plain JSON values, to be kept under the base's digest."""
        return {
            "os_release": self.os_release,
            "status": self.status,
            "sources": self.sources,
            "preferences": self.preferences,
            "keyrings": {
                path: base64.b64encode(content).decode() for path, content in self.keyrings.items()
            },
            "alternatives": self.alternatives,
            "directories": _nested(self.directories),
            "links": self.links,
            "userland": self.userland.to_dict(),
        }

    @classmethod
    def from_dict(cls, data: Any) -> RootFilesystem:
        """Read what `to_dict` wrote, or somebody else in its name.

        Raises:
            ValueError: These are no facts.
        """
        try:
            texts = {
                name: {str(key): str(value) for key, value in data[name].items()}
                for name in ("os_release", "sources", "preferences", "alternatives", "links")
            }
            return cls(
                **texts,
                status=str(data["status"]),
                keyrings={path: base64.b64decode(text) for path, text in data["keyrings"].items()},
                directories=frozenset(_flat(data["directories"])),
                userland=Userland.from_dict(data["userland"]),
            )
        except (AttributeError, KeyError, TypeError, RecursionError) as error:
            raise ValueError("no facts about a base") from error


def release_of(facts: RootFilesystem) -> str:
    """Give the distribution and its release, such as `debian 12`: what packages are made for.

    An image may be put onto another base only if this stays the same.
    """
    release = facts.os_release.get("VERSION_ID") or facts.os_release.get("VERSION_CODENAME", "")
    return f"{facts.os_release.get('ID', 'unknown')} {release}".strip()


def probe_base(layers: Sequence[Layer], blobs: BlobSource) -> RootFilesystem:
    """Read a base image once, in flat memory.

    Args:
        layers: Its layers, the lowest first; plain, gzip or zstd.
        blobs: Where they come from.

    Raises:
        ImageError: A layer cannot be fetched or is damaged.
    """
    tree = _Tree()
    for layer in layers:
        upper = _Tree()
        removed: list[str] = []
        with _opened(layer, blobs) as archive:
            try:
                for member in _members(archive):
                    upper.add(member, archive, removed)
            except _DAMAGES as error:
                raise _damaged(layer, error) from error
        for path in removed:
            tree.remove(path)
        tree.merge(upper)
    return _facts(tree)


@dataclass
class _Tree:
    directories: set[str] = field(default_factory=set)
    links: dict[str, str] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    programs: dict[str, Note] = field(default_factory=dict)  # what can be run or loaded
    others: set[str] = field(default_factory=set)  # what hides a directory or link of below
    room: int = _MOST_CONTENT

    def add(self, member: tarfile.TarInfo, archive: tarfile.TarFile, removed: list[str]) -> None:
        path = posixpath.normpath(f"/{member.name}").lstrip("/")
        if len(path) > _LONGEST_PATH or path.count("/") > _DEEPEST:
            raise ValueError("it holds a path that is far too long")
        folder, _, name = path.rpartition("/")
        if name == ".wh..wh..opq":
            removed.append(f"{folder}/")
        elif name.startswith(".wh."):
            removed.append(f"{folder}/{name[4:]}".lstrip("/"))
        elif member.isdir():
            if path:
                self.directories.add(path)
        elif member.issym():
            self.links[path] = member.linkname
        else:
            self.others.add(path)
            if _WANTED.fullmatch(path) and member.isreg() and member.size <= _LIMIT:
                self.room -= member.size
                if self.room < 0:
                    raise ValueError("its package records are far too large")
                content = archive.extractfile(member)
                self.files[path] = content.read() if content else b""
            elif _is_program(path, member):
                twin = posixpath.normpath(f"/{member.linkname}").lstrip("/")
                known = self.programs.get(twin) if member.islnk() else None
                self.programs[path] = known or _note(path, member, archive)

    def remove(self, path: str) -> None:
        """Take a path away with all below it; with a slash at its end only what is below."""
        prefix = path if path.endswith("/") else f"{path}/"
        prefix = prefix.lstrip("/")

        def gone(item: str) -> bool:
            return item == path or item.startswith(prefix)

        self.directories = {item for item in self.directories if not gone(item)}
        self.links = {item: to for item, to in self.links.items() if not gone(item)}
        self.files = {item: text for item, text in self.files.items() if not gone(item)}
        self.programs = {item: note for item, note in self.programs.items() if not gone(item)}

    def merge(self, upper: _Tree) -> None:
        """Put another layer on top."""
        for path in (upper.others | upper.links.keys()) & self.directories:
            self.remove(path)
        for path in upper.directories | upper.others:
            self.links.pop(path, None)
        for path in upper.directories | upper.links.keys():
            self.files.pop(path, None)
        for path in upper.directories | upper.links.keys() | upper.others:
            self.programs.pop(path, None)
        self.programs |= upper.programs
        self.directories |= upper.directories
        self.links |= upper.links
        self.files |= upper.files
        # A tar may leave out the directories on the way to a file; they are there all the same.
        own = (*upper.directories, *upper.links, *upper.others)
        parents = {parent for path in own for parent in _parents(path)}
        self.directories |= parents - self.links.keys()


def _facts(tree: _Tree) -> RootFilesystem:
    texts = {path: content.decode("utf-8", "replace") for path, content in tree.files.items()}
    facts = RootFilesystem(
        os_release=_assignments(texts.get("usr/lib/os-release") or texts.get("etc/os-release", "")),
        status=_status(texts),
        sources=_named(texts, "etc/apt/sources.list"),
        preferences=_named(texts, "etc/apt/preferences"),
        keyrings=_keyrings(tree.files, texts),
        alternatives={
            path.rpartition("/")[2]: texts[path]
            for path in sorted(texts)
            if path.startswith("var/lib/dpkg/alternatives/")
        },
        directories=frozenset(tree.directories),
        links=tree.links,
    )
    facts = _with_links_to_directories(facts)
    configured = _named(texts, "etc/ld.so.conf").values()
    runs = userland_of(release_of(facts), tree.programs, tree.links, facts.links, configured)
    return replace(facts, userland=runs)


def _is_program(path: str, member: tarfile.TarInfo) -> bool:
    """Tell whether a file can be run or is a shared library that a loader may be."""
    executable = bool(member.mode & 0o111) or ".so" in path.rpartition("/")[2]
    return executable and (member.isreg() or member.islnk())


def _note(path: str, member: tarfile.TarInfo, archive: tarfile.TarFile) -> Note:
    """Read what there is to know of an interpreter or the C library; of others, nothing."""
    if not member.isreg() or member.size > _LIMIT or not (is_libc(path) or is_python(path)):
        return Note()
    content = archive.extractfile(member)
    return noted(path, content.read()) if content else Note()


def _with_links_to_directories(facts: RootFilesystem) -> RootFilesystem:
    """Drop the links that lead to files: a package may replace those."""
    kept = {}
    for path, target in sorted(facts.links.items()):
        try:
            leads_to_directory = facts.resolve(path) in facts.directories
        except ImageError:
            continue
        if leads_to_directory:
            kept[path] = target
    return replace(facts, links=kept)


def _status(texts: dict[str, str]) -> str:
    """Give the status file of dpkg, or that of images without dpkg: one file for each package."""
    if status := texts.get("var/lib/dpkg/status", "").strip():
        return f"{status}\n"
    stanzas = []
    for path in sorted(texts):
        if path.startswith("var/lib/dpkg/status.d/"):
            stanza = texts[path].strip()
            if "\nStatus:" not in stanza:
                stanza = stanza.replace("\n", "\nStatus: install ok installed\n", 1)
            stanzas.append(stanza)
    return "\n\n".join(stanzas) + "\n" if stanzas else ""


def _keyrings(files: dict[str, bytes], texts: dict[str, str]) -> dict[str, bytes]:
    """Give the keyrings that sources name, that apt always trusts, and the distribution's own."""
    sources = "".join(_named(texts, "etc/apt/sources.list").values())
    return {
        f"/{path}": files[path]
        for path in sorted(files)
        if path.startswith(_KEYRINGS) and (f"/{path}" in sources or _TRUSTED.fullmatch(path))
    }


def _named(texts: dict[str, str], prefix: str) -> dict[str, str]:
    return {
        path.rpartition("/")[2]: texts[path]
        for path in sorted(texts)
        if path == prefix or path.startswith(f"{prefix}.d/")
    }


def _assignments(text: str) -> dict[str, str]:
    found = re.findall(r"""^([A-Z_]+)=["']?(.*?)["']?$""", text, re.MULTILINE)
    return dict(found)


def _parents(path: str) -> Iterator[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def _nested(paths: frozenset[str]) -> dict[str, Any]:
    """Directories as a tree, which repeats no prefix."""
    root: dict[str, Any] = {}
    for path in sorted(paths):
        node = root
        for part in path.split("/"):
            node = node.setdefault(part, {})
    return root


def _flat(node: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, below in node.items():
        yield f"{prefix}{name}"
        yield from _flat(below, f"{prefix}{name}/")


# --- reading layers ------------------------------------------------------------------------------


def _opened(layer: Layer, blobs: BlobSource) -> tarfile.TarFile:
    what = f"The base image's layer {layer.digest}"
    plain = decompressed(blobs.open_blob(layer.descriptor), what)
    packed = io.BufferedReader(ChunkReader(plain), 1 << 20)
    try:
        return tarfile.open(fileobj=packed, mode="r|", bufsize=1 << 20, tarinfo=_Header)
    except _DAMAGES as error:
        raise _damaged(layer, error) from error


class _Header(tarfile.TarInfo):
    """A header that is read into memory only if it is no absurdly long one."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in _LONG_HEADERS and self.size > _HEADER_LIMIT:
            raise tarfile.ReadError("a header in it has an absurd size")
        found: tarfile.TarInfo = super()._proc_member(archive)  # type: ignore[misc]
        return found


def _members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Give the members one by one, without tarfile's growing list of them."""
    for _ in range(_MOST_MEMBERS):
        member = archive.next()
        if member is None:
            return
        yield member
        archive.members = []  # type: ignore[attr-defined]
    raise ValueError(f"it has more than {_MOST_MEMBERS} members")


def _damaged(layer: Layer, error: Exception) -> ImageError:
    return ImageError(
        f"The base image's layer {layer.digest} cannot be read: {one_line(error)}.",
        hint="Fetch the base image again, or choose another one.",
    )
