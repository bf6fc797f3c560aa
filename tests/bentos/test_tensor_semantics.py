"""What JSON becomes in a tensor: what MLflow's own server makes of it, or a refusal by place.

NumPy makes something of nearly everything; what it makes without a word (true of "x", 1 of 1.5)
the service refuses. `ON_PURPOSE` has these cells by dtype; run with `-s` to see them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import packed_models as samples
from mlflow.types import Schema, TensorSpec
from mlflow_judge import as_text, mlflow_server, proof_of

DOCS = Path(__file__).parents[2] / "docs" / "served-values.md"
NAN, INFINITY = float("nan"), float("inf")
DTYPES: dict[str, list[Any]] = {
    "bool": [True, False],
    "int32": [1, -(2**31)],
    "uint8": [0, 255],
    "float32": [0.1, 1],
    "float64": [1e300, 1],
    "str": ["x", "größe"],
    "bytes": ["/w==", "aGk=\n"],
    "object": [1, "a", None, {"b": 1}],
    "datetime64[D]": ["2024-05-06", None],
    "datetime64[ns]": ["2024-05-06T07:08:09.123456789", "NaT"],
    "timedelta64[ns]": [5, None],
    "complex64": [1, 0.5],
}
VALUES: dict[str, Any] = {
    "null": [None],
    "null in some": [1, None],
    "NaN": [NAN],
    "infinity": [INFINITY],
    "text": ["x"],
    "text in some": [1, "a"],
    "number": [1],
    "negative": [-1],
    "large": [1e39],
    "400 digits": [10**400],
    "fraction": [1.5],
    "true": [True],
    "object": [{"a": 1}],
    "one value": 1,
    "no value": [],
    "two dimensions": [[1]],
    "ragged": [[1], [2, 3]],
    "day": ["2024-05-06"],
    "moment": ["2024-05-06T07:08:09.5"],
    "zulu": ["2024-05-06T07:08:09Z"],
    "missing as text": ["NaT"],
}
NO_NUMBER = "JSON has no Infinity; a number that is too large is the caller's mistake"
NO_DATETIME = "a number is no datetime; NumPy counts from 1970 in the dtype's own units"
NO_TEXT = "text is not made of other values"
TRUE = "true is no number, and 1.5 no integer"
BASE64 = "bytes are read from base64, as MLflow writes them; its server takes the text's own bytes"
BOOLEAN = "NumPy makes a boolean of everything; here it has to be true or false"
ON_PURPOSE: dict[str, dict[str, str]] = {
    "bool": {
        BOOLEAN: "null, null in some, NaN, infinity, text, text in some, number, negative, large, "
        "400 digits, fraction, object, day, moment, zulu, missing as text"
    },
    "int32": {TRUE: "fraction, true"},
    "uint8": {TRUE: "fraction, true"},
    "float32": {TRUE: "true", NO_NUMBER: "infinity, large"},
    "float64": {TRUE: "true", NO_NUMBER: "infinity"},
    "str": {
        NO_TEXT: "null, null in some, NaN, infinity, text in some, number, negative, large, "
        "400 digits, fraction, true, object"
    },
    "bytes": {
        BASE64: "value, null, null in some, NaN, infinity, text, text in some, number, negative, "
        "large, 400 digits, fraction, true, object, day, moment, zulu, missing as text"
    },
    "datetime64[D]": {NO_DATETIME: "null in some, number, negative, true"},
    "datetime64[ns]": {NO_DATETIME: "null in some, number, negative, true"},
    "timedelta64[ns]": {TRUE: "true"},
}
"""By dtype the reasons, and by reason the cells that are refused; but bytes are read."""


def test_a_tensor_is_what_it_is_to_mlflow_or_refused(
    tmp_path: Path, generate: Any, ask: Any
) -> None:
    specs = [TensorSpec(np.dtype(dtype), (-1,), dtype) for dtype in DTYPES]
    model = samples.save_echo(tmp_path / "tensors", Schema(specs))
    cells = [
        (dtype, state, {**DTYPES, dtype: value})
        for dtype in DTYPES
        for state, value in {"value": DTYPES[dtype], **VALUES}.items()
    ]
    answers = ask(generate(model), *({"inputs": inputs} for *_, inputs in cells))
    wrong, proven = [], proof_of(model)
    with mlflow_server(model.directory) as post:
        for (dtype, state, inputs), (status, answer) in zip(cells, answers, strict=True):
            their_status, their_answer = post({"inputs": inputs})
            ours = answer[0]["arrays"][dtype] if status == 200 else status
            theirs = their_status
            if their_status == 200:
                theirs = their_answer["predictions"][0]["arrays"][dtype]
            reasons = ON_PURPOSE.get(dtype, {}).items()
            (reason,) = [why for why, states in reasons if state in states.split(", ")] or [""]
            shown = f"{dtype}, {state}: {ours}, MLflow {theirs}"
            if reason:
                print(f"{shown[:200]}: {reason}")
            if (ours != theirs) != bool(reason) or (reason and ours != 400 and state != "value"):
                wrong.append(shown)
            assert proven({"inputs": inputs}) == as_text(status, answer), shown
            assert status == 200 or f'"{dtype}"' in json.dumps(answer), answer
    assert wrong == []
    reached = dict(zip((cell[:2] for cell in cells), answers, strict=True))["bytes", "value"]
    assert reached[1][0]["arrays"]["bytes"] == "|S2 (2,) [b'\\xff', b'hi']"


def test_a_model_without_signature_gets_what_mlflow_gives_it_but_for_null_among_numbers(
    tmp_path: Path, generate: Any, ask: Any
) -> None:
    model = samples.save_echo(tmp_path / "free")
    alike = [[1, 2], [[1.5], [2.5]], ["a", "b"], [True], 5, [[None, "a"]], {"a": [1], "b": [[0.5]]}]
    *same, numbers = ask(generate(model), *({"inputs": value} for value in [*alike, [1, None]]))
    with mlflow_server(model.directory) as post:
        wanted = [post({"inputs": value})[1]["predictions"] for value in alike]
    assert [answer for _, answer in same] == wanted
    proven = proof_of(model)
    for value, answer in zip([*alike, [1, None]], [*same, numbers], strict=True):
        assert proven({"inputs": value}) == as_text(*answer)
    assert numbers[1] == [{"kind": "array", "array": "ndarray [ 1. nan]", "dtype": "float64"}]


def test_what_differs_on_purpose_is_documented() -> None:
    text = " ".join(DOCS.read_text().split())
    reasons = {reason for by_reason in ON_PURPOSE.values() for reason in by_reason}
    assert {reason for reason in reasons if reason not in text} == set()
