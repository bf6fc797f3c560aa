"""What programs and shared libraries say about themselves (ELF, System V ABI, chapters 4 and 5).

Files come from base images and wheels, which are not trusted: whatever is no ELF file of a common
kind, or points outside itself, says nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

HEAD = 1 << 16
"""So many first bytes of a program hold the name of its loader."""

_PT_INTERP = 3
_LONGEST_NAME = 4096
_MOST_HEADERS = 512


def loader_of(head: bytes) -> str:
    """Give the dynamic loader that a program asks for; empty for a script or a static program.

    Args:
        head: The first `HEAD` bytes of the file.
    """
    try:
        for kind, start, size in _program_headers(head):
            if kind == _PT_INTERP and 0 < size <= _LONGEST_NAME:
                return head[start : start + size].partition(b"\0")[0].decode("ascii")
    except (struct.error, UnicodeDecodeError):
        return ""
    return ""


def _program_headers(head: bytes) -> Iterator[tuple[int, int, int]]:
    """Give type, offset and size of each segment of a 64-bit little-endian file."""
    if head[:6] != b"\x7fELF\x02\x01":
        return
    (table,) = struct.unpack_from("<Q", head, 32)
    length, count = struct.unpack_from("<HH", head, 54)
    for number in range(min(count, _MOST_HEADERS)):
        kind, _, start, _, _, size = struct.unpack_from("<IIQQQQ", head, table + number * length)
        yield kind, start, size
