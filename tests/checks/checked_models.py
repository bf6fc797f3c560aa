"""Models as values, with an input example on disk and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kfp_bento.runtime.models import ModelSignature, ModelVersion

INTEGERS = ({"type": "tensor", "tensor-spec": {"dtype": "int64", "shape": [-1]}},)
COLUMNS = (
    {"type": "double", "name": "a", "required": True},
    {"type": "double", "name": "b", "required": True},
)


def make_model(
    directory: Path,
    *,
    outputs: tuple[dict[str, Any], ...] = INTEGERS,
    inputs: tuple[dict[str, Any], ...] = COLUMNS,
    example: Any = None,
    **changes: Any,
) -> ModelVersion:
    directory.mkdir(parents=True, exist_ok=True)
    split = {"dataframe_split": {"columns": ["a", "b"], "data": [[1.0, 2.0], [3.0, 4.0]]}}
    payload = split if example is None else example
    (directory / "serving_input_example.json").write_text(json.dumps(payload))
    facts: dict[str, Any] = {
        "uri": "models:/pair/1",
        "name": "pair",
        "version": "1",
        "alias": "",
        "run_id": "",
        "model_id": "",
        "source": "",
        "digest": "sha256:" + "ab" * 32,
        "content_digest": "sha256:" + "cd" * 32,
        "flavors": ("python_function",),
        "python_version": "",
        "requirements": (),
        "mlflow_version": "",
        "size": 1,
        "signature": ModelSignature.from_dict({"inputs": list(inputs), "outputs": list(outputs)}),
        "aliases": {},
        "directory": directory,
    }
    return ModelVersion(**{**facts, **changes})
