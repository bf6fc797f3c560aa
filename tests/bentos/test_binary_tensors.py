"""Tensors as bytes reach a model as tensors in JSON do, and answers come back as bytes."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import packed_models as samples
import pytest
from conversations import Ask
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema, TensorSpec

if TYPE_CHECKING:
    from pathlib import Path

KINDS = ("double", "float", "long", "integer", "boolean")
COLUMNS = Schema(
    [
        *(ColSpec(kind, kind, required=False) for kind in KINDS),
        *(ColSpec(kind, kind, required=False) for kind in ("string", "datetime", "binary")),
    ]
)
LENGTH = "inference-header-content-length"
DTYPES = {
    **{"BOOL": "?", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8"},
    **{f"INT{8 * n}": f"<i{n}" for n in (1, 2, 4, 8)},
    **{f"UINT{8 * n}": f"<u{n}" for n in (1, 2, 4, 8)},
}


def texts(*elements: str | bytes) -> bytes:
    raw = [one.encode() if isinstance(one, str) else one for one in elements]
    return b"".join(struct.pack("<I", len(one)) + one for one in raw)


def tensor(name: str, datatype: str, data: Any, shape: Any = None) -> tuple[dict[str, Any], bytes]:
    """A tensor as NumPy has it, and its bytes."""
    if datatype == "BYTES":
        blob, shape = texts(*data), shape or [len(data)]
    else:
        array = np.array(data, DTYPES[datatype])
        blob, shape = array.tobytes(), shape or list(array.shape)
    parameters = {"binary_data_size": len(blob)}
    return {"name": name, "datatype": datatype, "shape": shape, "parameters": parameters}, blob


def binary(*tensors: tuple[dict[str, Any], bytes], model: str = "columns", **more: Any) -> Ask:
    told = json.dumps({"inputs": [one for one, _ in tensors], **more})
    return sent(told, b"".join(blob for _, blob in tensors), model=model)


def sent(told: str, blob: bytes, model: str = "columns", **headers: str) -> Ask:
    headers = {"content-type": "application/octet-stream", LENGTH: str(len(told)), **headers}
    body = told.encode().decode("latin-1") + blob.decode("latin-1")
    kept = {name: value for name, value in headers.items() if value}
    return Ask(body, path=f"/v2/models/{model}/infer", headers=kept)


def in_json(name: str, datatype: str, data: list[Any], **more: Any) -> Ask:
    given = {"name": name, "datatype": datatype, "shape": [len(data)], "data": data}
    return Ask({"inputs": [given], **more}, path="/v2/models/columns/infer")


def decoded(answer: dict[str, Any]) -> tuple[dict[str, Any], list[np.ndarray]]:
    """An answer's JSON, and its numbers."""
    raw, length = answer["text"].encode("latin-1"), int(answer["headers"][LENGTH])
    told, left, arrays = json.loads(raw[:length]), raw[length:], []
    for output in told["outputs"]:
        size = output["parameters"]["binary_data_size"]
        array = np.frombuffer(left[:size], DTYPES[output["datatype"]])
        arrays.append(array.reshape(output["shape"]))
        left = left[size:]
    assert not left
    return told, arrays


@pytest.fixture(scope="module")
def columns(tmp_path_factory: Any, generate: Any) -> Path:
    params = ParamSchema([ParamSpec("n", "long", 3)])
    return generate(samples.save_echo(tmp_path_factory.mktemp("m") / "columns", COLUMNS, params))


@pytest.fixture(scope="module")
def wine(tmp_path_factory: Any, generate: Any) -> Path:
    return generate(samples.save_wine(tmp_path_factory.mktemp("m") / "wine", **samples.QUICK))


VALUES: list[tuple[str, list[Any]]] = [
    *(("BOOL", [value, True]) for value in (True, False)),
    *(("FP64", [value, 1.5]) for value in (0.1, float("nan"), float("inf"), 1e300, -0.0)),
    *(("FP64", [value, 2.0]) for value in (3.0, float("nan"), 2.0**31, 2.0**63)),
    *(("FP32", [0.1, value]) for value in (2.0, float("nan"))),
    *(("FP16", [value, value]) for value in (0.1, 2.0)),
    *(("INT64", [value, 1]) for value in (2**53 + 1, -(2**63), 2**31)),
    *((f"INT{bits}", [-(2 ** (bits - 1)), 1]) for bits in (8, 16, 32)),
    *((f"UINT{bits}", [2**bits - 1, 1]) for bits in (8, 16, 32, 64)),
]


def test_numbers_as_bytes_are_taken_for_what_they_are_as_json(columns: Any, talk: Any) -> None:
    cases = [(kind, *value) for kind in KINDS for value in VALUES]
    listed = [np.array(data, DTYPES[datatype]).tolist() for _, datatype, data in cases]
    found = talk(
        columns,
        *(binary(tensor(*case)) for case in cases),
        *(
            in_json(kind, datatype, data)
            for (kind, datatype, _), data in zip(cases, listed, strict=True)
        ),
    ).answers
    as_bytes, as_json = found[: len(cases)], found[len(cases) :]
    assert {one["status"] for one in as_json} == {200, 400}
    for case, one, other in zip(cases, as_bytes, as_json, strict=True):
        assert (one["status"], one["text"]) == (other["status"], other["text"]), case


def test_texts_params_and_tensors_in_json_go_with_them(columns: Any, talk: Any) -> None:
    data = {
        "string": ["x, \u00e4\0", ""],
        "datetime": ["2024-05-06T07:08:09", "2024-05-06"],
        "binary": ["aGk=", ""],
    }
    parts = [tensor(name, "BYTES", one, [2, 1]) for name, one in data.items()]
    whole = {"name": "long", "datatype": "INT64", "shape": [2], "data": [1, 2]}
    listed = [
        {"name": name, "datatype": "BYTES", "shape": [2], "data": one} for name, one in data.items()
    ]
    asked = {"inputs": [*listed, whole], "parameters": {"n": 5}, "id": "1"}
    one, other = talk(
        columns,
        binary(*parts, (whole, b""), parameters={"n": 5}, id="1"),
        Ask(asked, path="/v2/models/columns/infer"),
    ).answers
    assert one["status"] == 200
    assert one["text"] == other["text"]


def test_a_table_and_its_answer_go_as_bytes(wine: Any, talk: Any) -> None:
    rows = samples.wine_columns().head(150)
    table = tensor("x", "FP64", rows.to_numpy())
    by_column = [tensor(str(name), "FP64", rows[[name]]) for name in rows]
    every = {"parameters": {"binary_data_output": True}}
    one = {"outputs": [{"name": "output-1", "parameters": {"binary_data": True}}]}
    none = {"outputs": [{"name": "output-1", "parameters": {"binary_data": False}}]}
    own, plain, *others, unasked = talk(
        wine,
        Ask({"inputs": rows.to_dict("records")}),
        binary(table, model="wine"),
        binary(table, model="wine", **every),
        binary(*by_column, model="wine", **one),
        binary(*by_column, model="wine", **every, **none),
    ).answers
    expected = json.loads(own["text"])
    assert json.loads(plain["text"])["outputs"][0]["data"] == expected
    assert json.loads(unasked["text"])["outputs"][0]["data"] == expected
    assert plain["headers"]["content-type"] == "application/json"
    for answer in others:
        assert answer["headers"]["content-type"] == "application/octet-stream"
        told, (array,) = decoded(answer)
        assert array[:, 0].tolist() == expected
        parameters = {"content_type": "np", "rank": 1, "binary_data_size": 8 * 150}
        about = {"name": "output-1", "datatype": "INT64", "shape": [150, 1]}
        assert told["outputs"] == [{**about, "parameters": parameters}]


def test_arrays_go_as_bytes(tmp_path: Path, generate: Any, talk: Any) -> None:
    digits = generate(samples.save_digits(tmp_path / "digits", **samples.QUICK))
    data = samples.digits()[:2]
    every = {"parameters": {"binary_data_output": True}}
    own, whole, wrong = talk(
        digits,
        Ask({"inputs": data.tolist()}),
        binary(tensor("x", "FP32", data), model="digits", **every),
        binary(tensor("x", "FP32", data[:, :3]), model="digits"),
    ).answers
    _, (array,) = decoded(whole)
    assert array.dtype == "float32"
    assert array.tolist() == json.loads(own["text"])
    assert wrong["status"] == 400
    assert "expected shape (-1, 64)" in json.loads(wrong["text"])["error"]

    pair = [
        TensorSpec(np.dtype("float32"), (-1, 2), "pair"),
        TensorSpec(np.dtype("bool"), (-1,), "flag"),
    ]
    named = generate(samples.save_echo(tmp_path / "named", Schema(pair)))
    own, as_bytes = talk(
        named,
        Ask({"inputs": {"pair": [[1, None], [3, 4]], "flag": [True, False]}}),
        binary(
            tensor("pair", "FP32", [[1, np.nan], [3, 4]]),
            tensor("flag", "BOOL", [[True], [False]]),
            model="named",
        ),
    ).bodies()
    assert json.loads(as_bytes["outputs"][0]["data"][0]) == own[0]


GOOD, BYTES = tensor("double", "FP64", [1, 2]), tensor("string", "BYTES", ["a", "b"])


def changed(part: tuple[dict[str, Any], bytes], blob: bytes, **more: Any) -> Ask:
    told = {**part[0], "parameters": {"binary_data_size": len(blob)}, **more}
    return binary((told, blob))


WRONG = {
    "inputs.0.parameters.binary_data_size: 15 bytes for 2 elements": changed(GOOD, GOOD[1][:-1]),
    "inputs.0.parameters.binary_data_size: 16 bytes for 3 elements": changed(
        GOOD, GOOD[1], shape=[3]
    ),
    "more than 4000000 values": changed(GOOD, GOOD[1], shape=[2**31, 2**31]),
    "16 bytes, where 15 are left": sent(json.dumps({"inputs": [GOOD[0]]}), GOOD[1][:-1]),
    "1 bytes follow the last tensor": sent(json.dumps({"inputs": [GOOD[0]]}), GOOD[1] + b"x"),
    "a number of bytes is missing": changed(GOOD, GOOD[1], parameters={"binary_data_size": "16"}),
    "one is needed": changed(GOOD, GOOD[1], data=[1, 2]),
    "neither 0 nor 1": changed(tensor("boolean", "BOOL", [True, False]), b"\1\2"),
    "element 1 ends within an element": changed(BYTES, BYTES[1][:-1] + b""),
    "element 0 ends within an element": changed(BYTES, b"\xff\xff\xff\xff" + BYTES[1]),
    "10 bytes, and its elements have 5": changed(BYTES, BYTES[1], shape=[1]),
    "element 1 is not UTF-8": changed(BYTES, texts("a", b"\xff")),
    "no length within the body": sent("{}", b"", **{LENGTH: "3"}),
    "is no length": sent("{}", b"", **{LENGTH: "-1"}),
    "is missing: where the JSON ends": sent("{}", b"", **{LENGTH: ""}),
    "invalid JSON": sent("{", b"}"),
    "inputs.0.double": changed(GOOD, struct.pack("<2d", float("inf"), 1)),
    "inputs.1.long": binary(tensor("long", "FP64", [1, 1.5])),
    "different numbers of rows": binary(GOOD, tensor("long", "INT64", [1, 2, 3])),
    "inputs.0.nowhere": binary(tensor("nowhere", "INT64", [1])),
    "no rows": changed(GOOD, struct.pack("<d", 1), shape=[]),
}


def test_what_is_wrong_with_bytes_is_a_400_that_names_it(columns: Any, talk: Any) -> None:
    found = talk(columns, *WRONG.values())
    assert dict(zip(WRONG, found.statuses, strict=True)) == dict.fromkeys(WRONG, 400)
    for part, told in zip(WRONG, found.bodies(), strict=True):
        assert part in told["error"]


def test_bytes_are_held_to_the_limits_of_a_request(columns: Any, talk: Any) -> None:
    asked = binary(tensor("double", "FP64", range(40)), tensor("long", "INT64", range(40)))
    limits = (("ROWS", "39"), ("VALUES", "79"), ("VALUES", "80"), ("BODY_BYTES", "640"))
    statuses = [
        talk(columns, asked, **{f"KFP_BENTO_MAX_{name}": value}).answers[0]
        for name, value in limits
    ]
    assert [one["status"] for one in statuses] == [400, 400, 200, 413]
    assert "more than 39 rows" in statuses[0]["text"]
    assert "more than 79 values" in statuses[1]["text"]
