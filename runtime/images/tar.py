"""A tar stream that depends on content only: the same tree gives the same bytes anywhere.

The rules (order, owners, modes, times, what is refused) are those of layers in the OCI image
specification, ``layer.md``, and those that make a layer reproducible.
"""

# Paths are bytes here, so that no locale has a say in what a name is.
# ruff: noqa: PTH115, PTH116, PTH118, PTH120

from __future__ import annotations

import contextlib
import os
import stat
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kfp_bento.runtime.errors import ImageError, InvalidInput

# 1980-01-01, the earliest date that a zip file can hold: older ones upset some programs.
DEFAULT_EPOCH = 315532800
CHUNK = 1 << 20
_RECORD = 20 * 512


@dataclass(frozen=True, slots=True)
class TarEntry:
    """One member of a layer.

    Attributes:
        path: Relative path in the image, UTF-8 with surrogate escapes, no leading slash.
        kind: What it is.
        mode: Permission bits.
        owner: Numeric user and group.
        size: Bytes of the content, for a file.
        file: Where the content is read from, or
        content: the content itself.
        target: Where a symlink points; for a hard link, the path of a file that sorts before it.
    """

    path: str
    kind: Literal["file", "directory", "symlink", "hardlink"]
    mode: int = 0o755
    owner: int = 0
    size: int = 0
    file: bytes | None = None
    content: bytes | None = None
    target: str = ""


def source_date_epoch() -> int:
    """Seconds for every timestamp: ``SOURCE_DATE_EPOCH`` where set, else 1980-01-01.

    Raises:
        InvalidInput: The variable holds no whole, non-negative number.
    """
    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not text:
        return DEFAULT_EPOCH
    if not (text.isascii() and text.isdigit()):
        raise InvalidInput(
            f"SOURCE_DATE_EPOCH is '{text}', not a number of seconds.",
            hint="Unset it, or set it to seconds since 1970-01-01 UTC.",
        )
    return int(text)


def directory_entry(path: str, owner: int = 0, mode: int = 0o755) -> TarEntry:
    """A directory."""
    return TarEntry(path=path, kind="directory", mode=mode, owner=owner)


def symlink_entry(path: str, target: str, owner: int = 0) -> TarEntry:
    """A symbolic link."""
    return TarEntry(path=path, kind="symlink", mode=0o777, owner=owner, target=target)


def content_entry(path: str, content: bytes, owner: int = 0, mode: int = 0o644) -> TarEntry:
    """A small file whose content is at hand."""
    return TarEntry(
        path=path, kind="file", mode=mode, owner=owner, size=len(content), content=content
    )


def file_entry(
    path: str, file: bytes, *, owner: int = 0, executable: bool | None = None
) -> TarEntry:
    """A file read from disk, links followed; executable as the file is unless told otherwise."""
    status = os.stat(file)
    run = bool(status.st_mode & stat.S_IXUSR) if executable is None else executable
    mode = 0o755 if run else 0o644
    return TarEntry(path=path, kind="file", mode=mode, owner=owner, size=status.st_size, file=file)


def walk_tree(
    root: Path,
    prefix: str,
    *,
    owner: int = 0,
    boundary: Path | None = None,
    skip: Callable[[str], bool] = lambda path: False,
) -> Iterator[TarEntry]:
    """Lists a directory as layer members below ``prefix``, ``prefix`` itself included.

    Args:
        root: The directory.
        prefix: Where it lies in the image.
        owner: Numeric user and group of everything.
        boundary: The directory that symlinks may not leave; ``root`` if not given.
        skip: Given the path relative to ``root``, says whether to leave it out, with all below.

    Raises:
        ImageError: The tree holds something that no image may hold: a device, socket or pipe,
            a ``.wh.`` name, a setuid or setgid file, or a symlink that leaves the boundary.
    """
    limit = os.path.realpath(os.fsencode(boundary or root))
    yield directory_entry(prefix, owner)
    yield from _walk(os.fsencode(root), "", prefix, owner, limit, skip)


def _walk(
    directory: bytes,
    inside: str,
    prefix: str,
    owner: int,
    limit: bytes,
    skip: Callable[[str], bool],
) -> Iterator[TarEntry]:
    with _reading(directory), os.scandir(directory) as listing:
        found = sorted(listing, key=lambda item: item.name)
    for item in found:
        name = item.name.decode("utf-8", "surrogateescape")
        relative = f"{inside}/{name}" if inside else name
        if skip(relative):
            continue
        path = f"{prefix}/{relative}"
        with _reading(item.path):
            status = item.stat(follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            yield directory_entry(path, owner)
            yield from _walk(item.path, relative, prefix, owner, limit, skip)
        elif stat.S_ISLNK(status.st_mode):
            yield symlink_entry(path, _checked_target(item.path, limit), owner)
        else:
            yield _regular(item.path, path, owner, status)


def _regular(file: bytes, path: str, owner: int, status: os.stat_result) -> TarEntry:
    if not stat.S_ISREG(status.st_mode):
        raise _refused(file, "is a device, socket or pipe")
    if status.st_mode & (stat.S_ISUID | stat.S_ISGID):
        raise _refused(file, "has a setuid or setgid bit")
    mode = 0o755 if status.st_mode & stat.S_IXUSR else 0o644
    return TarEntry(path=path, kind="file", mode=mode, owner=owner, size=status.st_size, file=file)


def _checked_target(link: bytes, limit: bytes) -> str:
    target = os.readlink(link)
    # Both readings must stay inside: the container may lack what the link passes through here.
    literal = os.path.normpath(os.path.join(os.path.realpath(os.path.dirname(link)), target))
    for reached in (literal, os.path.realpath(link)):
        if target.startswith(b"/") or not (reached + b"/").startswith(limit + b"/"):
            shown = target.decode("utf-8", "replace")
            raise _refused(link, f"is a symlink that leaves the tree (to '{shown}')")
    return target.decode("utf-8", "surrogateescape")


class InOrder:
    """Entries that come in the order of a tar already: the last may not exist yet.

    Args:
        entries: In the order of their paths' bytes.
    """

    def __init__(self, entries: Iterable[TarEntry]) -> None:
        self._entries = entries

    def __iter__(self) -> Iterator[TarEntry]:
        return iter(self._entries)


def tar_stream(entries: Iterable[TarEntry], epoch: int) -> Iterator[bytes]:
    """Writes the entries as a tar in chunks of about a mebibyte.

    Files are read once, when their turn comes. Order is that of the paths' bytes; entries that
    are `InOrder` are written as they come.

    Raises:
        ImageError: Two entries share a path, a path leaves the root or has a whiteout name, or
            a file is not what it was when it was listed.
    """
    keyed: Iterator[tuple[bytes, TarEntry]] = ((_path_bytes(entry), entry) for entry in entries)
    if not isinstance(entries, InOrder):
        keyed = iter(sorted(keyed, key=lambda pair: pair[0]))
    buffer = bytearray()
    total = 0
    before = b""
    for path, entry in keyed:
        if path < before:
            raise ValueError(f"{entry.path} comes too late in a layer")
        if path == before:
            raise ImageError(f"A layer would hold '{entry.path}' twice.")
        before = path
        if entry.kind == "hardlink" and entry.target.encode("utf-8", "surrogateescape") >= path:
            raise ImageError(f"The hard link '{entry.path}' would come before what it links to.")
        for piece in _member(entry, epoch):
            buffer += piece
            if len(buffer) >= CHUNK:
                total += len(buffer)
                yield bytes(buffer)
                buffer.clear()
    total += len(buffer) + 1024
    yield bytes(buffer) + bytes(1024 + -total % _RECORD)


def tar_size(entries: Iterable[TarEntry], epoch: int) -> int:
    """Bytes of the tar that `tar_stream` makes of the entries, without reading a file."""
    total = 1024
    for entry in entries:
        total += len(_header(entry, epoch))
        if entry.kind == "file":
            total += entry.size + -entry.size % 512
    return total + -total % _RECORD


def _path_bytes(entry: TarEntry) -> bytes:
    parts = entry.path.split("/")
    if "" in parts or "." in parts or ".." in parts:
        raise ImageError(f"'{entry.path}' is no path inside an image.")
    if any(part.startswith(".wh.") for part in parts):
        raise ImageError(
            f"'{entry.path}' cannot be put into an image: '.wh.' names stand for deleted files.",
            hint="Rename it.",
        )
    return entry.path.encode("utf-8", "surrogateescape")


def _member(entry: TarEntry, epoch: int) -> Iterator[bytes]:
    yield _header(entry, epoch)
    if entry.kind != "file":
        return
    if entry.content is not None:
        yield entry.content
    else:
        yield from _file_chunks(entry)
    yield bytes(-entry.size % 512)


def _header(entry: TarEntry, epoch: int) -> bytes:
    info = tarfile.TarInfo(entry.path)
    info.type = {
        "file": tarfile.REGTYPE,
        "directory": tarfile.DIRTYPE,
        "symlink": tarfile.SYMTYPE,
        "hardlink": tarfile.LNKTYPE,
    }[entry.kind]
    info.mode = entry.mode
    info.uid = info.gid = entry.owner
    info.mtime = epoch
    info.size = entry.size
    info.linkname = entry.target
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _file_chunks(entry: TarEntry) -> Iterator[bytes]:
    assert entry.file is not None  # noqa: S101
    with _reading(entry.file):
        handle = os.open(entry.file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        left = entry.size
        while left:
            with _reading(entry.file):
                piece = os.read(handle, min(left, CHUNK))
            if not piece:
                raise _changed(entry.file)
            left -= len(piece)
            yield piece
        if os.fstat(handle).st_size != entry.size:
            raise _changed(entry.file)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _reading(file: bytes) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ImageError(f"'{_shown(file)}' cannot be read: {error.strerror}.") from error


def _changed(file: bytes) -> ImageError:
    return ImageError(
        f"'{_shown(file)}' changed while it was being read.",
        hint="Let nothing write to the directory while the image is built.",
    )


def _refused(file: bytes, why: str) -> ImageError:
    return ImageError(
        f"'{_shown(file)}' cannot be put into an image: it {why}.",
        hint="Remove it, or replace it with a plain file.",
    )


def _shown(file: bytes) -> str:
    return file.decode("utf-8", "replace")
