"""The blocks that the report is laid out with: facts, tables, marks, code, disclosures."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kfp_bento.runtime.reports.elements import Child, Markup, element, together
from kfp_bento.runtime.reports.quantities import short_digest

_MARKS = {
    "done": "M3.5 8.5l3 3 6-7",
    "failed": "M4 4l8 8M12 4l-8 8",
    "missing": "M4 8h8",
}
_YAML_KEY = re.compile(r"^(\s*(?:- )*)([^\s#:'\"-][^:]*|\"[^\"]*\"|'[^']*')(:)(?=\s|$)(.*)$")


def mark(outcome: str) -> Markup:
    """Give the picture of an outcome; it repeats what text beside it says."""
    path = element("path", d=_MARKS[outcome])
    return element("svg", path, class_=f"mark {outcome}", viewBox="0 0 16 16", aria_hidden="true")


def badge(outcome: str, word: str) -> Markup:
    """Give an outcome as a word with its picture."""
    return element("span", mark(outcome), word, class_=f"badge {outcome}")


def code(text: Any) -> Markup:
    """Give text in a fixed-width type."""
    return element("code", str(text))


def digest(value: Any) -> Child:
    """Give a digest, or a name that ends in one, shortened; the whole is its title."""
    text = str(value or "")
    short = short_digest(text)
    return element("code", short, title=text if short != text else None) if text else None


def facts(pairs: Mapping[str, Child]) -> Markup | None:
    """Give names and values as a description list without the empty ones; None if all are."""
    told = [
        element("div", element("dt", name), element("dd", value))
        for name, value in pairs.items()
        if value not in (None, "")
    ]
    return element("dl", told, class_="facts") if told else None


def table(
    caption: str,
    headers: Sequence[str],
    rows: Iterable[Sequence[Child]],
    *,
    right: frozenset[int] = frozenset(),
    class_: str = "",
) -> Markup:
    """Give a table whose first column names its rows.

    Args:
        caption: What the table holds; also the name of its scrolling region.
        headers: Texts of the head.
        rows: Cells, as many as headers.
        right: Columns of numbers, set flush right.
        class_: Class of the table.
    """
    align = ["right" if column in right else None for column in range(len(headers))]
    head = (
        element("th", text, scope="col", class_=align[column])
        for column, text in enumerate(headers)
    )
    body = (
        element(
            "tr",
            element("th", row[0], scope="row"),
            (
                element("td", cell, class_=align[column])
                for column, cell in enumerate(row[1:], start=1)
            ),
        )
        for row in rows
    )
    grid = element(
        "table",
        element("caption", caption),
        element("thead", element("tr", head)),
        element("tbody", body),
        class_=class_ or None,
    )
    # Focusable, so that a table wider than the window can be scrolled with the keyboard.
    return element("div", grid, class_="scroll", tabindex=0, role="region", aria_label=caption)


def disclosure(title: Child, *children: Child, opened: bool = False) -> Markup:
    """Give content that opens on demand."""
    return element("details", element("summary", title), *children, open="open" if opened else None)


def listing(text: str, label: str) -> Markup:
    """Give text as it is, in a fixed-width type, scrolling where it is wide."""
    return element("pre", element("code", text), tabindex=0, role="region", aria_label=label)


def yaml_listing(text: str, label: str) -> Markup:
    """Give YAML as it is, its keys set apart."""
    lines = (together(_yaml_line(line), "\n") for line in text.rstrip().splitlines())
    return element(
        "pre", element("code", *lines), class_="yaml", tabindex=0, role="region", aria_label=label
    )


def _yaml_line(line: str) -> Child:
    found = _YAML_KEY.match(line)
    if not found:
        return line
    indent, key, colon, value = found.groups()
    return together(indent, element("b", key), colon, value)


def note(text: Child, *, warning: bool = False) -> Markup:
    """Give a remark, set apart."""
    return element("p", text, class_="note warning" if warning else "note")
