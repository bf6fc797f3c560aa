"""Numbers, sizes, times and digests as people read them."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

_Item = TypeVar("_Item")
_DIGEST = re.compile(r"(sha256:[0-9a-f]{12})[0-9a-f]+")


def human_bytes(size: float) -> str:
    """Give a number of bytes in the largest binary unit that leaves it at 1 or more."""
    if size < 1024:
        return f"{size:.0f} bytes" if size != 1 else "1 byte"
    number = float(size)
    for unit in ("KiB", "MiB", "GiB"):
        number /= 1024
        # Decided on the rounded number: 1023.97 KiB would show as 1024.0 KiB.
        if round(number, 1) < 1024:
            return f"{number:.1f} {unit}"
    return f"{number / 1024:.1f} TiB"


def human_seconds(seconds: float) -> str:
    """Give a duration: seconds with one decimal, from 90 s on minutes and seconds."""
    if seconds < 89.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def shorten_digests(digest: str) -> str:
    """Give the algorithm and the first 12 digits of every digest in a text."""
    return _DIGEST.sub(r"\1", digest)


def counted(number: int, noun: str) -> str:
    """Give a number with its noun, in the plural unless it is 1."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def listed(words: Iterable[str]) -> str:
    """Give words as a list in a sentence: one, two and three."""
    *before, last = words
    return f"{', '.join(before)} and {last}" if before else last


def shortened(titles: Sequence[str], most: int = 3) -> str:
    """Give titles as far as a line of a table holds them: one, two, three and 40 more."""
    if len(titles) <= most + 1:
        return listed(titles)
    return f"{', '.join(titles[:most])} and {len(titles) - most} more"


def gathered(items: Iterable[_Item], sign: Callable[[_Item], Hashable]) -> list[list[_Item]]:
    """Group items that have the same sign, each group in the place of its first one.

    Args:
        items: What there is.
        sign: What items of one group have in common; None for one that stays alone.
    """
    groups: dict[Hashable, list[_Item]] = {}
    for number, item in enumerate(items):
        found = sign(item)
        groups.setdefault(("alone", number) if found is None else ("sign", found), []).append(item)
    return list(groups.values())


def measure(name: str, value: Any) -> tuple[str, str]:
    """Give a measure's label and its value with the unit that its name carries."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return _label(name), str(value)
    if name.startswith("seconds_to_"):
        return _label(name.removeprefix("seconds_")), human_seconds(value)
    if name == "seconds":
        return _label(name), human_seconds(value)
    for ending, unit in (("_ms", "ms"), ("_seconds", "s")):
        if name.endswith(ending):
            return _label(name.removesuffix(ending)), f"{value:.1f} {unit}"
    whole = value == int(value) or abs(value) >= 1000
    return _label(name), f"{value:,.0f}" if whole else f"{value:.3g}"


def measures(values: Mapping[str, Any]) -> dict[str, str]:
    """Give labels and readable values of measures; see `measure`."""
    return dict(measure(name, value) for name, value in values.items())


def _label(name: str) -> str:
    words = name.replace("_", " ").replace("max abs ", "largest absolute ")
    words = words.replace("max rel ", "largest relative ").replace("to ready", "time to ready")
    return words[:1].upper() + words[1:]
