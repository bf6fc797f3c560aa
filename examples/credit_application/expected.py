"""Print what the registry's models make of requests.yaml, without BentoML: answers by label.

A request that is not there has to be refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import yaml

BOOSTER = mlflow.lightgbm.load_model("models:/risk_lightgbm@prod")
FRAUD = mlflow.sklearn.load_model("models:/fraud@prod")
RISKS = {
    "linear": mlflow.sklearn.load_model("models:/risk_linear@prod"),
    "xgboost": mlflow.xgboost.load_model("models:/risk_xgboost@prod"),
}


def answer(body: dict[str, Any]) -> dict[str, Any]:
    """Ask one model after the other, and decide as the service does."""
    row = pd.DataFrame([{"debt": 0, "foreign_address": False, **body}]).astype(float)
    money = row[["monthly_income", "monthly_expenses", "debt", "amount", "months"]]
    traces = row[["minutes_on_page", "applications_today", "account_age_days", "foreign_address"]]
    fraud = float(FRAUD.predict_proba(traces)[0, 1])
    risks = {name: float(RISKS[name].predict_proba(money)[0, 1]) for name in RISKS}
    risks["lightgbm"] = float(BOOSTER.predict(money)[0])
    mean, apart = sum(risks.values()) / 3, max(risks.values()) - min(risks.values())
    reasons = {
        "the loan is a burden": 0.3 <= mean < 0.6,
        "the models of risk disagree": apart >= 0.25 and mean < 0.6,
        "the loan is too heavy a burden": mean >= 0.6,
        "it looks like fraud": fraud >= 0.5,
    }
    declined = mean >= 0.6 or fraud >= 0.5
    return {
        "decision": "DECLINED" if declined else "MAYBE" if any(reasons.values()) else "APPROVED",
        "reasons": [reason for reason, holds in reasons.items() if holds],
        "fraud": fraud,
        "risks": risks,
    }


def main() -> None:
    """Answer all requests but the one that is refused."""
    requests = yaml.safe_load(Path(__file__).with_name("requests.yaml").read_text())
    taken = [one for one in requests if one["body"]["monthly_income"] >= 0]
    print(json.dumps({one["label"]: answer(one["body"]) for one in taken}))


if __name__ == "__main__":
    main()
