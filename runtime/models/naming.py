"""Names that BentoML, Kubernetes labels and folders take, from registered names of any script."""

from __future__ import annotations

import re
import unicodedata

LONGEST_TAG = 63
"""Longest name in a tag: BentoML's own limit, and that of a Kubernetes label value."""

_TAG = re.compile(r"[a-z0-9]([-._a-z0-9]*[a-z0-9])?")
_LOGGED_MODEL = re.compile(r"m-[0-9a-f]{32}")


def is_tag_name(name: str) -> bool:
    """Say whether BentoML and Kubernetes labels take the name as it is."""
    return len(name) <= LONGEST_TAG and _TAG.fullmatch(name) is not None


def tag_name(name: str) -> str:
    """Give the nearest name that BentoML and Kubernetes labels take, or "model"."""
    safe = re.sub(r"[^a-z0-9_.]+", "-", ascii_text(name).lower())
    safe = safe.strip("-_.")[:LONGEST_TAG].rstrip("-_.")
    return safe or "model"


def default_name(name: str, uri: str, model_id: str) -> str:
    """Give a model's name in a bento where nobody chose one.

    Args:
        name: Registered name, or "".
        uri: What was asked for; its end names a model that is not registered.
        model_id: The LoggedModel, or "".
    """
    if name:
        return tag_name(name)
    last = uri.rstrip("/").rpartition("/")[2].partition("@")[0]
    return "model" if last == model_id or _LOGGED_MODEL.fullmatch(last) else tag_name(last)


def ascii_text(text: str) -> str:
    """Give a text's ASCII letters, those with accents without them."""
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii")
