"""A model's signature in words: one line for each input, output and parameter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kfp_bento.runtime.reports.json_text import one_line

_SIDES = {"inputs": "input", "outputs": "output", "params": "parameter"}


@dataclass(frozen=True)
class SignatureField:
    """One input, output or parameter: its name, its type, and what else the signature says."""

    name: str
    type: str
    role: str


def signature_fields(signature: Mapping[str, Any]) -> list[SignatureField]:
    """Give the fields of an MLflow signature, as MLflow writes it."""
    return [
        SignatureField(str(spec.get("name") or "(no name)"), _type(spec), _role(word, spec))
        for side, word in _SIDES.items()
        if isinstance(specs := signature.get(side), list | tuple)
        for spec in specs
        if isinstance(spec, Mapping)
    ]


def _role(word: str, spec: Mapping[str, Any]) -> str:
    notes = [word]
    if spec.get("required") is False:
        notes.append("optional")
    if "default" in spec:
        notes.append(f"default {one_line(spec['default'])}")
    return ", ".join(notes)


def _type(spec: Mapping[str, Any]) -> str:
    kind = str(spec.get("type") or spec.get("dtype") or "?")
    tensor = spec.get("tensor-spec")
    if isinstance(tensor, Mapping):
        shape = [one if one != -1 else "any" for one in tensor.get("shape") or ()]
        return f"tensor of {tensor.get('dtype', '?')}, shape ({', '.join(map(str, shape))})"
    for key, word in (("items", "list of"), ("values", "map to")):
        if isinstance(spec.get(key), Mapping):
            return f"{word} {_type(spec[key])}"
    if isinstance(spec.get("properties"), Mapping):
        inner = (f"{name}: {_type(one)}" for name, one in spec["properties"].items())
        return f"object ({', '.join(inner)})"
    return f"list of {kind}" if spec.get("shape") else kind
