"""What a value in a column means: to the service what it means to MLflow's own server.

Every cell of a generated table (types of columns, required or optional, null, left out, NaN and
others) is asked of both, and what reached the model is compared. Cells that differ on purpose are
in `ON_PURPOSE`, each with what the service makes of it; run with `-s` to see them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import packed_models as samples
import pytest
from mlflow.types import ColSpec, DataType, Schema
from mlflow.types.schema import AnyType, Array, Map, Object, Property
from mlflow_judge import as_text, mlflow_server, proof_of

DOCS = Path(__file__).parents[2] / "docs" / "served-values.md"
NAN, INFINITY, LEFT_OUT = float("nan"), float("inf"), object()
POINT = Object([Property("k", DataType.double), Property("o", DataType.string, required=False)])
COLUMNS: dict[str, tuple[Any, Any]] = {
    "boolean": (DataType.boolean, True),
    "integer": (DataType.integer, 7),
    "long": (DataType.long, 2**53 + 1),
    "float": (DataType.float, 0.1),
    "double": (DataType.double, 0.1),
    "string": (DataType.string, "x"),
    "binary": (DataType.binary, "/w=="),
    "datetime": (DataType.datetime, "2024-05-06T07:08:09.123456789"),
    "doubles": (Array(DataType.double), [0.5, 2]),
    "longs": (Array(DataType.long), [1, 2]),
    "strings": (Array(DataType.string), ["a", "b"]),
    "matrix": (Array(Array(DataType.double)), [[0.5], [1.5]]),
    "object": (POINT, {"k": 0.5}),
    "map": (Map(DataType.double), {"k": 0.5}),
    "texts": (Map(DataType.string), {"k": "x"}),
    "any": (AnyType(), {"k": [1, None]}),
}
VALUES: dict[str, dict[str, Any]] = {
    "float": {"infinity": INFINITY, "whole": 3},
    "double": {"infinity": INFINITY, "whole": 3},
    "datetime": {
        "day": "2024-05-06",
        "missing as text": "NaT",
        "space": "2024-05-06 07:08",
        "offset": "2024-05-06T07:08:09+02:00",
        "zulu": "2024-05-06T07:08:09Z",
    },
    "doubles": {"null inside": [0.5, None], "NaN inside": [0.5, NAN], "empty": []},
    "longs": {"null inside": [1, None]},
    "strings": {"null inside": ["a", None]},
    "matrix": {"null inside": [None, [0.5]], "null deep inside": [[None]]},
    "object": {
        "null inside": {"k": None},
        "NaN inside": {"k": NAN},
        "optional null inside": {"k": 0.5, "o": None},
        "optional NaN inside": {"k": 0.5, "o": NAN},
        "empty": {},
    },
    "map": {"null inside": {"k": None}, "NaN inside": {"k": NAN}, "empty": {}},
    "texts": {"null inside": {"k": None}},
}
"""Further values of one row."""


class Difference(NamedTuple):
    """What the service does otherwise than MLflow's server.

    Attributes:
        types: The types of columns.
        states: What is in them.
        required: In which columns; None is both.
        ours: The dtype and the cells that the model gets, or 400.
        reason: Why, as the documentation has it.
    """

    types: str
    states: str
    required: bool | None
    ours: Any
    reason: str


NESTED = "doubles longs strings matrix object map texts"
NO_KEY = "a required key has to be in every row, so that a forgotten one is told; null says missing"
NOT_FALSE = "MLflow's server reads null as false and NaN as true, without a word"
NO_NUMBER = "JSON has no Infinity; a number that is too large is the caller's mistake"
NULL_IS_NAN = "null is NaN wherever a double or float may be NaN"
NAN_INSIDE = "{'k': np.float64(nan)}"
OF_BYTES = "`mlflow.pyfunc` takes missing bytes; only its server's reading of base64 fails"
AS_OBJECT = "strings come as `object`, which every MLflow takes under every pandas"
ON_PURPOSE = [
    Difference("boolean", "null, null in some, NaN, NaN in some", True, 400, NOT_FALSE),
    Difference("boolean", "NaN, NaN in some", False, 400, NOT_FALSE),
    Difference("boolean", "null", False, ("object", "None"), NOT_FALSE),
    Difference("boolean", "null in some, left out in some", False, "first, None", NOT_FALSE),
    Difference("boolean", "null and left out", False, ("object", "None", "None"), NOT_FALSE),
    Difference(
        "boolean float double string datetime any",
        "left out in some, null and left out",
        True,
        400,
        NO_KEY,
    ),
    Difference("float double", "infinity", None, 400, NO_NUMBER),
    Difference(
        "integer long",
        "null, null and left out",
        False,
        "left out",
        "an integer column cannot be missing; where all rows say null it is left out",
    ),
    Difference("string", "value", None, ("object", "x"), AS_OBJECT),
    Difference("string", "null in some, NaN in some", None, ("object", "x", "nan"), AS_OBJECT),
    Difference("string", "left out in some", False, ("object", "x", "nan"), AS_OBJECT),
    Difference("binary", "null, NaN", None, ("object", "None"), OF_BYTES),
    Difference("binary", "null in some, NaN in some", None, "first, None", OF_BYTES),
    Difference("binary", "left out in some", False, "first, None", OF_BYTES),
    Difference("binary", "null and left out", False, ("object", "None", "None"), OF_BYTES),
    Difference(
        "datetime",
        "offset",
        None,
        ("datetime64[ns]", "2024-05-06 05:08:09"),
        "datetimes with an offset are turned into UTC",
    ),
    Difference(
        "datetime",
        "zulu",
        None,
        ("datetime64[ns]", "2024-05-06 07:08:09"),
        "datetimes with an offset are turned into UTC",
    ),
    Difference(NESTED, "left out in some", False, "first, None", "left out in some rows is null"),
    Difference(
        NESTED,
        "null and left out",
        False,
        ("object", "None", "None"),
        "left out in some rows is null",
    ),
    Difference(
        "strings",
        "null inside",
        None,
        400,
        "MLflow makes the text `n` of a null in an array of strings",
    ),
    Difference(
        "object map", "null inside", True, ("object", "{'k': np.float64(nan)}"), NULL_IS_NAN
    ),
    Difference("object", "null inside", False, ("object", "{'k': np.float64(nan)}"), NULL_IS_NAN),
    Difference("object", "empty", False, 400, "an empty object has not its required fields"),
]


def cells() -> list[tuple[str, str, list[Any]]]:
    """Every column with what may be in it, by row."""
    found = []
    for name, (_, value) in COLUMNS.items():
        states = {
            "value": [value],
            "null": [None],
            "null in some": [value, None],
            "left out": [LEFT_OUT],
            "left out in some": [value, LEFT_OUT],
            "null and left out": [None, LEFT_OUT],
            "NaN": [NAN],
            "NaN in some": [value, NAN],
        }
        states |= {state: [other] for state, other in VALUES.get(name, {}).items()}
        found += [(name, state, values) for state, values in states.items()]
    return found


def rows_of(name: str, values: list[Any]) -> list[dict[str, Any]]:
    """Records that are in order but for one column."""
    rest = {other: value for other, (_, value) in COLUMNS.items() if other != name}
    return [rest if value is LEFT_OUT else {**rest, name: value} for value in values]


def reached(name: str, status: int, seen: Any) -> Any:
    """What came of one column: its dtype and cells, "left out", or the status."""
    if status != 200:
        return status
    seen = seen["predictions"] if isinstance(seen, dict) else seen
    if name not in seen[0]["dtypes"]:
        return "left out"
    shown = [text.partition(" ")[2] for text in seen[0]["cells"][name]]
    return (seen[0]["dtypes"][name], *shown)


def on_purpose(name: str, state: str, required: bool) -> Difference | None:
    found = [
        one
        for one in ON_PURPOSE
        if name in one.types.split()
        and state in one.states.split(", ")
        and one.required in (None, required)
    ]
    assert len(found) < 2, found
    return found[0] if found else None


def as_told(difference: Difference, ours: Any) -> bool:
    if difference.ours == "first, None":
        return len(ours) == 3 and ours[0] == "object" and ours[1] != "None" == ours[2]
    return bool(difference.ours == ours)


@pytest.mark.parametrize("required", [True, False])
def test_a_value_means_what_it_means_to_mlflow(
    required: bool, tmp_path: Path, generate: Any, ask: Any
) -> None:
    schema = Schema([ColSpec(kind, name, required=required) for name, (kind, _) in COLUMNS.items()])
    model = samples.save_echo(tmp_path / "columns", schema)
    asked = [(name, state, rows_of(name, values)) for name, state, values in cells()]
    answers = ask(generate(model), *({"inputs": rows} for *_, rows in asked))
    wrong, told, proven = [], [], proof_of(model)
    with mlflow_server(model.directory) as mlflow_answers:
        for (name, state, rows), (status, answer) in zip(asked, answers, strict=True):
            ours = reached(name, status, answer)
            their_status, their_answer = mlflow_answers({"dataframe_records": rows})
            theirs = reached(
                name, their_status, their_status == 200 and their_answer["predictions"]
            )
            difference = on_purpose(name, state, required)
            shown = f"{name}, {state}: {ours}, MLflow {theirs}"
            if (ours != theirs) != (difference is not None):
                wrong.append(shown)
            elif difference:
                told.append(f"{shown}: {difference.reason}")
                if not as_told(difference, ours):
                    wrong.append(shown)
            assert proven({"inputs": rows}) == as_text(status, answer), shown
            if status != 200 and f'"{name}"' not in json.dumps(answer):
                assert f".{name}: " in json.dumps(answer), answer  # it is told by name
    print(*told, sep="\n")
    assert wrong == []


def test_what_differs_on_purpose_is_documented() -> None:
    text = " ".join(DOCS.read_text().split())
    assert [one.reason for one in ON_PURPOSE if one.reason not in text] == []
