"""MLServer's codecs judge the Open Inference Protocol: what they send is understood, and they
understand the answers.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import answer_kinds
import mlflow.pyfunc
import numpy as np
import packed_models as samples
import pytest
from conversations import Ask
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema, TensorSpec
from mlflow.types.schema import Array
from uv import find_uv_bin

from kfp_bento.runtime.models import load_model

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).parent
CODECS = HERE / "mlserver_codecs.py"
TABLE = Schema(
    [
        ColSpec("double", "a b"),
        ColSpec("long", "n"),
        ColSpec("string", "s"),
        ColSpec("boolean", "b"),
        ColSpec(Array(DataType.long), "many", required=False),
        ColSpec("binary", "bin", required=False),
        ColSpec("datetime", "at", required=False),
    ]
)
FIRST = {"a b": 1.5, "n": 7, "s": "x", "b": True}
SECOND = {"a b": None, "n": 2**53 + 1, "s": "ü", "b": False}
FRAME = [{**FIRST, "many": [1, 2]}, {**SECOND, "many": [3]}]
MORE = (
    {"bin": "/wA=", "at": "2024-05-06T07:08:09"},
    {"bin": "aGk=", "at": "2024-05-06T07:08:10.0005"},
)
PAIR = [[1.5, 2.0], [None, 4.0]]
ASKED: dict[str, tuple[str, Any]] = {
    "frame": ("table", FRAME),
    "frame and more": ("table", [{**row, **more} for row, more in zip(FRAME, MORE, strict=True)]),
    "each": ("table", [{**FIRST, **MORE[0]}, {**SECOND, **MORE[1]}]),
    "one column": ("column", [{"x": 1.5}, {"x": 2.0}]),
    "one column, flat": ("column", [{"x": 1.5}, {"x": 2.0}]),
    "columns at once": ("columns", [{"x": 1.5, "y": 2.0}, {"x": 3.0, "y": 4.0}]),
    "matrix": ("matrix", PAIR),
    "vector": ("vector", [1, 2]),
    "texts": ("words", ["a", "ü"]),
    "named": ("named", {"pair": PAIR, "text": ["a", "ü"], "raw": ["/wA=", "aGk="]}),
}
"""The model that a request of MLServer's codecs asks, and what asks the same on `/predict`."""


def tensor(dtype: str, *shape: int, name: str | None = None) -> TensorSpec:
    return TensorSpec(np.dtype(dtype), (-1, *shape), name)


SCHEMAS = {
    "table": TABLE,
    "column": Schema([ColSpec("double", "x")]),
    "columns": Schema([ColSpec("double", "x"), ColSpec("double", "y")]),
    "matrix": Schema([tensor("float32", 2)]),
    "vector": Schema([tensor("int16")]),
    "words": Schema([tensor("str")]),
    "named": Schema(
        [tensor("float32", 2, name="pair"), tensor("str", name="text"), tensor("S", name="raw")]
    ),
}


@pytest.fixture(scope="module")
def codecs(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Gives `codecs(*words, given=…)`: what the script says in MLServer's own environment."""
    python = tmp_path_factory.mktemp("mlserver") / "bin" / "python"
    uv = find_uv_bin()
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, python.parents[1]], check=True)
    install = [uv, "pip", "install", "-q", "--python", python, "mlserver==1.7.1", "pandas"]
    subprocess.run(install, check=True)

    def said(*words: str, given: Any = None) -> Any:
        done = subprocess.run(
            [python, CODECS, *words],
            check=True,
            text=True,
            stdout=subprocess.PIPE,
            input=json.dumps(given),
        )
        return json.loads(done.stdout)

    return said


def infer(model: str, body: Any) -> Ask:
    return Ask(body, path=f"/v2/models/{model}/infer")


@pytest.mark.slow
def test_what_mlservers_codecs_send_reaches_the_model_as_typed_json_does(
    codecs: Any, tmp_path: Path, generate: Any, talk: Any
) -> None:
    bodies = codecs()
    services = {
        name: generate(samples.save_echo(tmp_path / name, schema))
        for name, schema in SCHEMAS.items()
    }
    for name, (model, inputs) in ASKED.items():
        body = bodies.pop(name).encode().decode("latin-1")
        own, v2 = talk(services[model], Ask({"inputs": inputs}), infer(model, body)).answers
        assert own["status"] == v2["status"] == 200, (name, own, v2)
        (output,) = json.loads(v2["text"])["outputs"]
        assert [json.loads(one) for one in output["data"]] == json.loads(own["text"]), name
    # NumPy's arrays of bytes become one run of bytes: nobody knows where an element ends.
    refused = talk(services["named"], infer("named", bodies.pop("raw array"))).answers[0]
    assert refused["status"] == 400
    assert "1 elements for 2 of its shape" in refused["text"]
    assert not bodies


@pytest.mark.slow
def test_mlservers_codecs_read_the_values_that_the_model_gives(
    codecs: Any, tmp_path: Path, generate: Any, talk: Any
) -> None:
    mlflow.pyfunc.save_model(
        tmp_path / "kinds",
        python_model=str(HERE / "kinds_model.py"),
        code_paths=[str(HERE / "answer_kinds.py")],
        signature=ModelSignature(Schema([ColSpec("string", "kind")])),
        pip_requirements=["mlflow", "pandas"],
    )
    names = list(answer_kinds.answers())
    tensors = [{"name": "kind", "datatype": "BYTES", "shape": [1], "data": [one]} for one in names]
    asked = [infer("kinds", {"inputs": [one]}) for one in tensors]
    found = talk(generate(load_model(tmp_path / "kinds")), *asked)
    assert found.statuses == [200] * len(names), found.log
    given = dict(zip(names, found.bodies(), strict=True))
    assert codecs("read", given=given) == {}
