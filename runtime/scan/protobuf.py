"""Protocol buffers, read as far as what matters in them, without their schemas' code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kfp_bento.runtime.scan.limits import LimitReached
from kfp_bento.runtime.scan.source import Reader

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kfp_bento.runtime.scan.limits import Budget
    from kfp_bento.runtime.scan.source import Source

_DEEPEST = 100
_LONGEST_LEAF = 4096

# onnx.proto3: which fields lead to tensors whose bytes lie in other files.
_ONNX: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "node": {5: "attribute"},
    "attribute": {
        **{5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"}
    },
    "tensor": {13: "entry"},
    "entry": {1: "=key", 2: "=value"},
}
# saved_model.proto, meta_graph.proto, graph.proto, function.proto: which operations there are.
_SAVED_MODEL: dict[str, dict[int, str]] = {
    "model": {2: "meta"},
    "meta": {2: "graph"},
    "graph": {1: "node", 2: "library"},
    "library": {1: "function"},
    "function": {3: "node"},
    "node": {2: "=op"},
}


def external_files(source: Source, budget: Budget) -> Iterator[str]:
    """Give the paths of the files that an ONNX model takes its tensors from.

    Raises:
        ValueError: It is no such model.
        LimitReached: It is nested too deeply.
    """
    pair: dict[str, str] = {}
    for leaf, text in _leaves(source, _ONNX, "model", budget, 0):
        pair[leaf] = text
        if leaf == "=entry":
            pair = {}
        elif pair.get("=key") == "location" and "=value" in pair:
            yield pair["=value"]


def operations(source: Source, budget: Budget) -> Iterator[str]:
    """Give the names of the operations in a saved model of TensorFlow.

    Raises:
        ValueError: It is no such model.
        LimitReached: It is nested too deeply.
    """
    for _, text in _leaves(source, _SAVED_MODEL, "model", budget, 0):
        yield text


def _leaves(
    source: Source, schema: Mapping[str, Mapping[int, str]], kind: str, budget: Budget, depth: int
) -> Iterator[tuple[str, str]]:
    """Give the texts that are asked for; before each message that holds some, `=<kind>`."""
    if depth > _DEEPEST:
        raise LimitReached("a protocol buffer is nested too deeply")
    known = schema[kind]
    holds_leaves = any(name.startswith("=") for name in known.values())
    if holds_leaves and len(known) > 1:
        yield f"={kind}", ""
    reader = Reader(source)
    try:
        while reader.position < source.size:
            key = _varint(reader)
            field, wire = key >> 3, key & 7
            if wire == 2:
                size = _varint(reader)
                start = reader.skip(size)
                inner = known.get(field, "")
                if inner.startswith("="):
                    content = source.read_at(start, min(size, _LONGEST_LEAF))
                    yield inner, content.decode("utf-8", "replace")
                elif inner:
                    budget.look_at_clock()
                    yield from _leaves(source.part(start, size), schema, inner, budget, depth + 1)
            elif wire == 0:
                _varint(reader)
            elif wire in (1, 5):
                reader.skip(8 if wire == 1 else 4)
            elif wire not in (3, 4):  # the brackets of groups; what is between them reads alike
                raise ValueError("it is no protocol buffer")
    except EOFError as failure:
        raise ValueError(str(failure)) from None


def _varint(reader: Reader) -> int:
    value = shift = 0
    while shift < 70:
        byte = reader.read(1)[0]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value
        shift += 7
    raise ValueError("it is no protocol buffer")
