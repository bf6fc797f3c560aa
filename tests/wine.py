"""The model most tests use: trained on data that ships inside scikit-learn."""

from __future__ import annotations

import logging
import warnings
from importlib.metadata import version
from typing import Any


def requirements() -> list[str]:
    names = ("cloudpickle", "mlflow", "numpy", "pandas", "scikit-learn")
    return [f"{name}=={version(name)}" for name in names]


def log_wine_model(registered_name: str | None = "wine", **options: Any) -> Any:
    """Trains a pipeline on `load_wine`, logs it and gives MLflow's `ModelInfo`."""
    import mlflow
    from mlflow.models import infer_signature
    from sklearn.datasets import load_wine
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features, labels = load_wine(return_X_y=True, as_frame=True)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    model.fit(features, labels)
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    with warnings.catch_warnings(), mlflow.start_run():
        warnings.simplefilter("ignore")
        arguments: dict[str, Any] = {
            "name": "model",
            "registered_model_name": registered_name,
            "signature": infer_signature(features, model.predict(features)),
            "input_example": features.head(3),
            # Inferring the requirements takes eight seconds, and skops files hold a clock.
            "pip_requirements": requirements(),
            "serialization_format": "cloudpickle",
        }
        return mlflow.sklearn.log_model(model, **(arguments | options))
