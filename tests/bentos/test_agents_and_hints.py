"""Chat models and agents answer, and models with type hints are asked, as under MLflow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mlflow.pyfunc
import packed_models as samples
import pytest
from mlflow_judge import as_text, mlflow_server, proof_of

from kfp_bento.runtime.bentos import prediction_request

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CHAT_MODEL = """
import mlflow
from mlflow.types.llm import ChatChoice, ChatCompletionResponse, ChatMessage

class Model(mlflow.pyfunc.ChatModel):
    def predict(self, context, messages, params):
        message = ChatMessage(role="assistant", content=f"{messages} {params}")
        choice = ChatChoice(index=0, message=message)
        return ChatCompletionResponse(choices=[choice], created=1, id="x", model="m")

mlflow.models.set_model(Model())
"""
CHAT_AGENT = """
import mlflow
from mlflow.types.agent import ChatAgentMessage, ChatAgentResponse

class Model(mlflow.pyfunc.ChatAgent):
    def predict(self, messages, context=None, custom_inputs=None):
        content = f"{messages} {context} {custom_inputs}"
        return ChatAgentResponse(
            messages=[ChatAgentMessage(role="assistant", id="1", content=content)]
        )

mlflow.models.set_model(Model())
"""
RESPONSES_AGENT = """
import mlflow
from mlflow.types.responses import ResponsesAgentResponse

class Model(mlflow.pyfunc.ResponsesAgent):
    def predict(self, request):
        item = self.create_text_output_item(text=str(request), id="1")
        return ResponsesAgentResponse(output=[item])

    def predict_stream(self, request):
        yield from ()

mlflow.models.set_model(Model())
"""
MESSAGES = {"messages": [{"role": "system", "content": "short"}, {"role": "user", "content": "?"}]}
TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "parameters": {"properties": {"a": {"type": "string", "enum": ["x"]}}, "required": ["a"]},
    },
}
BODIES: dict[str, list[dict[str, Any]]] = {
    CHAT_MODEL: [
        MESSAGES,
        {**MESSAGES, "temperature": 0.25, "stop": ["a"], "stream": True, "top_k": 3},
        {**MESSAGES, "custom_inputs": {"a": [1, None, {"b": "c"}]}, "tools": [TOOL]},
    ],
    CHAT_AGENT: [
        MESSAGES,
        {**MESSAGES, "context": {"user_id": "ada"}, "custom_inputs": {"n": 1}},
    ],
    RESPONSES_AGENT: [
        {"input": [{"role": "user", "content": "?"}], "temperature": 0.5},
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": "?"}]}]},
        {"input": [{"role": "user", "content": "?"}], "context": {"conversation_id": "c"}},
    ],
}


@pytest.mark.parametrize("source", BODIES, ids=["ChatModel", "ChatAgent", "ResponsesAgent"])
def test_an_agent_answers_its_example_and_others_as_under_mlflow(
    source: str, tmp_path: Path, generate: Callable[..., Path], ask: Any
) -> None:
    (tmp_path / "agent.py").write_text(source)
    mlflow.pyfunc.save_model(
        tmp_path / "model", python_model=str(tmp_path / "agent.py"), pip_requirements=["mlflow"]
    )
    model = samples.load_model(tmp_path / "model")
    example = prediction_request(model)
    bodies = [example["inputs"][0], *BODIES[source]]
    found = ask(generate(model), *({"inputs": [body]} for body in bodies))
    with mlflow_server(tmp_path / "model") as post:
        wanted = [post(body) for body in bodies]
    assert found == wanted
    proven = proof_of(model)
    assert [proven({"inputs": [body]}) for body in bodies] == [as_text(*one) for one in found]
    assert {status for status, _ in wanted} == {200}


HINTED = """
import datetime, mlflow, pydantic

class Person(pydantic.BaseModel):
    name: str
    age: float | None = None
    born: datetime.datetime | None = None
    photo: bytes | None = None
    tags: dict[str, list[int]] = {}

class Model(mlflow.pyfunc.PythonModel):
    def predict(self, model_input: list[HINT], params=None) -> list[str]:
        return [repr(value) for value in model_input]

mlflow.models.set_model(Model())
"""
HINTS: dict[str, list[Any]] = {
    "str": ["a", None, 5],
    "float": [0.5, None, "x"],
    "datetime.datetime": ["2024-05-06T07:08:09.000001", "2024-05-06"],
    "bytes": ["/w==", "aGk=\n"],
    "dict[str, list[float]]": [{"a": [0.5]}, {}, {"a": [None]}, {"a": 1}],
    "Person": [
        {"name": "Ada", "age": 36, "tags": {"a": [1]}},
        {"name": "Ada", "age": None},
        {"name": "Ada", "tags": None},
        {"age": 36},
    ],
}


@pytest.mark.parametrize("hint", HINTS)
def test_a_model_with_type_hints_gets_what_mlflow_gives_it(
    hint: str, tmp_path: Path, generate: Callable[..., Path], ask: Any
) -> None:
    (tmp_path / "hinted.py").write_text(HINTED.replace("HINT", hint))
    mlflow.pyfunc.save_model(
        tmp_path / "model", python_model=str(tmp_path / "hinted.py"), pip_requirements=["mlflow"]
    )
    model = samples.load_model(tmp_path / "model")
    service, proven = generate(model), proof_of(model)
    found = ask(service, *({"inputs": [value]} for value in HINTS[hint]))
    with mlflow_server(tmp_path / "model") as post:
        wanted = [post({"inputs": [value]}) for value in HINTS[hint]]
    assert [status for status, _ in found] == [status for status, _ in wanted]
    expected = [proven({"inputs": [value]}) for value in HINTS[hint]]
    assert expected == [as_text(*one) for one in found]
    assert [answer for status, answer in found if status == 200] == [
        answer["predictions"] for status, answer in wanted if status == 200
    ]


def test_fields_of_type_hints_may_be_datetimes_and_bytes(
    tmp_path: Path, generate: Callable[..., Path], ask: Any
) -> None:
    (tmp_path / "hinted.py").write_text(HINTED.replace("HINT", "Person"))
    mlflow.pyfunc.save_model(
        tmp_path / "model", python_model=str(tmp_path / "hinted.py"), pip_requirements=["mlflow"]
    )
    person = {"name": "Ada", "born": "1815-12-10T01:00:00+01:00", "photo": "/w=="}
    model = samples.load_model(tmp_path / "model")
    ((status, answer),) = ask(generate(model), {"inputs": [person]})
    assert proof_of(model)({"inputs": [person]}) == as_text(status, answer)
    assert status == 200, answer  # MLflow's server hands texts on, which the hints refuse
    assert "born=datetime.datetime(1815, 12, 10, 0, 0), photo=b'\\xff'" in answer[0]
