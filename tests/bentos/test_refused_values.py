"""Whose fault it is when a model gives no answer: the caller's (400) or the service's (500).

MLflow's own server says 400 to whatever a model raises. So does the service where the exception is
about values; where it is about the machine it says 500, so that clients try again and alarms ring.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mlflow.pyfunc
import packed_models as samples
import pytest
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema
from mlflow_judge import mlflow_server

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SECRET = "Ada-Lovelace-1815"
RAISING = """
import mlflow
from mlflow.exceptions import MlflowException

class LightGBMError(Exception): pass
class InvalidArgument(Exception): pass
class NotFittedError(ValueError, AttributeError): pass
class OutOfMemoryError(RuntimeError): pass

def check():
    import pydantic
    pydantic.TypeAdapter(int).validate_python("SECRET")

class Model(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return exec(model_input["code"][0], globals())

mlflow.models.set_model(Model())
""".replace("SECRET", SECRET)

OF_VALUES = [
    f"raise ValueError('{SECRET}')",
    f"raise TypeError('{SECRET}')",
    f"{{}}['{SECRET}']",
    "[][0]",
    "1 / 0",
    "assert False",
    f"raise UnicodeDecodeError('utf-8', b'', 0, 1, '{SECRET}')",
    f"raise LightGBMError('{SECRET}')",
    f"raise InvalidArgument('{SECRET}')",
    f"raise MlflowException.invalid_parameter_value('{SECRET}')",
    "check()",
]
OF_THE_MACHINE = [
    f"open('/no/such/{SECRET}')",
    f"raise ConnectionError('{SECRET}')",
    "raise TimeoutError",
    "raise MemoryError",
    f"raise OutOfMemoryError('{SECRET}')",
    "raise RuntimeError('CUDA error')",
    "raise NotFittedError('fit it first')",
    "None.x",
    "unknown_name",
    "import no_such_module",
    "raise NotImplementedError",
]


@pytest.fixture(scope="module")
def raising(tmp_path_factory: Any) -> Path:
    folder = tmp_path_factory.mktemp("raising")
    (folder / "model.py").write_text(RAISING)
    signature = ModelSignature(inputs=Schema([ColSpec("string", "code")]))
    mlflow.pyfunc.save_model(
        folder / "model",
        python_model=str(folder / "model.py"),
        signature=signature,
        pip_requirements=["mlflow"],
    )
    return folder / "model"


def test_a_models_refusal_of_values_is_the_callers_mistake_as_under_mlflow(
    raising: Path, generate: Callable[..., Path], ask: Any
) -> None:
    bodies = [{"inputs": [{"code": code}]} for code in (*OF_VALUES, *OF_THE_MACHINE)]
    answers = ask(generate(samples.load_model(raising)), *bodies)
    with mlflow_server(raising) as post:
        theirs = {post({"dataframe_records": body["inputs"]})[0] for body in bodies}
    found = dict(zip((*OF_VALUES, *OF_THE_MACHINE), answers, strict=True))
    wanted = {**dict.fromkeys(OF_VALUES, 400), **dict.fromkeys(OF_THE_MACHINE, 500)}
    assert {code: status for code, (status, _) in found.items()} == wanted
    assert theirs == {400}  # here the service differs on purpose
    assert SECRET not in str(answers)
    assert "the model refuses the input (ValueError)" in str(found[OF_VALUES[0]])


def test_an_answer_without_json_form_is_no_mistake_of_the_caller(
    tmp_path: Path, generate: Any, ask: Any
) -> None:
    (tmp_path / "model.py").write_text(
        "import mlflow\n"
        "class Model(mlflow.pyfunc.PythonModel):\n"
        "    def predict(self, context, model_input, params=None):\n"
        "        return object()\n"
        "mlflow.models.set_model(Model())\n"
    )
    mlflow.pyfunc.save_model(
        tmp_path / "model", python_model=str(tmp_path / "model.py"), pip_requirements=["mlflow"]
    )
    model = samples.load_model(tmp_path / "model")
    assert ask(generate(model), {"inputs": [1]})[0][0] == 500
