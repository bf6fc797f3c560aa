"""Decide on an application for a loan: APPROVED, DECLINED, or MAYBE where a person has to look."""

from __future__ import annotations

from typing import Literal

import bentoml
from pydantic import BaseModel, ConfigDict, Field

with bentoml.importing():
    import mlflow.sklearn

APPROVED_BELOW, DECLINED_FROM = 0.2, 0.5


class Application(BaseModel):
    """What a customer states; money is in euros."""

    model_config = ConfigDict(extra="forbid")

    age: int = Field(ge=18, le=120)
    home: Literal["owner", "parents", "rent"]
    job: Literal["fixed", "freelance", "part-time", "none"]
    years_employed: int = Field(ge=0, le=80)
    monthly_income: int = Field(ge=0, le=1_000_000)
    monthly_expenses: int = Field(ge=0, le=1_000_000)
    debt: int = Field(default=0, ge=0)
    amount: int = Field(ge=100, le=100_000, description="The loan")
    months: int = Field(ge=3, le=120, description="Until it is paid back")


class Decision(BaseModel):
    """What becomes of an application."""

    status: Literal["APPROVED", "MAYBE", "DECLINED"]
    risk: float = Field(description="How likely the loan is not paid back, from 0 to 1")


@bentoml.service
class Scorer:
    """The model: applications that come in together are scored in one call."""

    reference = bentoml.models.BentoModel("credit_risk:latest")

    def __init__(self) -> None:
        self.model = mlflow.sklearn.load_model(self.reference.path)

    @bentoml.api(batchable=True, max_batch_size=64, max_latency_ms=2000)
    def score(self, applications: list[Application]) -> list[float]:
        """Give the risk of each application, from 0 to 1."""
        rows = [application.model_dump() for application in applications]
        return [float(risk) for risk in self.model.predict_proba(rows)[:, 1]]


@bentoml.service(traffic={"timeout": 30})
class CreditRisk:
    """Decide on applications for loans."""

    scorer = bentoml.depends(Scorer)

    @bentoml.api
    async def decide(self, application: Application, /) -> Decision:
        """Decide on one application."""
        (risk,) = await self.scorer.to_async.score([application])
        if risk < APPROVED_BELOW:
            return Decision(status="APPROVED", risk=risk)
        return Decision(status="DECLINED" if risk >= DECLINED_FROM else "MAYBE", risk=risk)
