"""A bento's files as one archive: the same files give the same bytes, whenever and whoever.

What a compressor makes of them also depends on its library; the content does not.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import stat
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any

from kfp_bento.runtime.errors import BentoError
from kfp_bento.runtime.files import open_plain_file

if TYPE_CHECKING:
    from collections.abc import Iterable

# 1980-01-01, the earliest date that a zip file can hold.
_EPOCH = 315532800
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)
_CHUNK = 1 << 20
# Weights hardly compress, and higher presets take minutes for a gigabyte.
_XZ_PRESET = 1
_GZIP_LEVEL = 6


def write_archive(files: Mapping[str, Path], archive: Path, archive_format: str) -> None:
    """Write files into a new archive.

    Args:
        files: Files by their path in the archive, sorted.
        archive: The file to write.
        archive_format: One of `FORMATS` but `directory`.

    Raises:
        BentoError: A file changes while it is read.
        OSError: Something cannot be read or written.
    """
    if archive_format == "zip":
        _write_zip(files, archive)
        return
    with archive.open("wb") as raw, _compressed(raw, archive_format) as stream:
        _write_tar(files, stream)


def _compressed(raw: IO[bytes], archive_format: str) -> AbstractContextManager[Any]:
    if archive_format == "tar":
        return nullcontext(raw)
    if archive_format == "tar.gz":
        # Neither a name nor a time.
        return gzip.GzipFile("", "wb", _GZIP_LEVEL, raw, mtime=0)
    if archive_format == "tar.bz2":
        return bz2.BZ2File(raw, "wb")
    return lzma.LZMAFile(raw, "wb", preset=_XZ_PRESET)


def _write_tar(files: Mapping[str, Path], stream: IO[bytes]) -> None:
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in _with_folders(files):
            info = tarfile.TarInfo(path)
            info.mtime = _EPOCH
            if path not in files:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(info)
                continue
            with open_plain_file(files[path]) as source:
                info.size, info.mode = _described(source)
                try:
                    tar.addfile(info, source)
                except tarfile.ReadError:
                    raise _changed(path) from None
                _require_end(source, path)


def _write_zip(files: Mapping[str, Path], archive: Path) -> None:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, strict_timestamps=True) as zipped:
        for path in _with_folders(files):
            folder = path not in files
            info = zipfile.ZipInfo(f"{path}/" if folder else path, _ZIP_DATE)
            info.create_system = 3  # Unix, so that the modes below are understood
            info.compress_type = zipfile.ZIP_STORED if folder else zipfile.ZIP_DEFLATED
            if folder:
                info.external_attr = (stat.S_IFDIR | 0o755) << 16 | 0x10
                zipped.writestr(info, b"")
                continue
            with open_plain_file(files[path]) as source:
                info.file_size, mode = _described(source)
                info.external_attr = (stat.S_IFREG | mode) << 16
                large = info.file_size >= 1 << 31
                with zipped.open(info, "w", force_zip64=large) as target:
                    for piece in _exactly(source, info.file_size, path):
                        target.write(piece)


def _with_folders(files: Iterable[str]) -> list[str]:
    """Give the files and the folders they lie in, every folder before what is in it."""
    folders = {
        str(folder) for path in files for folder in PurePosixPath(path).parents if folder.parts
    }
    return sorted({*files, *folders})


def _described(source: IO[bytes]) -> tuple[int, int]:
    """Give the size, and the mode without what depends on the user."""
    status = os.fstat(source.fileno())
    return status.st_size, 0o755 if status.st_mode & stat.S_IXUSR else 0o644


def _exactly(source: IO[bytes], size: int, path: str) -> Iterator[bytes]:
    left = size
    while left:
        piece = source.read(min(left, _CHUNK))
        if not piece:
            raise _changed(path)
        left -= len(piece)
        yield piece
    _require_end(source, path)


def _require_end(source: IO[bytes], path: str) -> None:
    if source.read(1):
        raise _changed(path)


def _changed(path: str) -> BentoError:
    return BentoError(
        f"{path} changed while it was being packed.",
        hint="Let nothing write to the bento meanwhile.",
    )
