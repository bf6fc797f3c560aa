"""Markdown out of text that is to be taken literally."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from kfp_bento.runtime.errors import plain_text

_SPECIAL = re.compile(r"([\\`*_\[\]{}|~#])")
# What makes a list, or a heading of the line above, where it begins a line.
_LINE_START = re.compile(r"^(\d*)([-+=.)])")


def document(*parts: str) -> str:
    """Give a document of the parts that are not empty."""
    return "\n\n".join(part for part in parts if part) + "\n"


def facts(named: Mapping[str, str]) -> str:
    """Give names and values as a list, without the empty ones."""
    return "\n".join(f"- {name}: {value}" for name, value in named.items() if value)


def table(
    headers: Sequence[str], rows: Iterable[Sequence[str]], right: frozenset[int] = frozenset()
) -> str:
    """Give a table, or nothing for no rows.

    Args:
        headers: Texts of the head.
        rows: Cells, as many as headers.
        right: Columns of numbers, set flush right.
    """
    lines = [f"| {' | '.join(row)} |" for row in rows]
    if not lines:
        return ""
    rule = "|".join("---:" if column in right else "---" for column in range(len(headers)))
    return "\n".join([f"| {' | '.join(headers)} |", f"|{rule}|", *lines])


def literal(text: str) -> str:
    """Give text that Markdown and HTML take literally, on one line."""
    escaped = _SPECIAL.sub(r"\\\1", " ".join(plain_text(text).split()))
    escaped = _LINE_START.sub(r"\1\\\2", escaped)
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def code(text: str) -> str:
    """Give text as a code span, or nothing for nothing."""
    if not text:
        return ""
    line = " ".join(plain_text(text).split()).replace("|", "\\|")
    ticks = "`" * (_longest_run(line) + 1)
    pad = " " if "`" in line else ""
    return f"{ticks}{pad}{line}{pad}{ticks}"


def fenced(text: str, language: str = "") -> str:
    """Give text as it is, in a fence that it cannot end; nothing for nothing."""
    if not text:
        return ""
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}{language}\n{plain_text(text).rstrip()}\n{fence}"


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)
