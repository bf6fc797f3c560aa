"""Train a classifier of customers that leave, and register it as `churn@prod`."""

from __future__ import annotations

from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

NAME = "churn"


def customers(rows: int) -> tuple[pd.DataFrame, pd.Series]:
    """Make up customers, and say of each whether he or she left."""
    chance = np.random.default_rng(7)
    seen = pd.DataFrame(
        {
            "months": chance.integers(1, 72, rows),
            "monthly_price": chance.uniform(15, 110, rows).round(2),
            "calls_to_support": chance.poisson(1.2, rows),
            "late_payments": chance.poisson(0.4, rows),
        }
    )
    odds = -1.2 - 0.04 * seen["months"] + 0.02 * seen["monthly_price"]
    odds += 0.5 * seen["calls_to_support"] + 0.7 * seen["late_payments"]
    return seen, pd.Series(chance.random(rows) < 1 / (1 + np.exp(-odds)), name="left")


def main() -> None:
    """Train, say how good it is, log and register."""
    seen, left = customers(4000)
    train, test, train_left, test_left = train_test_split(seen, left, random_state=1)
    model = make_pipeline(StandardScaler(), LogisticRegression())
    model.fit(train, train_left)
    quality = roc_auc_score(test_left, model.predict_proba(test)[:, 1])
    mlflow.set_experiment(NAME)
    with mlflow.start_run():
        mlflow.log_metric("roc_auc", quality)
        logged = mlflow.sklearn.log_model(
            model,
            name="model",
            registered_model_name=NAME,
            input_example=test.head(5),
            serialization_format="cloudpickle",
            pip_requirements=str(Path(__file__).with_name("requirements.txt")),
        )
    version = str(logged.registered_model_version)
    mlflow.MlflowClient().set_registered_model_alias(NAME, "prod", version)
    print(f"{NAME}@prod is version {version}: area under the curve {quality:.3f}")


if __name__ == "__main__":
    main()
