"""Train a model of fraud and three of risk, each of another kind, and register them as `@prod`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from lightgbm import LGBMClassifier
from mlflow.models import infer_signature
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from xgboost import XGBClassifier

REQUIREMENTS = str(Path(__file__).with_name("requirements.txt"))
MONEY = ["monthly_income", "monthly_expenses", "debt", "amount", "months"]
TRACES = ["minutes_on_page", "applications_today", "account_age_days", "foreign_address"]


def past_applications(rows: int) -> tuple[pd.DataFrame, pd.Series, pd.Series]:
    """Make up applications: which were fraud, and which loans were not paid back."""
    chance = np.random.default_rng(21)
    past = pd.DataFrame(
        {
            "monthly_income": chance.integers(600, 6000, rows),
            "monthly_expenses": chance.integers(300, 3000, rows),
            "debt": chance.choice([0, 0, 500, 2000, 8000], rows),
            "amount": chance.integers(500, 20_000, rows),
            "months": chance.choice([6, 12, 24, 36, 60], rows),
            "minutes_on_page": chance.gamma(3, 3, rows).round(1),
            "applications_today": chance.poisson(0.5, rows),
            "account_age_days": chance.integers(0, 2000, rows),
            "foreign_address": chance.integers(0, 2, rows),
        }
    ).astype(float)
    hurry = 3 - past["minutes_on_page"] + 1.5 * past["applications_today"]
    hurry += 1.2 * past["foreign_address"] - past["account_age_days"] / 300
    left = (past["monthly_income"] - past["monthly_expenses"]).clip(lower=100)
    burden = (past["amount"] / past["months"] + past["debt"] / 60) / left
    fraud = pd.Series(chance.random(rows) < 1 / (1 + np.exp(-hurry)))
    return past, fraud, pd.Series(chance.random(rows) < 1 / (1 + np.exp(1.8 - 1.8 * burden)))


def register(name: str, flavor: Any, model: Any, data: pd.DataFrame, truth: pd.Series) -> None:
    """Fit a model, log it with its signature, and give its version the alias."""
    half = len(data) // 2
    model.fit(data[:half], truth[:half])
    chances = model.predict_proba(data[half:])[:, 1]
    pickled = {"serialization_format": "cloudpickle"} if flavor is mlflow.sklearn else {}
    # MLflow keeps a booster as LightGBM's own text, and the classifier around it as a pickle.
    kept = model.booster_ if flavor is mlflow.lightgbm else model
    with mlflow.start_run(run_name=name):
        mlflow.log_metric("roc_auc", roc_auc_score(truth[half:], chances))
        logged = flavor.log_model(
            kept,
            name="model",
            registered_model_name=name,
            signature=infer_signature(data, model.predict(data[:2])),
            pip_requirements=REQUIREMENTS,
            **pickled,
        )
    version = str(logged.registered_model_version)
    mlflow.MlflowClient().set_registered_model_alias(name, "prod", version)
    print(f"{name}@prod is version {version}: {roc_auc_score(truth[half:], chances):.3f}")


def main() -> None:
    """Train and register all four."""
    past, fraud, defaulted = past_applications(6000)
    money, traces = past[MONEY], past[TRACES]
    mlflow.set_experiment("credit_application")
    forest = RandomForestClassifier(n_estimators=40, max_depth=6, random_state=1)
    register("fraud", mlflow.sklearn, forest, traces, fraud)
    line = make_pipeline(StandardScaler(), LogisticRegression())
    register("risk_linear", mlflow.sklearn, line, money, defaulted)
    trees = XGBClassifier(n_estimators=40, max_depth=3, n_jobs=1)
    register("risk_xgboost", mlflow.xgboost, trees, money, defaulted)
    leaves = LGBMClassifier(n_estimators=40, num_leaves=8, verbose=-1, deterministic=True)
    register("risk_lightgbm", mlflow.lightgbm, leaves, money, defaulted)


if __name__ == "__main__":
    main()
