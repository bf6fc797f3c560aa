"""Programs and shared libraries of which only the head is there, as dynamic loaders read it."""

from __future__ import annotations

import struct


def program(loader: str) -> bytes:
    """The first bytes of a program that asks for a dynamic loader."""
    name = loader.encode() + b"\0"
    return _file([(3, name)])


def shared_object(*needed: str, rpath: str = "", runpath: str = "") -> bytes:
    """A shared library that asks for others."""
    strings, entries = b"\0", []
    texts = [(1, name) for name in needed]
    texts += [(tag, path) for tag, path in ((15, rpath), (29, runpath)) if path]
    for tag, text in texts:
        entries.append((tag, len(strings)))
        strings += text.encode() + b"\0"
    # The strings are the second segment: after the head, two of its entries, and the table.
    table_size = 16 * (len(entries) + 2)
    place = 64 + 2 * 56 + table_size
    entries += [(5, ADDRESS + place), (0, 0)]
    table = b"".join(struct.pack("<QQ", *entry) for entry in entries)
    return _file([(2, table), (1, strings)])


ADDRESS = 0x400000
"""Where the file's first byte would be in memory."""


def _file(segments: list[tuple[int, bytes]]) -> bytes:
    place = 64 + 56 * len(segments)
    head = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQ", 3, 62, 1, 0, 64, 0)
    head += struct.pack("<IHHHHHH", 0, 64, 56, len(segments), 0, 0, 0)
    body = b""
    for kind, content in segments:
        start, size = place + len(body), len(content)
        head += struct.pack("<IIQQQQQQ", kind, 4, start, ADDRESS + start, 0, size, size, 1)
        body += content
    return head + body
