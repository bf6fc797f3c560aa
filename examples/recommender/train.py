"""Learn who likes what from ratings, and register the recommender as `recommender@prod`."""

from __future__ import annotations

import tempfile
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
from mlflow.models import infer_signature
from sklearn.decomposition import TruncatedSVD

NAME = "recommender"
HERE = Path(__file__).parent
KINDS = ["comedy", "crime", "history", "music", "nature", "space"]


def ratings(users: int, films_of_a_kind: int) -> pd.DataFrame:
    """Make up ratings from 1 to 5: everybody likes two kinds of films."""
    chance = np.random.default_rng(22)
    films = [f"{kind}-{number:02}" for kind in KINDS for number in range(films_of_a_kind)]
    quality = dict(zip(films, chance.normal(3, 0.5, len(films)), strict=True))
    rows = []
    for number in range(users):
        liked = chance.choice(KINDS, 2, replace=False)
        for film in chance.choice(films, 15, replace=False):
            taste = 1.2 if film.split("-")[0] in liked else -0.8
            stars = quality[film] + taste + chance.normal(0, 0.3)
            rows.append((f"user-{number:03}", film, float(np.clip(round(stars), 1, 5))))
    return pd.DataFrame(rows, columns=["user_id", "item_id", "stars"])


def factors(rated: pd.DataFrame) -> dict[str, np.ndarray]:
    """Break the table of ratings into factors of users and factors of items."""
    table = rated.pivot(index="user_id", columns="item_id", values="stars")
    seen = table.notna().to_numpy()
    centred = table.sub(table.mean(axis=1), axis=0).fillna(0.0).to_numpy()
    parts = TruncatedSVD(n_components=len(KINDS), random_state=1)
    user_factors = parts.fit_transform(centred)
    return {
        "users": table.index.to_numpy(dtype=str),
        "items": table.columns.to_numpy(dtype=str),
        "seen": seen,
        "user_factors": user_factors,
        "item_factors": parts.components_.T,
        "popular": table.mean(axis=0).to_numpy() * np.log1p(seen.sum(axis=0)),
    }


def main() -> None:
    """Learn, log and register."""
    learned = factors(ratings(users=150, films_of_a_kind=8))
    mlflow.set_experiment(NAME)
    example = pd.DataFrame({"user_id": ["user-001"]})
    answer = [[{"item_id": "space-01", "score": 1.5}]]
    with tempfile.TemporaryDirectory() as folder, mlflow.start_run():
        np.savez(f"{folder}/factors.npz", **learned)
        logged = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(HERE / "model.py"),
            artifacts={"factors": f"{folder}/factors.npz"},
            registered_model_name=NAME,
            signature=infer_signature(example, answer, params={"top_k": 5}),
            pip_requirements=str(HERE / "requirements.txt"),
        )
    version = str(logged.registered_model_version)
    mlflow.MlflowClient().set_registered_model_alias(NAME, "prod", version)
    print(f"{NAME}@prod is version {version}: {len(learned['users'])} users")


if __name__ == "__main__":
    main()
