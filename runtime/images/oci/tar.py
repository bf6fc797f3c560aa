"""A tar stream that depends on content only: the same tree gives the same bytes anywhere.

The rules (order, owners, modes, times, what is refused) are those of layers in the OCI image
specification, `layer.md`, and those that make a layer reproducible.
"""

# Paths are bytes here, so that no locale has a say in what a name is.
# ruff: noqa: PTH115, PTH116, PTH118, PTH120

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kfp_bento.runtime.errors import ImageError, InvalidInput
from kfp_bento.runtime.images.oci.tar_header import member_header

# 1980-01-01, the earliest date that a zip file can hold: older ones upset some programs.
DEFAULT_EPOCH = 315532800
CHUNK = 1 << 20
# A sparse file can claim exbibytes; no registry takes a blob of this size.
LARGEST = 1 << 40
_RECORD = 20 * 512
# PATH_MAX and NAME_MAX of Linux: longer ones could not be unpacked.
_LONGEST_PATH, _LONGEST_NAME = 4095, 255
# O_PATH goes through directories that can be passed but not listed; only Linux has it.
_PASS = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_REPLACED = {errno.ELOOP, errno.ENOTDIR, errno.ENXIO}


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
        below: The directory that the way to `file` may not leave, through no symlink either;
            empty for a file that was chosen one by one.
    """

    path: str
    kind: Literal["file", "directory", "symlink", "hardlink"]
    mode: int = 0o755
    owner: int = 0
    size: int = 0
    file: bytes | None = None
    content: bytes | None = None
    target: str = ""
    below: bytes = b""


def source_date_epoch() -> int:
    """Seconds for every timestamp: `SOURCE_DATE_EPOCH` where set, else 1980-01-01.

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
    """Give a directory."""
    return TarEntry(path=path, kind="directory", mode=mode, owner=owner)


def symlink_entry(path: str, target: str, owner: int = 0) -> TarEntry:
    """Give a symbolic link."""
    return TarEntry(path=path, kind="symlink", mode=0o777, owner=owner, target=target)


def content_entry(path: str, content: bytes, owner: int = 0, mode: int = 0o644) -> TarEntry:
    """Give a small file whose content is at hand."""
    return TarEntry(
        path=path, kind="file", mode=mode, owner=owner, size=len(content), content=content
    )


def file_entry(
    path: str, file: bytes, *, owner: int = 0, executable: bool | None = None
) -> TarEntry:
    """Give a file read from disk, links followed; executable as the file is by default."""
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
    """List a directory as layer members below `prefix`, `prefix` itself included.

    Args:
        root: The directory.
        prefix: Where it lies in the image.
        owner: Numeric user and group of everything.
        boundary: The directory that symlinks may not leave; `root` if not given.
        skip: Given the path relative to `root`, says whether to leave it out, with all below.

    Raises:
        ImageError: The tree holds something that no image may hold: a device, socket or pipe,
            a `.wh.` name, a setuid or setgid file, a file of more than a tebibyte, a path that
            is too long, or a symlink that leaves the boundary.
    """
    top = boundary or root
    limit = os.path.realpath(os.fsencode(top))
    # Everything is opened from the boundary on, so that no symlink on the way is followed.
    start = "" if boundary is None else f"{root.relative_to(boundary).as_posix()}/"
    yield directory_entry(prefix, owner)
    above = os.fsencode(top)
    # No recursion: directories may be nested more deeply than Python can call.
    pending = [_listing(above, _raw(start.rstrip("/")), "")]
    while pending:
        relative, status = next(pending[-1], ("", None))
        if status is None:
            pending.pop()
            continue
        if skip(relative):
            continue
        path = f"{prefix}/{relative}"
        _check_path(path)
        file = above + b"/" + _raw(f"{start}{relative}")
        if stat.S_ISDIR(status.st_mode):
            yield directory_entry(path, owner)
            pending.append(_listing(above, _raw(f"{start}{relative}"), f"{relative}/"))
        elif stat.S_ISLNK(status.st_mode):
            yield symlink_entry(path, _checked_target(file, limit), owner)
        else:
            yield _regular(file, path, owner, status, above)


def _raw(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")


def _listing(top: bytes, inside: bytes, start: str) -> Iterator[tuple[str, os.stat_result]]:
    """Give what a directory holds, by name: paths that begin with `start`, and their status."""
    with _reading(top + b"/" + inside):
        handle = _open_below(top, inside, os.O_DIRECTORY)
        try:
            with os.scandir(handle) as listing:
                found = [
                    (os.fsencode(item.name), item.stat(follow_symlinks=False)) for item in listing
                ]
        finally:
            os.close(handle)
    for name, status in sorted(found, key=lambda item: item[0]):
        yield start + name.decode("utf-8", "surrogateescape"), status


def _open_below(top: bytes, inside: bytes, flags: int = 0) -> int:
    """Open what lies at a path below a directory; no symlink on the way is followed.

    Between listing and opening somebody may have put a symlink, or a pipe, in a file's place.
    """
    handle = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    *folders, last = inside.split(b"/") if inside else [b"."]
    last_flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC | flags
    for part, how in (*((folder, _PASS) for folder in folders), (last, last_flags)):
        above = handle
        try:
            handle = os.open(part, how, dir_fd=above)
        finally:
            os.close(above)
    return handle


def _regular(file: bytes, path: str, owner: int, status: os.stat_result, top: bytes) -> TarEntry:
    if not stat.S_ISREG(status.st_mode):
        raise _refused(file, "is a device, socket or pipe")
    if status.st_mode & (stat.S_ISUID | stat.S_ISGID):
        raise _refused(file, "has a setuid or setgid bit")
    if status.st_size > LARGEST:
        raise _refused(file, f"claims a size of {status.st_size} bytes, more than a tebibyte")
    mode = 0o755 if status.st_mode & stat.S_IXUSR else 0o644
    return TarEntry(path, "file", mode, owner, status.st_size, file=file, below=top)


def _checked_target(link: bytes, limit: bytes) -> str:
    with _reading(link):
        target = os.readlink(link)
    try:
        # Both readings must stay inside: the container may lack what the link passes through here.
        literal = os.path.normpath(os.path.join(os.path.realpath(os.path.dirname(link)), target))
        reached = (literal, os.path.realpath(link))
    except RecursionError:
        raise _refused(link, "is a symlink through too many others") from None
    if target.startswith(b"/") or not all((x + b"/").startswith(limit + b"/") for x in reached):
        raise _refused(link, f"is a symlink that leaves the tree (to '{_shown(target)}')")
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


def tar_stream(
    entries: Iterable[TarEntry], epoch: int, sums: dict[str, str] | None = None
) -> Iterator[bytes]:
    """Write the entries as a tar in chunks of about a mebibyte.

    Files are read once, when their turn comes. Order is that of the paths' bytes; entries that
    are `InOrder` are written, and checked, as they come.

    Args:
        entries: The members.
        epoch: Seconds since 1970 for every timestamp.
        sums: Receives the SHA-256 of each file, in hexadecimal, by its path.

    Raises:
        ImageError: Two entries share a path, a path leaves the root, has a whiteout name or goes
            through something that is no directory, or a file is not what it was when it was
            listed.
    """
    keyed: Iterable[tuple[bytes, TarEntry]]
    keyed = ((_check_path(entry.path), entry) for entry in entries)
    if isinstance(entries, InOrder):
        checked: Iterable[TarEntry] = _checked_tree(keyed)
    else:
        checked = list(_checked_tree(sorted(keyed, key=lambda pair: pair[0])))
    buffer = bytearray()
    total = 0
    for entry in checked:
        for piece in _member(entry, epoch, sums):
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
        total += len(member_header(entry, epoch))
        if entry.kind == "file":
            total += entry.size + -entry.size % 512
    return total + -total % _RECORD


def _check_path(path: str) -> bytes:
    """Give the path as bytes, if an image may hold it."""
    parts = path.split("/")
    raw = _raw(path)
    if "" in parts or "." in parts or ".." in parts or "\0" in path:
        raise ImageError(f"'{_shown(raw)}' is no path inside an image.")
    if any(part.startswith(".wh.") for part in parts):
        raise ImageError(
            f"'{_shown(raw)}' cannot be put into an image: '.wh.' names stand for deleted files.",
            hint="Rename it.",
        )
    if len(raw) > _LONGEST_PATH or max(map(len, raw.split(b"/"))) > _LONGEST_NAME:
        raise ImageError(
            f"The path '{_shown(raw[:100])}…' is too long for an image ({len(raw)} bytes).",
            hint=f"Paths have at most {_LONGEST_PATH} bytes, names {_LONGEST_NAME}.",
        )
    return raw


def _checked_tree(keyed: Iterable[tuple[bytes, TarEntry]]) -> Iterator[TarEntry]:
    """Make sure that no path comes twice, or leads through a file or a symlink.

    Only those above that the path begins with, letter by letter, are remembered: in the order of
    bytes nothing below any other one can still come.
    """
    before = b""
    others: list[bytes] = []
    for path, entry in keyed:
        if path == before:
            raise ImageError(f"A layer would hold '{_shown(path)}' twice.")
        if path < before:
            raise ValueError(f"{entry.path} comes too late in a layer")
        before = path
        while others and not path.startswith(others[-1]):
            others.pop()
        for other in others:
            if path.startswith(other + b"/"):
                raise ImageError(
                    f"A layer would hold '{_shown(path)}', but '{_shown(other)}' is no directory."
                )
        if entry.kind != "directory":
            others.append(path)
        if entry.kind == "hardlink" and _raw(entry.target) >= path:
            raise ImageError(f"The hard link '{_shown(path)}' would come before what it links to.")
        if entry.mode & (stat.S_ISUID | stat.S_ISGID):
            raise _refused(path, "has a setuid or setgid bit")
        yield entry


def _member(entry: TarEntry, epoch: int, sums: dict[str, str] | None) -> Iterator[bytes]:
    yield member_header(entry, epoch)
    if entry.kind != "file":
        return
    content = file_chunks(entry) if entry.content is None else iter([entry.content])
    yield from content if sums is None else _summed(content, entry.path, sums)
    yield bytes(-entry.size % 512)


def _summed(content: Iterator[bytes], path: str, sums: dict[str, str]) -> Iterator[bytes]:
    """Pass a file's bytes through; they are hashed while others work on them."""
    digest = hashlib.sha256()
    with ThreadPoolExecutor(max_workers=1) as aside:
        pending: Future[None] | None = None
        for piece in content:
            if pending is not None:
                pending.result()
            pending = aside.submit(digest.update, piece)
            yield piece
        if pending is not None:
            pending.result()
    sums[path] = digest.hexdigest()


def file_chunks(entry: TarEntry) -> Iterator[bytes]:
    """Give the bytes of the file that an entry is read from, on a way that no symlink can turn.

    Raises:
        ImageError: It cannot be read, or is not what it was when it was listed.
    """
    assert entry.file is not None  # noqa: S101
    with _reading(entry.file):
        handle = _open_file(entry.file, entry.below)
    try:
        _check_unchanged(handle, entry)
        left = entry.size
        while left:
            with _reading(entry.file):
                piece = os.read(handle, min(left, CHUNK))
            if not piece:
                raise changed_while_packed(entry.file)
            left -= len(piece)
            yield piece
        _check_unchanged(handle, entry)
    finally:
        os.close(handle)


def _open_file(file: bytes, below: bytes) -> int:
    if below:
        return _open_below(below, file[len(below) + 1 :])
    return os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def _check_unchanged(handle: int, entry: TarEntry) -> None:
    # Neither inode nor time: file systems behind a network change them while nobody writes.
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode) or status.st_size != entry.size:
        raise changed_while_packed(entry.file or b"")


@contextlib.contextmanager
def _reading(file: bytes) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _REPLACED:
            raise changed_while_packed(file) from error
        raise ImageError(f"'{_shown(file)}' cannot be read: {error.strerror}.") from error


def changed_while_packed(file: bytes) -> ImageError:
    """Give what to raise for a file that is not what it was when it was listed."""
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
    """Give the name for people: line breaks and control sequences show as what they are."""
    text = file.decode("utf-8", "replace")
    return "".join(x if x.isprintable() else x.encode("unicode_escape").decode() for x in text)
