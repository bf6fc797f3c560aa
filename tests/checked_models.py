"""Golden answers as values, of a model that is not there: checks need none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from kfp_bento.runtime.models import ModelSignature
from kfp_bento.runtime.proof.content import Content
from kfp_bento.runtime.proof.differences import Tolerance
from kfp_bento.runtime.proof.golden import MODEL, Golden, GoldenModel, GoldenRequest, with_answer

INTEGERS = ({"type": "tensor", "tensor-spec": {"dtype": "int64", "shape": [-1]}},)
COLUMNS = (
    {"type": "double", "name": "a", "required": True},
    {"type": "double", "name": "b", "required": True},
)
ROWS = ({"a": 1.0, "b": 2.0}, {"a": 3.0, "b": 4.0})
TAG = "pair:0123456789abcdef"
DIGEST = "sha256:" + "ab" * 32


def make_golden(
    value: Callable[[Any], Any] | None = lambda row: 0,
    *,
    outputs: Sequence[dict[str, Any]] = INTEGERS,
    requests: Sequence[GoldenRequest] | None = None,
    **changes: Any,
) -> Golden:
    """Two rows, together and one by one, and `value` of each; None for no answers."""

    def request(label: str, rows: Sequence[Any], row: int | None) -> GoldenRequest:
        body = Content.json({"inputs": list(rows)})
        asked = GoldenRequest(
            label, "input example", content=body, model=TAG, rows=len(rows), row=row
        )
        if value is None:
            return asked
        return with_answer(asked, 200, Content.json([value(one) for one in rows]), MODEL)

    signature = ModelSignature.from_dict({"inputs": list(COLUMNS), "outputs": list(outputs)})
    made = [request("all rows", ROWS, None)]
    made += [request(f"row {index}", [row], index) for index, row in enumerate(ROWS)]
    facts: dict[str, Any] = {
        "bento": TAG,
        "models": (GoldenModel(TAG, "models:/pair/1", "1", DIGEST, signature),),
        "requests": tuple(made if requests is None else requests),
        "verified": "on" if value else "off",
        "reason": "The bento was asked." if value else "Verify is off: nobody asked.",
        "tolerance": Tolerance(1e-6, 1e-9),
    }
    return Golden(**{**facts, **changes})
