"""The recommender as an MLflow model from code: what people with a similar taste liked.

MLflow stores this file with the model, and runs it to load the model.
"""

from __future__ import annotations

from typing import Any

import mlflow
import numpy as np
import pandas as pd


class Recommender(mlflow.pyfunc.PythonModel):
    """Rank items by the product of the factors of a user and of each item."""

    def load_context(self, context: Any) -> None:
        """Read the factors; no pickle is involved."""
        with np.load(context.artifacts["factors"], allow_pickle=False) as factors:
            self.items, self.popular = factors["items"], factors["popular"]
            self.seen, self.item_factors = factors["seen"], factors["item_factors"]
            self.users = dict(zip(factors["users"].tolist(), factors["user_factors"], strict=True))
            self.rows = {user: row for row, user in enumerate(factors["users"].tolist())}

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> list[list[dict[str, Any]]]:
        """Give the best items of each user that were not seen yet; who is unknown gets the popular.

        Args:
            context: Not used.
            model_input: A column `user_id`.
            params: `top_k`: how many items.
        """
        top_k = int((params or {}).get("top_k", 5))
        return [self.ranked(user, top_k) for user in model_input["user_id"]]

    def ranked(self, user: str, top_k: int) -> list[dict[str, Any]]:
        """Give the best items of one user, the best first."""
        if user in self.users:
            scores = self.item_factors @ self.users[user]
            scores = np.where(self.seen[self.rows[user]], -np.inf, scores)
        else:
            scores = self.popular
        best = [place for place in np.argsort(-scores, kind="stable") if scores[place] > -np.inf]
        return [
            {"item_id": str(self.items[place]), "score": float(scores[place])}
            for place in best[:top_k]
        ]


mlflow.models.set_model(Recommender())
