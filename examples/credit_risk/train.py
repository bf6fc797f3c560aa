"""Train a classifier of loans that are not paid back, and register it as `credit_risk@prod`."""

from __future__ import annotations

from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
from sklearn.feature_extraction import DictVectorizer
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from xgboost import XGBClassifier

NAME = "credit_risk"
HOMES = {"owner": -0.8, "parents": 0.0, "rent": 0.4}
JOBS = {"fixed": -0.9, "freelance": 0.2, "part-time": 0.6, "none": 1.6}


def past_loans(rows: int) -> tuple[pd.DataFrame, pd.Series]:
    """Make up loans of the past, and say of each whether it was not paid back."""
    chance = np.random.default_rng(20)
    loans = pd.DataFrame(
        {
            "age": chance.integers(18, 75, rows),
            "home": chance.choice(list(HOMES), rows),
            "job": chance.choice(list(JOBS), rows, p=[0.6, 0.2, 0.12, 0.08]),
            "years_employed": chance.integers(0, 30, rows),
            "monthly_income": chance.integers(600, 6000, rows),
            "monthly_expenses": chance.integers(300, 3000, rows),
            "debt": chance.choice([0, 0, 500, 2000, 8000], rows),
            "amount": chance.integers(500, 20_000, rows),
            "months": chance.choice([6, 12, 24, 36, 60], rows),
        }
    )
    left = loans["monthly_income"] - loans["monthly_expenses"]
    burden = (loans["amount"] / loans["months"] + loans["debt"] / 60) / left.clip(lower=100)
    odds = 1.6 * burden.clip(upper=4) + loans["home"].map(HOMES) + loans["job"].map(JOBS) - 1.2
    odds -= 0.05 * loans["years_employed"]
    return loans, pd.Series(chance.random(rows) < 1 / (1 + np.exp(-odds)), name="defaulted")


def main() -> None:
    """Train, say how good it is, log and register."""
    loans, defaulted = past_loans(6000)
    train, test, train_defaulted, test_defaulted = train_test_split(
        loans.to_dict(orient="records"), defaulted, random_state=1
    )
    model = make_pipeline(
        DictVectorizer(sparse=False),
        XGBClassifier(n_estimators=60, max_depth=4, learning_rate=0.2, n_jobs=1),
    )
    model.fit(train, train_defaulted)
    quality = roc_auc_score(test_defaulted, model.predict_proba(test)[:, 1])
    mlflow.set_experiment(NAME)
    with mlflow.start_run():
        mlflow.log_metric("roc_auc", quality)
        logged = mlflow.sklearn.log_model(
            model,
            name="model",
            registered_model_name=NAME,
            serialization_format="cloudpickle",
            pip_requirements=str(Path(__file__).with_name("requirements.txt")),
        )
    version = str(logged.registered_model_version)
    mlflow.MlflowClient().set_registered_model_alias(NAME, "prod", version)
    print(f"{NAME}@prod is version {version}: area under the curve {quality:.3f}")


if __name__ == "__main__":
    main()
