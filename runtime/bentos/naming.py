"""Names: BentoML tags from registered names, Python identifiers from column names."""

from __future__ import annotations

import builtins
import keyword
import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from kfp_bento.runtime.models import ModelVersion

LONGEST_TAG = 63
"""Longest bento name: BentoML's own limit, and that of a Kubernetes label value."""

_TAG = re.compile(r"[a-z0-9]([-._a-z0-9]*[a-z0-9])?")


def is_tag_name(name: str) -> bool:
    """Say whether BentoML and Kubernetes labels take the name as it is."""
    return len(name) <= LONGEST_TAG and _TAG.fullmatch(name) is not None


def tag_name(name: str) -> str:
    """Give the nearest name that BentoML and Kubernetes labels take, or "model"."""
    safe = re.sub(r"[^a-z0-9_.]+", "-", _ascii(name).lower())
    safe = safe.strip("-_.")[:LONGEST_TAG].rstrip("-_.")
    return safe or "model"


def model_name(model: ModelVersion) -> str:
    """Give a model's name as a tag name: the registered one, else the end of its URI."""
    if model.name:
        return tag_name(model.name)
    last = model.uri.rstrip("/").rpartition("/")[2].partition("@")[0]
    return (
        "model"
        if last == model.model_id or re.fullmatch(r"m-[0-9a-f]{32}", last)
        else tag_name(last)
    )


def class_name(text: str, suffix: str = "") -> str:
    """Give a CapWords class name, such as `WineQualityService` for "wine-quality"."""
    words = re.findall(r"[A-Za-z0-9]+", _ascii(text))
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


def _ascii(text: str) -> str:
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii")
