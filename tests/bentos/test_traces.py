"""A service makes traces only where somebody says where they go to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mlflow.pyfunc
import packed_models as samples
import pytest
from conversations import Ask

if TYPE_CHECKING:
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
    [({}, False), ({"MLFLOW_TRACKING_URI": SERVER}, True), ({"TRACES": SERVER}, True)],
)
def test_traces_are_made_only_where_somebody_says_where_they_go(
    variables: dict[str, str], traced: bool, service: Path, talk: Any
) -> None:
    talked = talk(service, Ask({"inputs": [1]}), **{"MLFLOW_TRACKING_URI": "", **variables})
    assert talked.bodies() == [[traced]], talked
