"""Small real models, saved by MLflow itself."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow.pyfunc
import mlflow.sklearn
import numpy as np
import pandas as pd
from mlflow.models import ModelSignature, infer_signature
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_digits, load_wine
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from kfp_bento.runtime.models import load_model

if TYPE_CHECKING:
    from mlflow.types import Schema

    from kfp_bento.runtime.models import ModelVersion

QUICK = {"pip_requirements": ["mlflow", "scikit-learn", "pandas"]}
"""Options of those who need no requirements: MLflow starts a process to find them."""

ECHO = Path(__file__).with_name("echo_model.py")


def wine_columns() -> pd.DataFrame:
    return load_wine(as_frame=True).data


def save_wine(path: Path, **options: Any) -> ModelVersion:
    """Named double columns, int64 answers."""
    data = wine_columns()
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    model.fit(data, load_wine().target)
    signature = infer_signature(data, model.predict(data))
    mlflow.sklearn.save_model(
        model, path, signature=signature, input_example=data.head(3), **options
    )
    return load_model(path)


def people() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "age in years": [31, None, 45, 52, None, 38],
            "class": ["a", "b", "a", None, "b", "a"],
            "children": [0, 1, 2, 1, 0, 3],
        }
    )


def save_people(path: Path, **options: Any) -> ModelVersion:
    """Integer columns with missing values, strings, a keyword and a space as names."""
    data = people()
    model = make_pipeline(
        make_column_transformer(
            (SimpleImputer(), ["age in years", "children"]),
            (OneHotEncoder(handle_unknown="ignore"), ["class"]),
        ),
        Ridge(),
    ).fit(data, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    signature = infer_signature(data, model.predict(data))
    mlflow.sklearn.save_model(
        model,
        path,
        signature=signature,
        input_example=data.head(2),
        serialization_format="cloudpickle",
        **options,
    )
    return load_model(path)


def digits() -> np.ndarray:
    return load_digits().data.astype("float32")


def save_digits(path: Path, **options: Any) -> ModelVersion:
    """One unnamed tensor in, one tensor out."""
    data = digits()
    model = LogisticRegression(max_iter=30, tol=0.1).fit(data, load_digits().target)
    signature = infer_signature(data, model.predict_proba(data))
    mlflow.sklearn.save_model(
        model,
        path,
        signature=signature,
        input_example=data[:2],
        pyfunc_predict_fn="predict_proba",
        **options,
    )
    return load_model(path)


def save_echo(
    path: Path,
    inputs: Schema | None = None,
    params: Any = None,
    example: Any = None,
    outputs: Schema | None = None,
) -> ModelVersion:
    """A model with any signature that answers with what reached it."""
    known = inputs is not None or params is not None
    signature = ModelSignature(inputs=inputs, outputs=outputs, params=params) if known else None
    mlflow.pyfunc.save_model(
        path,
        python_model=str(ECHO),
        signature=signature,
        pip_requirements=["mlflow", "pandas"],
    )
    model = load_model(path)
    if example is not None:
        (path / "serving_input_example.json").write_text(example)
    return model


A_MOMENT = datetime(2024, 5, 6, 7, 8, 9)
