"""`/invocations` and its neighbours beside MLflow's own scoring server, request by request."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow.pyfunc
import numpy as np
import packed_models as samples
import pytest
from conversations import Ask
from mlflow.pyfunc import scoring_server
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema, TensorSpec
from starlette.testclient import TestClient

import kfp_bento.runtime.bentos

if TYPE_CHECKING:
    from collections.abc import Callable

    from kfp_bento.runtime.models import ModelVersion

CSV = {"content-type": "text/csv"}
WINE = samples.wine_columns().head(3)
PEOPLE = samples.people().head(2)


def split(frame: Any) -> dict[str, Any]:
    return json.loads(frame.to_json(orient="split"))


def records(frame: Any) -> list[dict[str, Any]]:
    return json.loads(frame.to_json(orient="records"))


def instances(model: str) -> list[Ask]:
    """Requests of every form, good and bad."""
    frame = {"wine": WINE, "people": PEOPLE}.get(model)
    bodies: list[Any] = [{}, [], 5, "text", {"inputs": None}, {"dataframe_split": {}, "inputs": 1}]
    if frame is not None:
        bodies += [
            {"dataframe_split": split(frame)},
            {"dataframe_split": {**split(frame), "index": [0]}},
            {"dataframe_records": records(frame)},
            {"dataframe_records": [{**records(frame)[0], "more": 1}]},
            {"dataframe_records": [dict(list(records(frame)[0].items())[1:])]},
            {"dataframe_records": [dict.fromkeys(frame.columns, "text")]},
            {"instances": records(frame)},
            {"inputs": {name: list(frame[name]) for name in frame.columns if name != "children"}},
            {"inputs": records(frame)},
        ]
    if model == "digits":
        rows = samples.digits()[:2].tolist()
        bodies += [{"instances": rows}, {"inputs": rows}, {"inputs": [[1]]}, {"instances": rows[0]}]
    if model == "echo":
        bodies += [
            {"dataframe_records": [{"a": 1, "s": "x"}]},
            {"dataframe_records": [{"a": 1, "s": "x"}], "params": {"n": 7}},
            {"dataframe_records": [{"a": 1, "s": "x"}], "params": {"n": "seven"}},
            {"dataframe_records": [{"a": 1, "s": "x"}], "params": {"unknown": 1}},
            {"dataframe_records": [{"a": 1.5, "s": "x"}]},
            {"dataframe_records": [{"a": None, "s": "x"}]},
        ]
    asked = [Ask(json.dumps(body), path="/invocations") for body in bodies]
    asked += [Ask("{not json", path="/invocations"), Ask("", path="/invocations")]
    if frame is not None:
        asked.append(Ask(frame.to_csv(index=False), path="/invocations", headers=CSV))
        asked.append(Ask("a,b\n1", path="/invocations", headers=CSV))
    asked += [Ask(path=path, method="GET") for path in ("/ping", "/health", "/version")]
    return asked


def save(name: str, path: Path) -> ModelVersion:
    savers: dict[str, Callable[..., ModelVersion]] = {
        "wine": samples.save_wine,
        "people": samples.save_people,
        "digits": samples.save_digits,
    }
    if name in savers:
        return savers[name](path, **samples.QUICK)
    schema = Schema([ColSpec("long", "a"), ColSpec("string", "s")])
    return samples.save_echo(path, schema, ParamSchema([ParamSpec("n", "long", 3)]))


def mlflows_server(model: ModelVersion) -> Callable[[Ask], tuple[int, str]]:
    """What MLflow's server answers; a body that makes it fail altogether is a 500 there."""
    loaded = mlflow.pyfunc.load_model(str(model.directory))
    client = TestClient(scoring_server.init(loaded), raise_server_exceptions=False)

    def answer(asked: Ask) -> tuple[int, str]:
        body = asked.as_job()["body"].encode("latin-1")
        found = client.request(asked.method, asked.path, content=body, headers=asked.headers)
        return found.status_code, found.text

    return answer


@pytest.mark.parametrize("name", ["wine", "people", "digits", "echo"])
def test_every_answer_is_that_of_mlflows_own_server(
    name: str, tmp_path: Path, generate: Any, talk: Any
) -> None:
    model = save(name, tmp_path / name)
    requests = instances(name)
    ours = talk(generate(model), *requests)
    theirs = mlflows_server(model)
    good = 0
    for asked, answer in zip(requests, ours.answers, strict=True):
        status, text = theirs(asked)
        if status == 200:
            good += 1
            assert (answer["status"], answer["text"]) == (200, text), asked
            continue
        # What is a failure of MLflow's server is the caller's mistake here.
        assert answer["status"] == (400 if status == 500 else status), (asked, answer, text)
        told = json.loads(answer["text"])
        assert set(told) == {"error_code", "message"}
        if status != 500:
            assert told["error_code"] == json.loads(text)["error_code"], (asked, told, text)
    assert good >= 5


def test_errors_quote_nothing_of_what_was_sent(tmp_path: Path, generate: Any, talk: Any) -> None:
    secret = "Ada-Lovelace-1815"
    model = samples.save_wine(tmp_path / "wine", **samples.QUICK)
    bodies: list[Any] = [
        {"dataframe_records": [{**records(WINE)[0], "hue": secret}]},
        {"dataframe_records": [{secret: 1}]},
        {"inputs": secret},
        {secret: 1},
        f"{secret} is no JSON",
    ]
    found = talk(generate(model), *(Ask(body, path="/invocations") for body in bodies))
    assert set(found.statuses) == {400}
    assert secret not in str([answer["text"] for answer in found.answers]) + found.log


def test_a_service_of_several_models_has_no_plain_paths(
    tmp_path: Path, generate: Any, talk: Any
) -> None:
    service = generate(
        samples.save_wine(tmp_path / "wine", **samples.QUICK),
        samples.save_digits(tmp_path / "digits", **samples.QUICK),
    )
    found = talk(service, Ask({}, path="/invocations"), Ask(path="/ping", method="GET"))
    assert found.statuses == [404, 404]


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The travelling module, where MLflow's scoring server cannot be imported."""
    monkeypatch.syspath_prepend(str(Path(kfp_bento.runtime.bentos.__file__).parent))
    module = importlib.import_module("pyfunc_mlflow")
    monkeypatch.setitem(sys.modules, "mlflow.pyfunc.scoring_server", None)
    return module


def test_without_mlflows_server_its_parts_give_the_same(tmp_path: Path, parts: Any) -> None:
    model = samples.save_people(tmp_path / "people", **samples.QUICK)
    loaded = mlflow.pyfunc.load_model(str(model.directory))
    theirs = mlflows_server(model)
    compared = 0
    for asked in instances("people"):
        if asked.path != "/invocations":
            continue
        status, text = theirs(asked)
        if status == 200:
            media = asked.headers["content-type"]
            data = asked.body if media == "text/csv" else json.loads(asked.body)
            assert json.loads(parts._answer(loaded, data, media)) == json.loads(text), asked
            compared += 1
    assert compared >= 5


def test_tensors_with_names_are_taken(tmp_path: Path, generate: Any, talk: Any) -> None:
    schema = Schema([TensorSpec(np.dtype("float32"), (-1, 2), "pair")])
    model = samples.save_echo(tmp_path / "tensors", schema)
    asked = Ask({"inputs": {"pair": [[1, 2]]}}, path="/invocations")
    found = talk(generate(model), asked)
    assert (found.statuses[0], found.answers[0]["text"]) == mlflows_server(model)(asked)
