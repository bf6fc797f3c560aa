"""Models of a few lines, written as MLflow writes them: their code is what a test is about."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from kfp_bento.runtime.models import ModelVersion, load_model

COLUMNS = ({"type": "double", "name": "a", "required": True},)
NUMBERS = ({"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1]}},)
EXAMPLE = {"dataframe_split": {"columns": ["a"], "data": [[1.0], [2.5]]}}
TWICE = """\
def _load_pyfunc(path):
    return Model()

class Model:
    def predict(self, inputs):
        return (inputs["a"] * 2).to_numpy()
"""


def requirements() -> list[str]:
    return [f"{name}=={version(name)}" for name in ("mlflow", "numpy", "pandas")]


def small_model(
    folder: Path,
    source: str = TWICE,
    *,
    inputs: Any = COLUMNS,
    outputs: Any = NUMBERS,
    example: Any = EXAMPLE,
    needs: tuple[str, ...] = (),
    flavors: str = "",
    python: str = "",
) -> ModelVersion:
    """A model whose loader is `source`; without example or signature where these are None."""
    module = f"loader_{folder.name}"
    (folder / "code").mkdir(parents=True)
    (folder / "code" / f"{module}.py").write_text(source)
    lines = [
        "flavors:",
        "  python_function:",
        f"    loader_module: {module}",
        "    code: code",
        *([f"    python_version: {python}"] if python else []),
        *([f"  {flavors}: {{}}"] if flavors else []),
    ]
    if inputs is not None:
        lines += ["signature:", f"  inputs: {json.dumps(json.dumps(inputs))}"]
        lines += [f"  outputs: {json.dumps(json.dumps(outputs))}"] if outputs else []
    (folder / "MLmodel").write_text("\n".join(lines) + "\n")
    (folder / "requirements.txt").write_text("\n".join([*requirements(), *needs]) + "\n")
    if example is not None:
        (folder / "serving_input_example.json").write_text(json.dumps(example))
    return load_model(folder)
