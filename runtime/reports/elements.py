"""HTML elements that escape whatever is not HTML already."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import TypeAlias

from kfp_bento.runtime.errors import plain_text

_VOID = frozenset({"br", "meta", "wbr"})


class Markup(str):
    """Text that is HTML already.

    Formatting or joining it gives a plain `str` again, which is escaped when it becomes a child.
    """

    __slots__ = ()


Child: TypeAlias = "str | int | float | Iterable[Child] | None"


def element(name: str, /, *children: Child, **attributes: str | int | None) -> Markup:
    """Give an element.

    Args:
        name: The tag name.
        children: Markup is taken as it is, other text is escaped, None is left out and iterables
            are taken item by item.
        attributes: Values are escaped, None leaves the attribute out. A trailing underscore is
            dropped and other underscores become hyphens: `class_`, `aria_label`.
    """
    opening = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(plain_text(str(value)))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Markup(f"<{name}{opening}>")
    return Markup(f"<{name}{opening}>{_content(children)}</{name}>")


def together(*children: Child) -> Markup:
    """Give several children as one."""
    return Markup(_content(children))


def _content(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, Markup):
        return child
    if isinstance(child, str | int | float):
        return escape(plain_text(str(child)))
    return "".join(_content(one) for one in child)
