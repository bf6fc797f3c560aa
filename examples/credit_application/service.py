"""Four models look at an application at the same time; one decision is made, with reasons."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Literal

import bentoml
from pydantic import BaseModel, ConfigDict, Field

with bentoml.importing():
    import mlflow.lightgbm
    import mlflow.sklearn
    import mlflow.xgboost
    import pandas as pd

MONEY = ["monthly_income", "monthly_expenses", "debt", "amount", "months"]
TRACES = ["minutes_on_page", "applications_today", "account_age_days", "foreign_address"]


class Application(BaseModel):
    """What a customer states, and how it was sent."""

    model_config = ConfigDict(extra="forbid")

    monthly_income: float = Field(ge=0)
    monthly_expenses: float = Field(ge=0)
    debt: float = Field(default=0, ge=0)
    amount: float = Field(ge=100, le=100_000)
    months: int = Field(ge=3, le=120)
    minutes_on_page: float = Field(ge=0)
    applications_today: int = Field(ge=0)
    account_age_days: int = Field(ge=0)
    foreign_address: bool = False


class Decision(BaseModel):
    """One decision, why it was made, and what each model said."""

    decision: Literal["APPROVED", "MAYBE", "DECLINED"]
    reasons: list[str]
    fraud: float
    risks: dict[str, float]


@bentoml.service(traffic={"timeout": 30})
class CreditApplication:
    """Decide on applications for loans, and keep fraud out."""

    fraud = bentoml.models.BentoModel("fraud:latest")
    linear = bentoml.models.BentoModel("risk_linear:latest")
    xgboost = bentoml.models.BentoModel("risk_xgboost:latest")
    lightgbm = bentoml.models.BentoModel("risk_lightgbm:latest")

    def __init__(self) -> None:
        self.chance_of_fraud = second_class(mlflow.sklearn.load_model(self.fraud.path))
        self.risks = {
            "lightgbm": mlflow.lightgbm.load_model(self.lightgbm.path).predict,
            "linear": second_class(mlflow.sklearn.load_model(self.linear.path)),
            "xgboost": second_class(mlflow.xgboost.load_model(self.xgboost.path)),
        }

    @bentoml.api
    async def decide(self, application: Application, /) -> Decision:
        """Ask all models at once, and decide."""
        row = pd.DataFrame([application.model_dump()]).astype(float)
        asked = [asyncio.to_thread(self.chance_of_fraud, row[TRACES])]
        asked += [asyncio.to_thread(risk, row[MONEY]) for risk in self.risks.values()]
        fraud, *risks = [float(chances[0]) for chances in await asyncio.gather(*asked)]
        return decision(fraud, dict(zip(self.risks, risks, strict=True)))


def second_class(model: Any) -> Callable[[pd.DataFrame], Any]:
    """Give what a classifier says of each row: how likely it is of the second class."""
    return lambda rows: model.predict_proba(rows)[:, 1]


def decision(fraud: float, risks: dict[str, float]) -> Decision:
    """Make one decision of what four models said."""
    mean, apart = sum(risks.values()) / len(risks), max(risks.values()) - min(risks.values())
    made: Literal["APPROVED", "MAYBE", "DECLINED"] = "APPROVED"
    reasons = []
    if mean >= 0.3:
        made = "MAYBE"
        reasons.append("the loan is a burden")
    if apart >= 0.25:
        made = "MAYBE"
        reasons.append("the models of risk disagree")
    if mean >= 0.6:
        made = "DECLINED"
        reasons = ["the loan is too heavy a burden"]
    if fraud >= 0.5:
        made = "DECLINED"
        reasons.append("it looks like fraud")
    return Decision(decision=made, reasons=reasons, fraud=fraud, risks=risks)
