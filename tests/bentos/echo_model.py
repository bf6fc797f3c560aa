"""A model that answers with what it was asked, so that a test sees what reached it."""

from typing import Any

import mlflow
import pandas as pd


def seen(value: Any) -> Any:
    """One cell or array as text, with its type."""
    return f"{type(value).__name__} {value!s}"


class Echo(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):  # hints would be taken for a signature
        given = {"params": params}
        if isinstance(model_input, pd.DataFrame):
            cells = {str(c): [seen(v) for v in model_input[c]] for c in model_input.columns}
            dtypes = {str(c): str(model_input[c].dtype) for c in model_input.columns}
            labels = [repr(c) for c in model_input.columns]
            return [{"kind": "frame", "labels": labels, "dtypes": dtypes, "cells": cells, **given}]
        if isinstance(model_input, dict):
            arrays = {k: f"{v.dtype} {v.shape} {v.tolist()}" for k, v in model_input.items()}
            return [{"kind": "arrays", "arrays": arrays, **given}]
        return [{"kind": "array", "array": seen(model_input), "dtype": str(model_input.dtype)}]


mlflow.models.set_model(Echo())
