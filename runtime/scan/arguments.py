"""The arguments of pickle's opcodes, read without making objects of what is large."""

from __future__ import annotations

import codecs
import contextlib
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from kfp_bento.runtime.scan.source import Reader

LONGEST_TEXT = 1024
"""Characters of a text that are looked at; no name of anything is longer."""
_LONGEST_LINE = 4 * LONGEST_TEXT


@dataclass(frozen=True)
class Blob:
    """Bytes that stand in a pickle: where, and how many."""

    start: int
    size: int


class Unknown:
    """A value that nobody here knows; `is_text` where it is known to be a text at least."""

    def __init__(self, *, is_text: bool = False) -> None:
        self.is_text = is_text


ANYTHING = Unknown()
SOME_TEXT = Unknown(is_text=True)


def _sized(code: str) -> Callable[[Reader], int]:
    width, signed = struct.calcsize(code), code.islower()
    name = "<" + code

    def read(reader: Reader) -> int:
        size = int(struct.unpack(name, reader.read(width))[0])
        if signed and size < 0:
            raise ValueError("a length is negative")
        return size

    return read


def _number(code: str) -> Callable[[Reader], Any]:
    width = struct.calcsize(code)
    return lambda reader: struct.unpack(code, reader.read(width))[0]


def _text(size: Callable[[Reader], int]) -> Callable[[Reader], Any]:
    def read(reader: Reader) -> Any:
        length = size(reader)
        if length > _LONGEST_LINE:
            reader.skip(length)
            return SOME_TEXT
        text = reader.read(length).decode("utf-8", "surrogatepass")
        return text if len(text) <= LONGEST_TEXT else SOME_TEXT

    return read


def _old_text(size: Callable[[Reader], int]) -> Callable[[Reader], Any]:
    """Read text of Python 2, whose encoding the loader chooses; bytes for some of them."""

    def read(reader: Reader) -> Any:
        length = size(reader)
        if length > LONGEST_TEXT:
            reader.skip(length)
            return ANYTHING
        return _ascii(reader.read(length))

    return read


def _ascii(content: bytes) -> Any:
    return content.decode("ascii") if content.isascii() else ANYTHING


def _blob(size: Callable[[Reader], int]) -> Callable[[Reader], Blob]:
    def read(reader: Reader) -> Blob:
        length = size(reader)
        return Blob(reader.skip(length), length)

    return read


def _long(size: Callable[[Reader], int]) -> Callable[[Reader], Any]:
    def read(reader: Reader) -> Any:
        length = size(reader)
        if length > _LONGEST_LINE:
            reader.skip(length)
            return ANYTHING
        return int.from_bytes(reader.read(length), "little", signed=True)

    return read


def whole_line(reader: Reader, longest: int = _LONGEST_LINE) -> bytes:
    """Read a line as Python's own unpickler does: it takes the last byte for the line feed."""
    text, whole = reader.line(longest)
    return text if whole else text[:-1]


def _line_number(reader: Reader) -> Any:
    line = whole_line(reader)
    if line in (b"00", b"01"):
        return line == b"01"
    with contextlib.suppress(ValueError):
        return int(line)
    return ANYTHING


def _line_key(reader: Reader) -> int:
    return int(whole_line(reader))


def _line_text(reader: Reader) -> Any:
    line = whole_line(reader)
    if len(line) > LONGEST_TEXT:
        return SOME_TEXT
    return line.decode("raw-unicode-escape")


def _line_quoted(reader: Reader) -> Any:
    line = whole_line(reader).strip()
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
        if len(line) < _LONGEST_LINE:
            raise ValueError("a text lacks its quotes")
        return ANYTHING
    if len(line) > LONGEST_TEXT:
        return ANYTHING
    return _ascii(codecs.escape_decode(line[1:-1])[0])


def _line_other(reader: Reader) -> Any:
    whole_line(reader)
    return ANYTHING


U1, U4, U8, I4 = _sized("B"), _sized("I"), _sized("Q"), _sized("i")

VALUES: dict[int, Callable[[Reader], Any]] = {
    ord("I"): _line_number,
    ord("J"): _number("<i"),
    ord("K"): _number("<B"),
    ord("M"): _number("<H"),
    ord("L"): _line_other,
    0x8A: _long(U1),
    0x8B: _long(I4),
    ord("F"): _line_other,
    ord("G"): _number(">d"),
    ord("S"): _line_quoted,
    ord("T"): _old_text(I4),
    ord("U"): _old_text(U1),
    ord("B"): _blob(U4),
    ord("C"): _blob(U1),
    0x8E: _blob(U8),
    0x96: _blob(U8),
    ord("V"): _line_text,
    0x8C: _text(U1),
    ord("X"): _text(U4),
    0x8D: _text(U8),
    ord("N"): lambda reader: None,
    0x88: lambda reader: True,
    0x89: lambda reader: False,
    ord("P"): _line_other,
    0x97: lambda reader: ANYTHING,
}
"""What each opcode that only pushes a value pushes."""

KEYS: dict[int, Callable[[Reader], int]] = {
    ord("g"): _line_key,
    ord("h"): U1,
    ord("j"): U4,
    ord("p"): _line_key,
    ord("q"): U1,
    ord("r"): U4,
}
"""The key in the memo, of each opcode that has one."""
