"""Ready-made training: a table becomes a registered model that pyfunc can ask, twice the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest

from kfp_bento.runtime.checks import find_statistics
from kfp_bento.runtime.errors import InvalidInput
from kfp_bento.runtime.training import TrainOptions, train_model
from kfp_bento.runtime.training.estimators import make_estimator, requirements_of
from kfp_bento.runtime.training.options import LIGHTGBM, SKLEARN, XGBOOST
from kfp_bento.runtime.training.tables import TrainingTable, read_training_table

LIBRARIES = (SKLEARN, XGBOOST, LIGHTGBM)
QUICK: dict[str, dict[str, Any]] = {
    SKLEARN: {"max_iter": 10.0, "min_samples_leaf": 5.0},
    XGBOOST: {"n_estimators": 10.0, "max_depth": 3.0},
    LIGHTGBM: {"n_estimators": 10.0, "min_child_samples": 5.0},
}


def customers(rows: int = 300) -> pd.DataFrame:
    """Who is old in Rome buys; with texts, booleans and missing values."""
    draw = np.random.default_rng(3)
    frame = pd.DataFrame(
        {
            "age": draw.integers(18, 90, rows),
            "income": draw.normal(30, 8, rows).round(2),
            "city": draw.choice(["Rome", "Oslo"], rows),
            "member [y/n]": draw.random(rows) < 0.5,
        }
    )
    frame["buys"] = np.where((frame["age"] > 50) & (frame["city"] == "Rome"), "yes", "no")
    frame["spent"] = frame["age"] * 1.5 + frame["income"]
    frame.loc[::17, "income"] = np.nan
    return frame


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("data") / "customers.parquet"
    customers().to_parquet(file)
    return str(file)


def options(label: str = "buys", library: str = SKLEARN, **more: Any) -> TrainOptions:
    features = ("age", "income", "city", "member [y/n]")
    known = {"model_name": "buyers", "features": features, "params": QUICK[library]}
    return TrainOptions(label=label, **{**known, **more})


def fitted(library: str, table: TrainingTable, **more: Any) -> Any:
    pipeline = make_estimator(library, table, options(library=library, **more))
    return pipeline.fit(table.features, table.labels)


@pytest.mark.parametrize("library", LIBRARIES)
def test_texts_booleans_and_gaps_are_learnt_from_by_every_library(library: str, data: str) -> None:
    table = read_training_table(data, options())
    first, second = fitted(library, table), fitted(library, table)
    assert (first.predict(table.features) == table.labels).mean() > 0.95
    assert set(first.predict(table.features)) == {"yes", "no"}
    strange = pd.DataFrame(
        {"age": [60], "income": [None], "city": ["Kyiv"], "member [y/n]": [True]}
    )
    assert first.predict(strange)[0] in ("yes", "no")
    both = [one.predict_proba(table.features) for one in (first, second)]
    assert np.array_equal(*both)


@pytest.mark.parametrize("library", LIBRARIES)
def test_numbers_are_predicted_where_the_label_is_one(library: str, data: str) -> None:
    table = read_training_table(data, options("spent"))
    assert table.task == "regression"
    errors = fitted(library, table).predict(table.features) - table.labels
    assert np.abs(errors).mean() < np.abs(table.labels - table.labels.mean()).mean() / 1.5


def test_classes_that_are_not_numbered_from_0_come_back_from_xgboost_as_they_are() -> None:
    features = pd.DataFrame({"x": np.arange(40.0)})
    for labels in (np.repeat([3, 7], 20), np.repeat([False, True], 20), np.repeat([0, 1], 20)):
        table = TrainingTable(features, (), labels, "classification", "")
        answers = fitted(XGBOOST, table).predict(features)
        assert (answers.dtype, answers.tolist()) == (labels.dtype, labels.tolist())


def test_other_estimators_get_filled_and_scaled_numbers(data: str) -> None:
    table = read_training_table(data, options())
    model = fitted(SKLEARN, table, estimator="LogisticRegression", params={"C": 10.0})
    assert model.named_steps["estimator"].C == 10
    assert (model.predict(table.features) == table.labels).mean() > 0.8


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"label": "bought"}, "no column 'bought'"),
        ({"label": ""}, "label is empty"),
        ({"features": ("age", "buys")}, "'buys' is among the features"),
        ({"features": ("age", "height")}, "no column 'height'"),
        ({"task": "regression"}, "'buys' holds string, and a regression"),
        ({"task": "clustering"}, "task is 'clustering'"),
        ({"test_share": 1.5}, "test_share is 1.5"),
        ({"params": {"depth": 3}}, "no parameter 'depth'"),
        ({"params": {"max_iter": -1}}, "The training fails"),
        ({"estimator": "RandomForestClasifier"}, "no estimator 'RandomForestClasifier'"),
        ({"estimator": "os.system"}, "no estimator 'os.system'"),
    ],
)
def test_what_cannot_be_trained_is_refused_by_its_name(
    more: dict[str, Any], told: str, data: str, tmp_path: Path
) -> None:
    (tmp_path / "mlflow.db").touch()
    with pytest.raises(InvalidInput, match=told):
        train_model(SKLEARN, data, options(**more), tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("a,y\n1,x\n2,\n", "label 'y' of row 2 is missing"),
        ("a,y\n1,x\n2,x\n", "one value only"),
        ("a,y\n", "no rows, or no features"),
    ],
)
def test_labels_that_teach_nothing_are_refused(lines: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(lines)
    with pytest.raises(InvalidInput, match=told):
        read_training_table(str(tmp_path / "rows.csv"), options("y", features=()))


def test_a_column_that_nothing_is_learnt_from_is_named(tmp_path: Path) -> None:
    frame = customers(20).assign(since=pd.Timestamp("2026-01-01"))
    frame.to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(InvalidInput, match=r"column 'since' holds timestamp"):
        read_training_table(str(tmp_path / "rows.parquet"), options(features=()))


def test_the_registered_version_has_all_that_later_steps_want(
    data: str, mlflow_server: str
) -> None:
    given = options(library=LIGHTGBM, seed=5)
    before = mlflow.get_tracking_uri()
    trained = train_model(LIGHTGBM, data, given, tracking_uri=mlflow_server)
    assert mlflow.get_tracking_uri() == before
    assert trained.uri == "models:/buyers/1"
    version = mlflow.MlflowClient().get_model_version("buyers", "1")
    run = mlflow.MlflowClient().get_run(version.run_id).data
    assert run.params["n_estimators"] == "10" and run.params["seed"] == "5"
    assert run.params["data_digest"].startswith("sha256:")
    assert run.metrics["accuracy"] == trained.metrics["accuracy"] > 0.9
    assert (run.metrics["train_rows"], run.metrics["test_rows"]) == (240, 60)
    info = mlflow.models.get_model_info(trained.uri)
    assert info.signature.inputs.input_names() == list(given.features)
    assert info.saved_input_example_info is not None
    statistics = find_statistics(model_uri=trained.uri, tracking_uri=mlflow_server)
    assert [one.name for one in statistics.columns] == list(given.features)
    assert statistics.rows == 300
    model = mlflow.pyfunc.load_model(trained.uri)
    assert set(model.predict(customers(20)[list(given.features)])) <= {"yes", "no"}


def test_a_model_may_answer_probabilities(data: str, mlflow_server: str) -> None:
    given = options(library=XGBOOST, model_name="likely buyers", probabilities=True)
    trained = train_model(XGBOOST, data, given, tracking_uri=mlflow_server)
    rows = customers(20)[list(given.features)]
    answers = mlflow.pyfunc.load_model(trained.uri).predict(rows)
    assert answers.shape == (20, 2)
    assert answers.sum(axis=1) == pytest.approx(1)
    with pytest.raises(InvalidInput, match="regression has no probabilities"):
        train_model(SKLEARN, data, options("spent", probabilities=True))


def test_a_model_names_the_packages_that_it_was_trained_with() -> None:
    lines = requirements_of(XGBOOST)
    assert lines[0].startswith("mlflow==")
    assert lines[-1].startswith("xgboost")
    assert requirements_of(SKLEARN) == lines[:-1]
