"""Names in Python: classes from names of models, identifiers from names of columns."""

from __future__ import annotations

import builtins
import keyword
import re
import unicodedata
from typing import TYPE_CHECKING

from kfp_bento.runtime.models import ascii_text

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable


def class_name(text: str, suffix: str = "") -> str:
    """Give a CapWords class name, such as `WineQualityService` for "wine-quality"."""
    words = re.findall(r"[A-Za-z0-9]+", ascii_text(text))
    name = "".join(word[0].upper() + word[1:] for word in words) or "Model"
    return ("Model" if name[0].isdigit() else "") + name + suffix


def identifier(text: str, *, fallback: str, reserved: Collection[str] = ()) -> str:
    """Give a readable Python identifier for any text.

    Args:
        text: A column or parameter name; anything at all.
        fallback: What to use where nothing of the text can stay.
        reserved: Names that must not be used; such a name gets an underscore at its end.
    """
    words = re.sub(r"\W+", "_", unicodedata.normalize("NFKC", text)).strip("_")
    if not words:
        words = fallback
    elif not words.isidentifier():
        words = f"column_{words}" if f"column_{words}".isidentifier() else fallback
    taken = keyword.iskeyword(words) or hasattr(builtins, words) or words in reserved
    return f"{words}_" if taken or words.startswith("model_") else words


def unique(names: Iterable[str]) -> list[str]:
    """Numbers names that occur twice: a, a_2, a_3."""
    seen: set[str] = set()
    result = []
    for name in names:
        number, candidate = 2, name
        while candidate in seen:
            candidate, number = f"{name}_{number}", number + 1
        seen.add(candidate)
        result.append(candidate)
    return result
