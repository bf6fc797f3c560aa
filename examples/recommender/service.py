"""Recommend films: asked with a user and how many, it answers a ranked list."""

from __future__ import annotations

import bentoml
from pydantic import BaseModel, Field

with bentoml.importing():
    import mlflow.pyfunc
    import pandas as pd


class RankedItem(BaseModel):
    """A film, and how well it fits."""

    item_id: str
    score: float


class Recommendations(BaseModel):
    """Films for a user, the best first."""

    user_id: str
    ranked_items: list[RankedItem]


@bentoml.service
class Recommender:
    """Recommend films that a user has not seen; whoever is unknown gets what is popular."""

    reference = bentoml.models.BentoModel("recommender:latest")

    def __init__(self) -> None:
        self.model = mlflow.pyfunc.load_model(self.reference.path)

    @bentoml.api
    def recommend(
        self,
        user_id: str = Field(max_length=64, examples=["user-007"]),
        top_k: int = Field(default=5, ge=1, le=40),
    ) -> Recommendations:
        """Give the best films for a user, the best first."""
        users = pd.DataFrame({"user_id": [user_id]})
        (ranked,) = self.model.predict(users, params={"top_k": top_k})
        return Recommendations(user_id=user_id, ranked_items=ranked)
