"""Versions of a model that multiply, each by another number, and variables that make them bad."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import pandas as pd
from small_models import requirements

MODEL = """\
import os
import time

import mlflow


class Times(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        while "HANGS" in os.environ:
            time.sleep(1)

    def predict(self, context, model_input, params=None):
        wrong = os.path.exists(os.environ.get("WRONG_WHEN", ""))
        return (model_input["a"] * {factor} + wrong / 2).to_numpy()


mlflow.models.set_model(Times())
"""
HANGS = [{"name": "HANGS", "value": "1"}]
WRONG = [{"name": "WRONG_WHEN", "value": "/"}]
"""In both cases the proof of the bento goes well: it does not know these variables."""


def register(name: str, folder: Path, factor: int, needs: list[str] | None = None) -> None:
    """Registers one more version of a model, which multiplies.

    Args:
        name: The model's.
        folder: Where its source goes.
        factor: By what it multiplies.
        needs: Its requirements; none: the fewest.
    """
    import mlflow
    from mlflow.models import infer_signature

    source = folder / f"times_{factor}.py"
    source.write_text(MODEL.replace("{factor}", str(factor)))
    example = pd.DataFrame({"a": [1.0, 2.5]})
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    with warnings.catch_warnings(), mlflow.start_run():
        warnings.simplefilter("ignore")
        mlflow.pyfunc.log_model(
            name="model",
            python_model=str(source),
            registered_model_name=name,
            signature=infer_signature(example, example["a"].to_numpy() * factor),
            input_example=example,
            pip_requirements=needs or requirements(),
        )
