"""Reading `.deb` files: an `ar` archive of two tars (`deb(5)`), by streaming.

A package is not trusted for its shape: whatever no image may hold is an error, and no name out
of it ever becomes a name on this machine's disk.
"""

from __future__ import annotations

import io
import lzma
import posixpath
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from kfp_bento.runtime.errors import ImageError
from kfp_bento.runtime.files import ChunkReader
from kfp_bento.runtime.images.oci.decompression import decompressed
from kfp_bento.runtime.images.oci.image import one_line
from kfp_bento.runtime.images.oci.tar import CHUNK

_MAGIC = b"!<arch>\n"
_CONTROL_LIMIT = 8 << 20
_CAPABILITY = "SCHILY.xattr.security.capability"


def control_files(deb: Path) -> dict[str, bytes]:
    """Name and content of what describes the package: control, md5sums, maintainer scripts.

    Raises:
        ImageError: This is no Debian package, or it is damaged.
    """
    found = {}
    total = 0
    with _reading(deb), _member(deb, "control.tar") as archive:
        for item in _items(archive):
            total += item.size
            if total > _CONTROL_LIMIT:
                raise _refused(deb, "has far too much in its control archive")
            if item.isreg() and (content := archive.extractfile(item)) is not None:
                found[posixpath.normpath(item.name)] = content.read()
    if "control" not in found:
        raise _refused(deb, "has no control file")
    return found


def data_members(deb: Path) -> Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]:
    """Give the package's files in their order, names without leading slash or dots, and contents.

    A content must be read before the next member is asked for.

    Raises:
        ImageError: The package is damaged, or holds what no image may hold: a path or link that
            leaves the root, a device, a setuid or setgid bit, capabilities, another owner than
            root, or a `.wh.` name.
    """
    with _reading(deb), _member(deb, "data.tar") as archive:
        for item in _items(archive):
            item.name = _checked_path(deb, item.name)
            _check(deb, item)
            if item.islnk():
                item.linkname = _checked_path(deb, item.linkname)
            yield item, archive.extractfile(item) if item.isreg() else None


def _checked_path(deb: Path, name: str) -> str:
    parts = [part for part in name.split("/") if part not in {"", "."}]
    if ".." in parts or name.startswith("/"):
        raise _refused(deb, f"holds '{name}', which leaves the root")
    if any(part.startswith(".wh.") for part in parts):
        raise _refused(deb, f"holds '{name}', a name that stands for a deleted file")
    return "/".join(parts)


def _check(deb: Path, item: tarfile.TarInfo) -> None:
    if not (item.isreg() or item.isdir() or item.issym() or item.islnk()):
        raise _refused(deb, f"holds the device or pipe '{item.name}'")
    if item.mode & 0o6000 and not item.issym():
        raise _refused(deb, f"holds '{item.name}' with a setuid or setgid bit")
    if item.uid or item.gid:
        raise _refused(deb, f"holds '{item.name}', owned by {item.uid}:{item.gid} and not by root")
    if _CAPABILITY in item.pax_headers:
        raise _refused(deb, f"holds '{item.name}' with capabilities")
    if item.issym() and not item.linkname.startswith("/"):
        depth = item.name.count("/")
        for part in item.linkname.split("/"):
            depth += {"..": -1, "": 0, ".": 0}.get(part, 1)
            if depth < 0:
                raise _refused(deb, f"holds '{item.name}', a link that leaves the root")


def _items(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (item := archive.next()) is not None:
        yield item
        archive.members = []  # type: ignore[attr-defined]


@contextmanager
def _member(deb: Path, wanted: str) -> Iterator[tarfile.TarFile]:
    with deb.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise _refused(deb, "is no Debian package")
        while header := file.read(60):
            if len(header) != 60 or header[58:] != b"`\n" or not header[48:58].strip().isdigit():
                raise _refused(deb, "is damaged")
            name = header[:16].decode("ascii", "replace").strip().rstrip("/")
            size = int(header[48:58])
            if name == wanted or name.startswith(f"{wanted}."):
                plain = _unpacked(deb, name, _window(file, size))
                with tarfile.open(fileobj=plain, mode="r|") as archive:
                    yield archive
                return
            file.seek(size + size % 2, io.SEEK_CUR)
    raise _refused(deb, f"has no {wanted}")


def _window(file: IO[bytes], size: int) -> Iterator[bytes]:
    while size and (chunk := file.read(min(size, CHUNK))):
        size -= len(chunk)
        yield chunk


def _unpacked(deb: Path, name: str, packed: Iterator[bytes]) -> IO[bytes]:
    suffix = name.rpartition(".tar")[2]
    if suffix == ".xz":
        return lzma.LZMAFile(io.BufferedReader(ChunkReader(packed), CHUNK), "rb")
    if suffix not in {"", ".gz", ".zst"}:
        raise _refused(deb, f"is packed in a way that is not known here ({name})")
    plain = decompressed(packed, f"The Debian package {deb.name}")
    return io.BufferedReader(ChunkReader(plain), CHUNK)


@contextmanager
def _reading(deb: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError, lzma.LZMAError) as error:
        raise _refused(deb, f"is damaged ({error})") from error
    except OSError as error:
        raise ImageError(f"{deb.name} cannot be read: {error.strerror or error}.") from error


def _refused(deb: Path, why: str) -> ImageError:
    return ImageError(
        f"The Debian package {deb.name} cannot be put into an image: it {one_line(why, 500)}.",
        hint="Put the package into a base image with its own tools, or do without it.",
    )
