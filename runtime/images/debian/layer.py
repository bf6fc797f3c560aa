"""The layer of Debian packages: files of unpacked packages, as members of a tar.

What dpkg would do beyond unpacking is done here where it is known what that is (alternatives,
`known_scripts.KNOWN`), and is an error otherwise. Left out are man pages, translations of
them, and documentation but for the copyright file. The packages are recorded in
`/var/lib/dpkg/status.d`, as distroless images do, where scanners look.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING

from kfp_bento.runtime.errors import ImageError
from kfp_bento.runtime.images.debian.deb import control_files, data_members
from kfp_bento.runtime.images.debian.known_scripts import KNOWN, NEEDED, Known
from kfp_bento.runtime.images.debian.maintainer_script import (
    Alternative,
    UnclearError,
    script_effects,
)
from kfp_bento.runtime.images.debian.packages import DebianPackage, SystemPackages, fetch_packages
from kfp_bento.runtime.images.oci.blobs import storage_errors
from kfp_bento.runtime.images.oci.tar import (
    CHUNK,
    TarEntry,
    content_entry,
    directory_entry,
    symlink_entry,
)

if TYPE_CHECKING:
    from kfp_bento.runtime.images.debian.rootfs import RootFilesystem

_LEFT_OUT = tuple(f"usr/share/{name}/" for name in ("man", "info", "lintian", "doc-base", "bug"))
_RECORDS = "var/lib/dpkg/status.d"
_SCRIPTS = ("preinst", "postinst")
_LOADER = "etc/ld.so.conf"


def package_entries(
    chosen: SystemPackages,
    facts: RootFilesystem,
    scratch: Path,
    progress: Callable[[str], None] | None = None,
) -> list[TarEntry]:
    """Fetch and unpack packages, and list their files as members of one layer.

    Args:
        chosen: What `resolve_packages` gave for this base.
        facts: What the base is made of.
        scratch: An empty directory, which must stay until the layer has been written.
        progress: Told what is going on, and which scripts were left out for which reason.

    Raises:
        ImageError: A package needs its scripts (all are named), is hostile or damaged, collides
            with another or with the base, or cannot be fetched.
    """
    tell = progress or (lambda sentence: None)
    size = sum(package.size for package in chosen.packages)
    tell(f"fetching {len(chosen.packages)} system packages ({size / 1e6:.1f} MB)")
    files = fetch_packages(chosen, facts, scratch)
    return unpack_packages(files, facts, scratch, tell)


def unpack_packages(
    files: Mapping[DebianPackage, Path],
    facts: RootFilesystem,
    scratch: Path,
    progress: Callable[[str], None],
) -> list[TarEntry]:
    """Do what `package_entries` does, with packages that are at hand.

    Raises:
        ImageError: As `package_entries`.
    """
    tree = _Tree(facts, scratch)
    alternatives: list[Alternative] = []
    refused: list[str] = []
    for package, deb in files.items():
        name, control = package.name, control_files(deb)
        tree.unpack(name, deb)
        tree.record(name, control)
        scripts = [script for script in _SCRIPTS if script in control]
        if known := KNOWN.get(name):
            tree.add_known(name, known)
            alternatives += known.alternatives
            for script in scripts:
                progress(f"{name}: its {script} script was not run: {known.reason}")
            continue
        for script in scripts:
            try:
                alternatives += script_effects(control[script].decode("utf-8", "replace"))
            except UnclearError as error:
                why = NEEDED.get(name, str(error))
                refused.append(f"{name}: its {script} script must run: {why}")
    for name in dict.fromkeys(tree.owners[path] for path in tree.found if path.startswith(_LOADER)):
        refused.append(f"{name}: it adds library directories (/{_LOADER}), so ldconfig must run")
    if refused:
        raise ImageError(
            "Debian packages need scripts to be run, which nothing here can:\n"
            + "\n".join(f"- {reason}" for reason in refused),
            hint="Use a base image that has these packages already, or put them into one once "
            "and pass that image as the base; or let the cluster build the bento (target "
            "bento-request).",
        )
    tree.add_alternatives(alternatives)
    return tree.entries()


@dataclass
class _Tree:
    """The files that come together from all packages."""

    facts: RootFilesystem
    scratch: Path
    found: dict[str, TarEntry] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    count: int = 0

    def unpack(self, name: str, deb: Path) -> None:
        """Add a package's files."""
        files: dict[str, TarEntry] = {}
        for item, content in data_members(deb):
            if not item.name or _left_out(item.name, file=item.isreg()):
                continue
            path = self._place(item.name, directory=item.isdir())
            if item.isdir():
                self._add(directory_entry(path, mode=item.mode & 0o1777), name)
            elif item.issym():
                self._add(symlink_entry(path, item.linkname), name)
            elif item.islnk():
                if item.linkname not in files:
                    raise _collision(name, item.name, "is a hard link to nothing")
                original = files[item.linkname]
                copy = TarEntry(path, "file", original.mode, 0, original.size, original.file)
                files[item.name] = copy
                self._add(copy, name)
            else:
                assert content is not None  # noqa: S101
                place = self._stored(content)
                mode = item.mode & 0o1777
                entry = TarEntry(path, "file", mode, 0, item.size, os.fsencode(place))
                files[item.name] = entry
                self._add(entry, name)

    def record(self, name: str, control: Mapping[str, bytes]) -> None:
        """Note the package where scanners look for it."""
        text = control["control"].rstrip(b"\n") + b"\n"
        self._add(content_entry(f"{_RECORDS}/{name}", text), name)
        sums = control.get("md5sums", b"")
        self._add(content_entry(f"{_RECORDS}/{name}.md5sums", sums), name)

    def add_known(self, name: str, known: Known) -> None:
        """Add what a script that is not run would have made."""
        for path, target in known.links:
            self._add(symlink_entry(self._place(path), target), name)
        for path in known.files:
            self._add(content_entry(self._place(path), b""), name)

    def add_alternatives(self, offered: Iterable[Alternative]) -> None:
        """Link every generic name to what was offered for it with the highest priority."""
        groups: dict[str, Alternative] = {}
        for item in offered:
            here = self._place(item.path.lstrip("/")) in self.found
            if here and item.priority > self._priority(item, groups.get(item.name)):
                groups[item.name] = item
        for item in groups.values():
            for link, name, path in ((item.link, item.name, item.path), *item.slaves):
                if self._place(path.lstrip("/")) in self.found and not _left_out(path.lstrip("/")):
                    choice = f"/etc/alternatives/{name}"
                    self._add(symlink_entry(self._place(choice.lstrip("/")), path), name)
                    self._add(symlink_entry(self._place(link.lstrip("/")), choice), name)

    def _priority(self, item: Alternative, other: Alternative | None) -> int:
        """Give what an alternative must exceed: the base's best, or that of another package."""
        if other is not None:
            return other.priority
        lines = self.facts.alternatives.get(item.name, "").split("\n")
        if lines[0] == "manual":
            return item.priority
        return max((int(line) for line in lines if line.isdigit()), default=-1)

    def entries(self) -> list[TarEntry]:
        """All members, with the directories that neither the base nor a package has."""
        for path in list(self.found):
            parent = path
            while "/" in parent:
                parent = parent.rpartition("/")[0]
                if parent in self.facts.directories:
                    break
                if parent not in self.found:
                    self.found[parent] = directory_entry(parent)
                elif self.found[parent].kind != "directory":
                    raise _collision(self.owners[path], path, f"lies below the link '{parent}'")
        self._link_copies()
        return sorted(self.found.values(), key=lambda entry: entry.path)

    def _link_copies(self) -> None:
        """Make hard links of what was one file: drivers come under a dozen names."""
        first: dict[bytes, str] = {}
        for path in sorted(self.found, key=os.fsencode):
            entry = self.found[path]
            if entry.file is not None and first.setdefault(entry.file, path) != path:
                self.found[path] = replace(
                    entry, kind="hardlink", size=0, file=None, target=first[entry.file]
                )

    def _place(self, path: str, *, directory: bool = False) -> str:
        """Where a path is in this base: `lib/x` is `usr/lib/x` where `/usr` is merged."""
        if directory:
            return self.facts.resolve(path)
        folder, _, name = path.rpartition("/")
        return f"{self.facts.resolve(folder)}/{name}".lstrip("/")

    def _add(self, entry: TarEntry, owner: str) -> None:
        known = entry.path in self.facts.directories
        if entry.kind == "directory":
            if known or not entry.path or self._is_directory(entry.path):
                return
        elif known:
            raise _collision(owner, entry.path, "is a directory in the base image")
        if entry.path in self.found:
            raise _collision(owner, entry.path, f"is in {self.owners[entry.path]} as well")
        self.found[entry.path] = entry
        self.owners[entry.path] = owner

    def _is_directory(self, path: str) -> bool:
        return path in self.found and self.found[path].kind == "directory"

    def _stored(self, content: IO[bytes]) -> Path:
        """Copy a content to a file of ours; its name is a number, whatever the package says."""
        self.count += 1
        place = self.scratch / f"file-{self.count}"
        with storage_errors(place), place.open("xb") as file:
            shutil.copyfileobj(content, file, CHUNK)
        return place


def _left_out(path: str, *, file: bool = True) -> bool:
    if path.startswith("usr/share/doc/"):
        inside = path.split("/")[4:]
        return (bool(inside) and inside != ["copyright"]) or (file and not inside)
    return f"{path}/".startswith(_LEFT_OUT)


def _collision(owner: str, path: str, why: str) -> ImageError:
    return ImageError(
        f"The Debian package {owner} cannot be put into the image: '{path}' {why}.",
        hint="Put the package into a base image with its own tools, or do without it.",
    )
