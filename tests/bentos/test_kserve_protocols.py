"""The Open Inference Protocol and KServe's V1 over ASGI; with KServe's client in the slow tests."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import packed_models as samples
import pytest
from conversations import Ask
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec
from mlflow.types.schema import Array

from kfp_bento.runtime.bentos.service_source import Speech, spoken_protocols

if TYPE_CHECKING:
    from pathlib import Path

COLUMNS = Schema(
    [
        ColSpec("double", "a b"),
        ColSpec("long", "n"),
        ColSpec("string", "s", required=False),
        ColSpec("boolean", "b", required=False),
        ColSpec("binary", "bin", required=False),
        ColSpec("datetime", "at", required=False),
        ColSpec(Array(DataType.long), "many", required=False),
    ]
)
FIRST = {"a b": 1.5, "n": 7, "s": "x", "b": True, "bin": "aGk=", "many": [1, 2]}
SECOND = {"a b": 2.0, "n": 8, "s": "y", "b": False, "bin": "aGk=", "many": [3]}
ROWS = [{**FIRST, "at": "2024-05-06T07:08:09"}, {**SECOND, "at": "2024-05-06T07:08:10"}]
ROWS_IN_ORDER = [column["name"] for column in COLUMNS.to_dict()]
TENSORS = [
    {"name": "a b", "datatype": "FP64", "shape": [2], "data": [1.5, 2]},
    {"name": "n", "datatype": "INT64", "shape": [2, 1], "data": [[7], [8]]},
    {"name": "s", "datatype": "BYTES", "shape": [2, 1], "data": ["x", "y"]},
    {"name": "b", "datatype": "BOOL", "shape": [2], "data": [True, False]},
    {"name": "bin", "datatype": "BYTES", "shape": [2], "data": ["aGk=", "aGk="]},
    {"name": "at", "datatype": "BYTES", "shape": [2], "data": [row["at"] for row in ROWS]},
    {
        "name": "many",
        "datatype": "BYTES",
        "shape": [2],
        "data": ["[1, 2]", "[3]"],
        "parameters": {"content_type": "pd_json"},
    },
]


def infer(*tensors: Any, model: str = "columns", **more: Any) -> Ask:
    return Ask({"inputs": list(tensors), **more}, path=f"/v2/models/{model}/infer")


def predict(body: Any, model: str = "columns") -> Ask:
    return Ask(body, path=f"/v1/models/{model}:predict")


def get(path: str) -> Ask:
    return Ask(path=path, method="GET")


@pytest.fixture(scope="module")
def columns(tmp_path_factory: Any, generate: Any) -> Path:
    params = ParamSchema([ParamSpec("n", "long", 3)])
    return generate(samples.save_echo(tmp_path_factory.mktemp("m") / "columns", COLUMNS, params))


def said_by(answer: dict[str, Any]) -> Any:
    """What the echo model said: the text of its only output."""
    (output,) = answer["outputs"]
    return json.loads(output["data"][0])


def test_columns_as_tensors_reach_the_model_as_rows_do(columns: Any, talk: Any) -> None:
    own, v2, v1 = talk(
        columns,
        Ask({"inputs": ROWS, "params": {"n": 5}}),
        infer(*TENSORS, id="42", parameters={"n": 5, "content_type": "pd"}),
        predict({"instances": ROWS, "parameters": {"n": 5}}),
    ).answers
    assert own["status"] == v2["status"] == v1["status"] == 200, (own, v2, v1)
    expected = json.loads(own["text"])
    assert json.loads(v1["text"]) == {"predictions": expected}
    answer = json.loads(v2["text"])
    assert answer["id"] == "42"
    assert answer["model_name"] == "columns"
    assert said_by(answer) == expected or [said_by(answer)] == expected


def test_one_tensor_holds_all_columns(tmp_path: Path, generate: Any, talk: Any) -> None:
    wine = generate(samples.save_wine(tmp_path / "wine", **samples.QUICK))
    rows = samples.wine_columns().head(3)
    data = rows.to_numpy()
    whole = {"name": "x", "datatype": "FP64", "shape": list(data.shape), "data": data.tolist()}
    flat = {**whole, "data": data.flatten().tolist()}
    found = talk(
        wine,
        Ask({"inputs": rows.to_dict("records")}),
        *(infer(tensor, model="wine") for tensor in (whole, flat)),
        predict({"instances": rows.to_dict("records")}, model="wine"),
    )
    own, first, second, v1 = found.bodies()
    assert first == second
    assert first["outputs"] == [
        {
            "name": "output-1",
            "datatype": "INT64",
            "shape": [3, 1],
            "parameters": {"content_type": "np"},
            "data": own,
        }
    ]
    assert v1 == {"predictions": own}


def test_named_tensors_and_matrices(tmp_path: Path, generate: Any, talk: Any) -> None:
    digits = generate(samples.save_digits(tmp_path / "digits", **samples.QUICK))
    data = samples.digits()[:2]
    asked = {"name": "x", "datatype": "FP32", "shape": [2, 64], "data": data.flatten().tolist()}
    own, v2 = talk(digits, Ask({"inputs": data.tolist()}), infer(asked, model="digits")).bodies()
    (output,) = v2["outputs"]
    assert (output["datatype"], output["shape"]) == ("FP32", [2, 10])
    assert np.reshape(output["data"], (2, 10)).tolist() == own

    schema = Schema(
        [
            TensorSpec(np.dtype("float32"), (-1, 2), "pair"),
            TensorSpec(np.dtype("str"), (-1,), "text"),
        ]
    )
    named = generate(samples.save_echo(tmp_path / "named", schema))
    pair = {"name": "pair", "datatype": "FP32", "shape": [2, 2], "data": [1, 2, 3, 4]}
    text = {"name": "text", "datatype": "BYTES", "shape": [2], "data": ["a", "b"]}
    rows = [{"pair": [1, 2], "text": "a"}, {"pair": [3, 4], "text": "b"}]
    own, v2, v1 = talk(
        named,
        Ask({"inputs": {"pair": [[1, 2], [3, 4]], "text": ["a", "b"]}}),
        infer(pair, text, model="named"),
        predict({"instances": rows}, model="named"),
    ).bodies()
    assert v1 == {"predictions": own}
    assert said_by(v2) == own or [said_by(v2)] == own


WRONG = {
    "no tensors": {"inputs": []},
    "no list": {"inputs": {}},
    "no object": [],
    "a text": "text",
    "no name": {"inputs": [{"datatype": "FP64", "shape": [1], "data": [1]}]},
    "datatype": {"inputs": [{**TENSORS[0], "datatype": "FP128"}]},
    "shape": {"inputs": [{**TENSORS[0], "shape": [3]}]},
    "negative": {"inputs": [{**TENSORS[0], "shape": [-1]}]},
    "huge": {"inputs": [{**TENSORS[0], "shape": [2**31, 2**31]}]},
    "no data": {"inputs": [{"name": "a b", "datatype": "FP64", "shape": [2]}]},
    "uneven": {"inputs": [TENSORS[0], {**TENSORS[1], "shape": [1], "data": [1]}]},
    "twice": {"inputs": [TENSORS[0], TENSORS[0]]},
    "missing column": {"inputs": [TENSORS[0]]},
    "unknown column": {"inputs": [*TENSORS, {**TENSORS[0], "name": "c"}]},
    "type": {"inputs": [TENSORS[0], {**TENSORS[1], "data": [1.5, 2]}]},
    "no JSON text": {"inputs": [*TENSORS[:-1], {**TENSORS[-1], "data": ["[", "]"]}]},
    "parameter": {"inputs": TENSORS, "parameters": {"unknown": 1}},
    "output": {"inputs": TENSORS, "outputs": [{"name": "nowhere"}]},
    "outputs": {"inputs": TENSORS, "outputs": "all"},
    "no rows": {"inputs": [{**tensor, "shape": [0], "data": []} for tensor in TENSORS]},
    "zeros": {"inputs": [{**TENSORS[0], "shape": [2, 0], "data": []}]},
    "scalar": {"inputs": [{**TENSORS[0], "shape": [], "data": [1]}]},
    "binary": '{"inputs":[]}\x00\x01',
}


def test_what_is_wrong_is_a_400_in_a_sentence(columns: Any, talk: Any) -> None:
    found = talk(columns, *(Ask(body, path="/v2/models/columns/infer") for body in WRONG.values()))
    assert dict(zip(WRONG, found.statuses, strict=True)) == dict.fromkeys(WRONG, 400)
    told = {name: body["error"] for name, body in zip(WRONG, found.bodies(), strict=True)}
    assert "inputs.0.n" in told["missing column"]
    assert "inputs.0.n" in told["type"]
    assert told["shape"] == "inputs.0.data: 2 elements for 3 of its shape"
    v1 = talk(columns, *map(predict, ({}, {"instances": 1, "inputs": 1}, {"instances": []}, 5)))
    assert v1.statuses == [400] * 4


def test_metadata_tell_signature_version_and_digest(columns: Any, talk: Any) -> None:
    paths = ["/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/columns"]
    paths += ["/v2/models/columns/ready", "/v1/models", "/v1/models/columns"]
    server, live, ready, model, model_ready, names, v1 = talk(columns, *map(get, paths)).bodies()
    assert (server["name"], live, ready) == ("sample", {"live": True}, {"ready": True})
    assert model_ready == {"name": "columns", "ready": True}
    assert names == {"models": ["columns"]}
    (version,) = model["versions"]
    digest = model["parameters"]["digest"]
    assert digest.startswith(f"sha256:{version}")
    assert v1 == {"name": "columns", "version": version, "digest": digest, "ready": True}
    kinds = {one["name"]: (one["datatype"], one["shape"]) for one in model["inputs"]}
    assert kinds["n"] == ("INT64", [-1, 1])
    assert kinds["s"] == ("BYTES", [-1, 1])
    signature = model["parameters"]["signature"]
    assert [column["name"] for column in signature["inputs"]] == list(ROWS_IN_ORDER)
    of_version = f"/v2/models/columns/versions/{version}"
    by_version = talk(
        columns, get(of_version), Ask(infer(*TENSORS).body, path=f"{of_version}/infer")
    )
    assert by_version.statuses == [200, 200]


def test_each_of_several_models_is_asked_by_name(tmp_path: Path, generate: Any, talk: Any) -> None:
    wine, digits = (
        samples.save_wine(tmp_path / "wine", **samples.QUICK),
        samples.save_digits(tmp_path / "digits", **samples.QUICK),
    )
    service = generate(wine, digits)
    row = samples.wine_columns().head(1).to_dict("records")
    image = samples.digits()[:1].tolist()
    found = talk(
        service,
        *(get(f"/v2/models/{name}") for name in ("wine", "digits", "other")),
        predict({"instances": row}, model="wine"),
        predict({"instances": image}, model="digits"),
        predict({"instances": image}, model="other"),
    )
    assert found.statuses == [200, 200, 404, 200, 200, 404]
    assert len(json.loads(found.answers[4]["text"])["predictions"][0]) == 10


def test_a_single_model_is_served_under_one_more_name(
    tmp_path: Path, generate: Any, talk: Any, columns: Any
) -> None:
    name = {"KFP_BENTO_MODEL_NAME": "isvc-1"}
    paths = ["/v2/models/isvc-1", "/v1/models/isvc-1", "/v1/models/columns", "/docs.json"]
    asked = [infer(*TENSORS, model="isvc-1"), predict({"instances": ROWS}, model="isvc-1")]
    found = talk(columns, infer(*TENSORS), *asked, *map(get, paths), **name)
    own, named, v1, model, *_, docs = (json.loads(one["text"]) for one in found.answers)
    assert found.statuses == [200] * 7
    assert named["outputs"] == own["outputs"]
    assert (own["model_name"], named["model_name"], model["name"]) == (
        "columns",
        "isvc-1",
        "isvc-1",
    )
    assert v1["predictions"]
    assert {"/v2/models/isvc-1/infer", "/invocations"} <= set(docs["paths"])
    assert talk(columns, get(paths[0])).statuses == [404]
    wine, other = (samples.save_wine(tmp_path / n, **samples.QUICK) for n in ("wine", "other"))
    assert talk(generate(wine, other), get(paths[0]), **name).statuses == [404]
    assert "KFP_BENTO_MODEL_NAME" in talk(columns, KFP_BENTO_MODEL_NAME="a/b").error


def test_what_is_spoken_can_be_narrowed(tmp_path: Path, generate: Any, talk: Any) -> None:
    model = samples.save_wine(tmp_path / "wine", **samples.QUICK)
    paths = ["/v2", "/v1/models", "/ping", "/docs.json"]
    for protocols in (("v2",), ("mlflow", "v1")):
        service = generate(model, speaks=Speech(protocols=protocols))
        found = talk(service, *map(get, paths))
        bento = tmp_path / protocols[0]
        bento.mkdir()
        (bento / "src").symlink_to(service)
        assert spoken_protocols(SimpleNamespace(directory=bento)) == protocols
        spoken = [name in protocols for name in ("v2", "v1", "mlflow")]
        assert [status == 200 for status in found.statuses[:3]] == spoken
        described = set(json.loads(found.answers[3]["text"])["paths"])
        assert [path in described for path in ("/v2", "/v1/models", "/invocations")] == spoken


def test_only_health_is_told_without_a_token(columns: Any, talk: Any) -> None:
    token = "0123456789abcdef"
    health = ["/ping", "/health", "/v2/health/live", "/v2/health/ready"]
    others = [get(path) for path in ("/v2", "/version", "/v1/models", "/v2/models/columns")]
    others += [infer(*TENSORS), predict({"instances": ROWS}), Ask({}, path="/invocations")]
    found = talk(columns, *map(get, health), *others, KFP_BENTO_API_TOKEN=token)
    assert found.statuses == [200] * len(health) + [401] * len(others)
