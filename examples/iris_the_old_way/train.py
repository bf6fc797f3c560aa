"""Train a classifier of irises, and register it as `iris@prod`."""

from __future__ import annotations

from pathlib import Path

import mlflow
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

NAME = "iris"


def main() -> None:
    """Train, say how good it is, log and register."""
    flowers = load_iris()
    train, test, train_kinds, test_kinds = train_test_split(
        flowers.data, flowers.target, random_state=1
    )
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(train, train_kinds)
    quality = model.score(test, test_kinds)
    mlflow.set_experiment(NAME)
    with mlflow.start_run():
        mlflow.log_metric("accuracy", quality)
        logged = mlflow.sklearn.log_model(
            model,
            name="model",
            registered_model_name=NAME,
            serialization_format="cloudpickle",
            pip_requirements=str(Path(__file__).with_name("requirements.txt")),
        )
    version = str(logged.registered_model_version)
    mlflow.MlflowClient().set_registered_model_alias(NAME, "prod", version)
    print(f"{NAME}@prod is version {version}: accuracy {quality:.3f}")


if __name__ == "__main__":
    main()
