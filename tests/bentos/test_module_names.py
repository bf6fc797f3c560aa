"""A model's own modules beside those of the service."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import packed_models as samples
import pytest
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema

from kfp_bento.runtime.bentos.build import build_bento
from kfp_bento.runtime.errors import BentoError

COLUMNS = Schema([ColSpec("double", "x")])


def model_with(module: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A model that imports a function from a module, or a package, of its own."""
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    file = folder / module
    file.parent.mkdir(exist_ok=True)
    file.write_text("def scale(x):\n    return [3 * value for value in x]\n")
    name = module.removesuffix(".py").removesuffix("/__init__")
    (folder / "model.py").write_text(
        f"import mlflow\nfrom {name} import scale\n"
        "class Model(mlflow.pyfunc.PythonModel):\n"
        "    def predict(self, context, model_input, params=None):\n"
        "        return scale(model_input['x'])\n"
        "mlflow.models.set_model(Model())\n"
    )
    mlflow.pyfunc.save_model(
        folder / "saved",
        python_model=str(folder / "model.py"),
        code_paths=[str(folder / module.partition("/")[0])],
        signature=ModelSignature(inputs=COLUMNS),
        pip_requirements=["mlflow", "pandas"],
    )
    sys.modules.pop(name, None)
    return samples.load_model(folder / "saved")


def test_a_model_may_have_a_module_called_service(
    tmp_path: Path, generate: Any, ask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = generate(model_with("service.py", tmp_path / "model", monkeypatch))
    assert ask(service, {"inputs": [{"x": 2}, {"x": 4}]}) == [(200, [6.0, 12.0])]


@pytest.mark.parametrize("module", ["kfp_bento_service.py", "pyfunc_json/__init__.py"])
def test_a_module_with_a_name_of_the_services_own_is_refused_by_file(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "/" in module:
        monkeypatch.setitem(sys.modules, "pyfunc_json", None)  # what other tests have imported
        del sys.modules["pyfunc_json"]
    model = model_with(module, tmp_path / "model", monkeypatch)
    with pytest.raises(BentoError, match=f"brings the file code/{module}"):
        build_bento([model], tmp_path / "bento")
