"""A service makes traces only where somebody says where they go to."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import mlflow
import mlflow.pyfunc
import packed_models as samples
import pytest
from conversations import JSON, Ask
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema
from otlp_receiver import Receiver, receiving

from kfp_bento.runtime.bentos.service_source import Speech

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TRACED = """
import mlflow, os
from mlflow.tracing.provider import is_tracing_enabled

if "TRACES" in os.environ:
    mlflow.set_tracking_uri(os.environ["TRACES"])

class Model(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return [is_tracing_enabled()]

mlflow.models.set_model(Model())
"""
SERVER = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, generate: Any) -> Path:
    folder = tmp_path_factory.mktemp("traced")
    (folder / "model.py").write_text(TRACED)
    mlflow.pyfunc.save_model(
        folder / "traced", python_model=str(folder / "model.py"), pip_requirements=["mlflow"]
    )
    return generate(samples.load_model(folder / "traced"))


@pytest.mark.parametrize(
    ("variables", "traced"),
    [
        ({}, False),
        ({"MLFLOW_TRACKING_URI": SERVER}, True),
        ({"TRACES": SERVER}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": SERVER}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": SERVER, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, False),
    ],
)
def test_traces_are_made_only_where_somebody_says_where_they_go(
    variables: dict[str, str], traced: bool, service: Path, talk: Any
) -> None:
    talked = talk(service, Ask({"inputs": [1]}), **{"MLFLOW_TRACKING_URI": "", **variables})
    assert talked.bodies() == [[traced]], talked


# --- spans of the service itself -----------------------------------------------------------------

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = "00-0af7651916cd43dd8448eb211c80319d-b7ad6b7169203332-00"
ROW = {"x": 1.5, "name": "Ada-Lovelace-1815"}
TENSORS = {
    "inputs": [
        {"name": "x", "shape": [1], "datatype": "FP64", "data": [1.5]},
        {"name": "name", "shape": [1], "datatype": "BYTES", "data": ["Ada-Lovelace-1815"]},
    ]
}


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model that fails where x is below 0."""
    folder = tmp_path_factory.mktemp("failing")
    (folder / "model.py").write_text(
        "import mlflow\n"
        "class Model(mlflow.pyfunc.PythonModel):\n"
        "    def predict(self, context, model_input, params=None):\n"
        "        if model_input['x'].iloc[0] < 0:\n"
        "            raise OSError('not for ' + model_input['name'].iloc[0])\n"
        "        return model_input['x'].tolist()\n"
        "mlflow.models.set_model(Model())\n"
    )
    signature = ModelSignature(Schema([ColSpec("double", "x"), ColSpec("string", "name")]))
    mlflow.pyfunc.save_model(
        folder / "failing",
        python_model=str(folder / "model.py"),
        signature=signature,
        pip_requirements=["mlflow"],
    )
    return samples.load_model(folder / "failing")


@pytest.fixture(scope="module")
def plain(failing: Any, generate: Any) -> Path:
    return generate(failing)


def asked_from(parent: str, body: Any, path: str = "/predict") -> Ask:
    return Ask(body, path, headers={**JSON, "traceparent": parent})


def test_a_trace_goes_from_the_request_to_the_prediction(
    plain: Path, talk: Any, receiver: Receiver
) -> None:
    before = len(receiver.spans)
    talked = talk(
        plain,
        asked_from(PARENT, {"inputs": [ROW, ROW]}),
        asked_from(PARENT, {"dataframe_records": [ROW]}, "/invocations"),
        asked_from(PARENT, TENSORS, "/v2/models/failing/infer"),
        asked_from(UNSAMPLED, {"inputs": [ROW]}),
        Ask({"inputs": [{**ROW, "x": -1.0}]}),
        Ask("", "/readyz", "GET"),
        OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint,
        OTEL_EXPORTER_OTLP_HEADERS="x-tenant=models",
        OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=staging",
    )
    assert talked.statuses == [200, 200, 200, 200, 500, 200], talked
    spans = receiver.spans[before:]
    requests = [span for span in spans if span.kind == 2]
    by_id = {span.id: span for span in requests}
    asked = [span for span in spans if span.name == "predict failing"]
    assert [one.name for one in requests] == [
        *("POST /predict", "POST /invocations", "POST /v2/models/failing/infer", "POST /predict")
    ]
    assert len(asked) == len(requests), "one span of the model in each request's"
    for one in requests[:3]:
        assert (one.trace, one.parent) == (PARENT[3:35], PARENT[36:52])
    assert [by_id[one.parent].name for one in asked] == [one.name for one in requests]
    assert [one.attributes["kfp_bento.rows"] for one in asked] == [2, 1, 1, 1]
    assert {one.attributes["kfp_bento.model.name"] for one in asked} == {"failing"}
    assert {len(one.attributes["kfp_bento.model.version"]) for one in asked} == {16}
    statuses = [one.attributes["http.response.status_code"] for one in requests]
    assert statuses == [200, 200, 200, 500]
    assert [one.failed for one in requests] == [one.failed for one in asked]
    assert [one.failed for one in asked] == [False, False, False, True]
    told = [answer["headers"]["x-bentoml-request-id"] for answer in talked.answers[:5]]
    assert told[0] == requests[0].id, "the answer tells the id of its span"
    assert spans[0].resource["deployment.environment.name"] == "staging"
    assert receiver.headers[-1]["x-tenant"] == "models"
    assert b"Lovelace" not in b"".join(receiver.raw), "nothing that was sent is in a span"


@pytest.mark.slow  # a served bento
def test_requests_that_are_asked_together_have_a_trace_each(
    failing: Any, generate: Any, serve: Any, receiver: Receiver, bento_home: Path, tmp_path: Path
) -> None:
    before = len(receiver.spans)
    service = generate(failing, speaks=Speech(max_batch_size=64, max_latency_ms=200))
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint, "OTEL_SERVICE_NAME": "other"}
    log = tmp_path / "requests.jsonl"
    with (
        serve(service, bento_home, KFP_BENTO_REQUEST_LOG=str(log), **variables) as send,
        ThreadPoolExecutor(max_workers=8) as pool,
    ):
        answers = [*pool.map(send, ["/predict"] * 8, [{"inputs": [ROW]}] * 8)]
        assert {status for status, _ in answers} == {200}
        counted = send("/metrics")[1]
    # The service has ended, and sent everything before.
    spans = receiver.spans[before:]
    asked = [span for span in spans if span.name == "predict failing"]
    parents = {span.id: span.trace for span in spans if span.kind == 2}
    assert len(asked) == len(parents) == len(set(parents.values())) == 8
    assert all(parents[one.parent] == one.trace for one in asked)
    assert max(one.attributes.get("kfp_bento.batch.requests", 1) for one in asked) > 1
    assert {span.resource["service.name"] for span in spans} == {"other"}
    logged = [json.loads(line) for line in log.read_text().splitlines()]
    assert {line["trace_id"] for line in logged} == set(parents.values()), "log and traces meet"
    assert 'kfp_bento_request_log_lines_total{outcome="dropped",service_name="sample"' in counted


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"}, ""),
        ({"OTEL_TRACES_EXPORTER": "none"}, ""),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "No traces: what speaks 'grpc' is not in this"),
    ],
)
def test_a_service_answers_where_no_trace_can_be_or_is_wanted(
    variables: dict[str, str], told: str, plain: Path, talk: Any, receiver: Receiver
) -> None:
    before = len(receiver.spans)
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint}
    talked = talk(plain, Ask({"inputs": [ROW]}), **endpoint, **variables)
    assert talked.statuses == [200]
    assert receiver.spans[before:] == []
    assert told in talked.log
    assert ("No traces" in talked.log) == bool(told)
    assert int(talked.answers[0]["headers"]["x-bentoml-request-id"], 16) > 0


def test_a_receiver_that_is_gone_costs_no_answer(plain: Path, talk: Any) -> None:
    nobody = "http://127.0.0.1:9"
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": nobody, "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
    assert talk(plain, Ask({"inputs": [ROW]}), **variables).statuses == [200]


OWN = """\
import bentoml

@bentoml.service
class Own:
    @bentoml.api
    def predict(self, number: int) -> int:
        return number + 1
"""


@pytest.mark.slow  # served bentos
@pytest.mark.parametrize("own", [True, False])
def test_bentomls_own_settings_trace_any_service(
    own: bool, plain: Path, serve: Any, receiver: Receiver, bento_home: Path, tmp_path: Path
) -> None:
    before = len(receiver.spans)
    (tmp_path / "service.py").write_text(OWN)
    (tmp_path / "bentofile.yaml").write_text("service: service\n")
    settings = ("exporter_type=otlp", "otlp.protocol=http", "sample_rate=1.0")
    variables = {"BENTOML_CONFIG_OPTIONS": " ".join(f"services.tracing.{one}" for one in settings)}
    variables |= {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint}
    variables |= {"OTEL_BSP_SCHEDULE_DELAY": "100"}
    body = {"number": 1} if own else {"inputs": [ROW]}
    with serve(tmp_path if own else plain, bento_home, **variables) as send:
        assert send("/predict", body) == (200, 2 if own else [1.5])
        while not any(one.kind == 2 for one in receiver.spans[before:]):
            time.sleep(0.05)  # BentoML alone sends nothing once it ends
    spans = receiver.spans[before:]
    (request,) = [one for one in spans if one.name == "POST /predict" and one.kind == 2]
    asked = [one.parent for one in spans if one.name == "predict failing"]
    assert asked == ([] if own else [request.id])


@pytest.mark.slow  # a tracking server
def test_mlflow_takes_the_traces_and_shows_them(plain: Path, talk: Any, mlflow_server: str) -> None:
    experiment = mlflow.MlflowClient(mlflow_server).create_experiment("served")
    talked = talk(
        plain,
        asked_from(PARENT, {"inputs": [ROW]}),
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"{mlflow_server}/v1/traces",
        OTEL_EXPORTER_OTLP_TRACES_HEADERS=f"x-mlflow-experiment-id={experiment}",
    )
    assert talked.statuses == [200]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
        found = mlflow.MlflowClient(mlflow_server).search_traces(locations=[experiment])
    (trace,) = found
    names = {span.name: span for span in trace.data.spans}
    assert set(names) == {"POST /predict", "predict failing"}
    assert names["predict failing"].parent_id == names["POST /predict"].span_id
