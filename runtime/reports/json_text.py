"""JSON for reading: broken into lines only where it would be too long for one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def one_line(value: Any) -> str:
    """Give a value as JSON on one line."""
    return json.dumps(value, ensure_ascii=False, default=str)


def readable(value: Any, *, width: int = 88, indent: str = "") -> str:
    """Give a value as JSON in which whatever fits into a line is on one."""
    line = one_line(value)
    if len(indent) + len(line) <= width or not value or not isinstance(value, Mapping | list):
        return line
    deeper = indent + "  "
    if isinstance(value, Mapping):
        items = [
            f"{one_line(str(key))}: {readable(item, width=width, indent=deeper)}"
            for key, item in value.items()
        ]
        opening, closing = "{}"
    else:
        items = [readable(item, width=width, indent=deeper) for item in value]
        opening, closing = "[]"
    return f"{opening}\n{deeper}" + f",\n{deeper}".join(items) + f"\n{indent}{closing}"
