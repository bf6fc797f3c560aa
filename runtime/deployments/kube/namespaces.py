"""The namespace that is meant where none is named."""

from __future__ import annotations

from pathlib import Path

_OWN = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_LONGEST = 63


def own_namespace(given: str) -> str:
    """Give a namespace; empty is that of the pod that this runs in, and `default` elsewhere.

    A step of a pipeline runs where its user has rights, which `default` hardly ever is.
    """
    if given:
        return given
    try:
        return _OWN.read_text(encoding="ascii")[:_LONGEST].strip() or "default"
    except (OSError, ValueError):
        return "default"
