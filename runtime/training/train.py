"""A training from the table to the registered version, with all that later steps want to know."""

from __future__ import annotations

import contextlib
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.checks import (
    CLASSIFICATION,
    STATISTICS,
    class_scores,
    confusion,
    describe_data,
    number_scores,
)
from kfp_bento.runtime.errors import InvalidInput, ModelError
from kfp_bento.runtime.files import scratch_inside
from kfp_bento.runtime.models import choose_tracking, speaking_to, tracking_client
from kfp_bento.runtime.training.estimators import make_estimator, require_library, requirements_of
from kfp_bento.runtime.training.tables import read_training_table

if TYPE_CHECKING:
    from kfp_bento.runtime.checks import Statistics
    from kfp_bento.runtime.training.options import TrainOptions
    from kfp_bento.runtime.training.tables import TrainingTable

_EXAMPLES = 5


@dataclass(frozen=True)
class Trained:
    """A registered version, and what it is worth on the rows that it did not see.

    Attributes:
        uri: `models:/NAME/VERSION`.
        task: classification or regression.
        metrics: By name, with train_rows and test_rows.
    """

    uri: str
    task: str
    metrics: dict[str, float]


@dataclass(frozen=True)
class _Parts:
    """Rows to learn from, and rows to measure on."""

    train: Any
    train_labels: Any
    test: Any
    test_labels: Any


def train_model(
    library: str, data_uri: str, options: TrainOptions, *, tracking_uri: str = ""
) -> Trained:
    """Train a model on a table, and register it as a new version.

    The same data, options and packages give the same model. Its run holds the parameters, the
    metrics, and the statistics of the features as `statistics.json`.

    Args:
        library: scikit-learn, xgboost or lightgbm.
        data_uri: CSV, Parquet or JSONL: a file or a folder, as a path, s3://, minio://, or https://
            for one file. It has to fit into memory.
        options: What is trained, and how.
        tracking_uri: MLflow tracking server; "" takes the environment's.

    Raises:
        InvalidInput: Data or options do not fit, or the library is not installed.
        ModelError: The tracking server fails.
        StorageError: The data cannot be fetched.
    """
    require_library(library)
    tracking = choose_tracking(tracking_uri)
    table = read_training_table(data_uri, options)
    statistics = describe_data(
        data_uri, list(table.features.columns), input_format=options.input_format
    )
    answer = _answer(table.task, options)
    pipeline = make_estimator(library, table, options)
    parts = _split(table, options)
    _fit(pipeline, parts, options)
    metrics = _measured(table.task, parts.test_labels, pipeline.predict(parts.test))
    metrics |= {"train_rows": float(len(parts.train)), "test_rows": float(len(parts.test))}
    if not hasattr(pipeline, answer):
        raise InvalidInput(
            f"{_name(pipeline)} gives no probabilities.", hint="Leave probabilities out."
        )
    facts = {
        **{"data": data_uri.partition("?")[0], "data_digest": table.digest, "label": options.label},
        **{"task": table.task, "library": library, "estimator": _name(pipeline)},
        **{"seed": options.seed, "test_share": options.test_share},
    }
    with speaking_to(tracking), _tracked(tracking):
        tracking_client(tracking)
        version = _registered(
            (pipeline, answer),
            parts,
            {**options.params, **facts},
            metrics,
            statistics,
            requirements_of(library),
            options.model_name,
        )
    return Trained(f"models:/{options.model_name}/{version}", table.task, metrics)


def _answer(task: str, options: TrainOptions) -> str:
    """Give the method of the estimator that the registered model answers with."""
    if not options.probabilities:
        return "predict"
    if task != CLASSIFICATION:
        raise InvalidInput("A regression has no probabilities.", hint="Leave them out.")
    return "predict_proba"


def _name(pipeline: Any) -> str:
    estimator = pipeline.named_steps["estimator"]
    inner = estimator.estimators[0][1] if hasattr(estimator, "voting") else estimator
    return type(inner).__name__


def _split(table: TrainingTable, options: TrainOptions) -> _Parts:
    import numpy as np
    from sklearn.model_selection import train_test_split

    labels = table.labels
    even = table.task == CLASSIFICATION and np.unique(labels, return_counts=True)[1].min() > 1
    try:
        train, test, train_labels, test_labels = train_test_split(
            table.features,
            labels,
            test_size=options.test_share,
            random_state=options.seed,
            stratify=labels if even else None,
        )
    except ValueError as failure:
        raise InvalidInput(
            f"The {len(labels):,} rows cannot be split: {failure}",
            hint="Give more rows, or another test_share.",
        ) from failure
    return _Parts(train, train_labels, test, test_labels)


def _fit(pipeline: Any, parts: _Parts, options: TrainOptions) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # on columns that are empty, and the like
        try:
            pipeline.fit(parts.train, parts.train_labels)
        except (ValueError, TypeError, KeyError, RuntimeError) as failure:
            said = str(failure).splitlines()[0][:300] if str(failure) else type(failure).__name__
            given = ", ".join(f"{name}={value!r}" for name, value in options.params.items())
            raise InvalidInput(
                f"The training fails: {said.rstrip('.')}.",
                hint=f"Look at the data and at params ({given or 'none'}).",
            ) from failure


def _measured(task: str, truth: Any, predicted: Any) -> dict[str, float]:
    import numpy as np

    if task != CLASSIFICATION:
        return number_scores(truth.astype(np.float64), predicted.astype(np.float64))
    classes, codes = np.unique(np.concatenate([truth, predicted]), return_inverse=True)
    matrix = confusion(codes[: len(truth)], codes[len(truth) :], len(classes))
    return class_scores(matrix, 1 if len(classes) == 2 else None)


@contextlib.contextmanager
def _tracked(tracking: Any) -> Iterator[None]:
    """Let MLflow speak to these servers for the length of a block."""
    import mlflow

    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    mlflow.set_tracking_uri(tracking.tracking_uri)
    mlflow.set_registry_uri(tracking.registry_uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before[0])
        mlflow.set_registry_uri(before[1])


def _registered(
    answering: tuple[Any, str],
    parts: _Parts,
    params: dict[str, Any],
    metrics: dict[str, float],
    statistics: Statistics,
    requirements: list[str],
    model_name: str,
) -> str:
    """Log a run with the model, and give the version that it became."""
    import mlflow
    from mlflow.models import infer_signature

    pipeline, answer = answering
    with (
        scratch_inside(Path(tempfile.gettempdir()), "kfp-bento-training-") as scratch,
        warnings.catch_warnings(),
        mlflow.start_run(),
    ):
        warnings.simplefilter("ignore", UserWarning)  # on whole numbers in the signature
        mlflow.log_params(params)
        mlflow.log_metrics(metrics)
        statistics.save(scratch / STATISTICS)
        mlflow.log_artifact(str(scratch / STATISTICS))
        logged = mlflow.sklearn.log_model(
            pipeline,
            name="model",
            registered_model_name=model_name,
            pyfunc_predict_fn=answer,
            signature=infer_signature(parts.test, getattr(pipeline, answer)(parts.test)),
            input_example=parts.test.head(_EXAMPLES),
            # Equal trainings give equal bytes in this format, and no id of the run is in them.
            serialization_format="cloudpickle",
            pip_requirements=requirements,
        )
    version = str(logged.registered_model_version or "")
    if not version:
        raise ModelError(f"The model {model_name!r} was not registered.")
    return version
