"""Archives that anybody can have made, unpacked with limits on everything."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from kfp_bento.runtime.bentos.archive_tree import Allowance, Tree, refused
from kfp_bento.runtime.errors import BentoError
from kfp_bento.runtime.files import ChunkReader, open_plain_file

_CHUNK = 1 << 20
# Extended headers hold long names; Python reads them whole, whatever they claim, and may hold a
# thousand of them at once.
_LARGEST_HEADER = 64 << 10
_XZ_MEMORY = 256 << 20
_MOST_LISTING = 64 << 20
_LONGEST_LINK = 4096
_ZERO = bytes(512)
_STARTS = (b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00")
_TAR_MAGIC_END = 262


def is_archive(file: Path) -> bool:
    """Say whether a file begins as one of the archives that `unpack` takes.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no regular file.
    """
    with open_plain_file(file) as raw:
        start = raw.read(_TAR_MAGIC_END)
    return start.startswith(_STARTS) or start[257:_TAR_MAGIC_END] == b"ustar"


def unpack(archive: Path, into: Path) -> None:
    """Unpack a tar, plain or compressed by gzip, xz or bzip2, or a zip; its first bytes say which.

    Args:
        archive: The file.
        into: An empty directory.

    Raises:
        BentoError: It is damaged, or holds what no bento needs: names outside or twice, links
            that lead out, hard links, devices, encrypted or oddly compressed files, more members
            or more bytes than make sense.
        OSError: It cannot be read, or the disk not be written.
        ValueError: It is no regular file.
    """
    tree = Tree(into, Allowance(archive.stat().st_size, shutil.disk_usage(into).free))
    try:
        with open_plain_file(archive) as raw:
            start = raw.read(6)
            raw.seek(0)
            if start[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
                _unzip(raw, tree)
            else:
                _untar(_expanded(raw, start), tree)
        tree.finish()
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError) as failure:
        raise _damaged(archive, failure) from failure
    except (EOFError, RecursionError, NotImplementedError, struct.error) as failure:
        raise _damaged(archive, failure) from failure
    except gzip.BadGzipFile as failure:
        raise _damaged(archive, failure) from failure
    except OSError as failure:
        if failure.errno is None:  # bz2 says so of damaged data
            raise _damaged(archive, failure) from failure
        raise


def _expanded(raw: IO[bytes], start: bytes) -> Any:
    if start[:2] == b"\x1f\x8b":
        return gzip.GzipFile(fileobj=raw)
    if start[:3] == b"BZh":
        return bz2.BZ2File(raw)
    if start == b"\xfd7zXZ\x00":
        return io.BufferedReader(ChunkReader(_from_xz(raw)), _CHUNK)
    return raw


def _from_xz(raw: IO[bytes]) -> Iterator[bytes]:
    """Give what xz packed, all of its streams; its dictionary may not be as large as it likes."""
    waiting = raw.read(_CHUNK)
    while waiting:
        decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
        while not decoder.eof:
            if not waiting and decoder.needs_input:
                raise EOFError("it ends too early")
            piece = decoder.decompress(waiting, _CHUNK)
            if piece:
                yield piece
            waiting = raw.read(_CHUNK) if decoder.needs_input and not decoder.eof else b""
        waiting = decoder.unused_data.lstrip(b"\0")
        while not waiting and (more := raw.read(_CHUNK)):
            waiting = more.lstrip(b"\0")


class _TarBytes:
    """A stream as `tarfile` wants it: read forward only, counted, no header larger than allowed."""

    def __init__(self, stream: IO[bytes], allowance: Allowance) -> None:
        self._stream, self._allowance = stream, allowance
        self._at = 0
        self.last = b""

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _LARGEST_HEADER:
            raise refused("a header", "claims an absurd size")
        return self.content(size)

    def content(self, size: int) -> bytes:
        pieces, left = [], size
        while left and (piece := self._stream.read(left)):
            pieces.append(piece)
            left -= len(piece)
        self.last = b"".join(pieces)
        self._at += len(self.last)
        self._allowance.take(len(self.last), "what it holds")
        return self.last

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence != io.SEEK_SET or offset < self._at:
            raise refused("a header", "points backwards")
        while self._at < offset and self.content(min(offset - self._at, _CHUNK)):
            pass
        return self._at


def _untar(stream: IO[bytes], tree: Tree) -> None:
    source = _TarBytes(stream, tree.allowance)
    file: Any = source
    with tarfile.open(fileobj=file, mode="r:", errorlevel=2) as opened:
        tar: Any = opened  # typeshed does not know its list of members
        while (member := tar.next()) is not None:
            _put(member, source, tree)
            tar.members.clear()  # with all their headers
    # tarfile takes damage and the end of the file for the end of the archive.
    if source.last != _ZERO:
        raise EOFError("it ends too early, or a header is damaged")
    while piece := source.content(_CHUNK):
        if piece.strip(b"\0"):
            raise refused("something", "comes after its end, which other programs would unpack")


def _put(member: tarfile.TarInfo, source: _TarBytes, tree: Tree) -> None:
    if member.isdir():
        tree.folder(member.name)
    elif member.issym():
        tree.link(member.name, member.linkname)
    elif member.islnk():
        raise refused(member.name, "is a hard link")
    elif member.issparse():
        raise refused(member.name, "is a sparse file")
    elif member.isreg():
        tree.file(member.name, _content(member, source), member.size, member.mode)
    else:
        raise refused(member.name, "is a device, a pipe or nothing known")


def _content(member: tarfile.TarInfo, source: _TarBytes) -> Iterator[bytes]:
    left = member.size
    while left:
        piece = source.content(min(left, _CHUNK))
        if not piece:
            raise EOFError(f"{member.name} ends too early")
        left -= len(piece)
        yield piece


def _unzip(raw: IO[bytes], tree: Tree) -> None:
    _require_short_listing(raw)
    with zipfile.ZipFile(raw) as zipped:
        for member in zipped.infolist():
            # As it stands there: zipfile ends names at a NUL.
            name, mode = member.orig_filename, member.external_attr >> 16
            if member.flag_bits & 0x1:
                raise refused(name, "is encrypted")
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
                raise refused(name, "is a device, a pipe or nothing known")
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise refused(name, "is compressed by a method that bentos do not use")
            if stat.S_ISLNK(mode):
                if member.file_size > _LONGEST_LINK:
                    raise refused(name, "is a link to an absurdly long name")
                tree.link(name, b"".join(_zipped(zipped, member, tree)).decode())
            elif name.endswith("/"):
                tree.folder(name)
            else:
                tree.file(name, _zipped(zipped, member, tree), member.file_size, mode)


def _zipped(zipped: zipfile.ZipFile, member: zipfile.ZipInfo, tree: Tree) -> Iterator[bytes]:
    with zipped.open(member) as content:
        while piece := content.read(_CHUNK):
            tree.allowance.take(len(piece), member.filename)
            yield piece


def _require_short_listing(raw: IO[bytes]) -> None:
    """Look how long a zip's list of members is: Python reads all of it into memory."""
    size = raw.seek(0, io.SEEK_END)
    raw.seek(max(0, size - 65_557))  # the record at the end, and the longest comment
    tail = raw.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) < at + 22:
        raise zipfile.BadZipFile("it has no list of members")
    (length,) = struct.unpack("<L", tail[at + 12 : at + 16])
    if length == 0xFFFFFFFF:
        record = tail.rfind(b"PK\x06\x06", 0, at)
        if record < 0:
            raise zipfile.BadZipFile("its list of members is damaged")
        (length,) = struct.unpack("<Q", tail[record + 40 : record + 48])
    if length > _MOST_LISTING:
        raise refused("the list of members", f"is {length} bytes long, which is absurd")
    raw.seek(0)


def _damaged(archive: Path, failure: BaseException) -> BentoError:
    said = str(failure) or type(failure).__name__
    return BentoError(
        f"{archive.name} is no archive that is known, or is damaged: {said.rstrip('.')}.",
        hint="Known are .bento, tar, tar.gz, tar.xz, tar.bz2 and zip.",
    )
