"""Estimators by name, behind one interface: scikit-learn's, which the other libraries share."""

from __future__ import annotations

import difflib
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.checks import CLASSIFICATION
from kfp_bento.runtime.errors import InvalidInput
from kfp_bento.runtime.training.options import LIGHTGBM, SKLEARN, XGBOOST

if TYPE_CHECKING:
    from kfp_bento.runtime.training.options import TrainOptions
    from kfp_bento.runtime.training.tables import TrainingTable

_MODULES = {SKLEARN: "sklearn", XGBOOST: "xgboost", LIGHTGBM: "lightgbm"}
_BOOSTING = "HistGradientBoosting"
_MOST_CATEGORIES = 100


def require_library(library: str) -> None:
    """Make sure that a library is there.

    Raises:
        InvalidInput: It is not.
    """
    missing = [name for name in ("sklearn", "pandas", _MODULES[library]) if find_spec(name) is None]
    if missing:
        raise InvalidInput(
            f"This training needs what is not installed: {', '.join(missing)}.",
            hint="pip install 'kfp-bento[training]'; as a step it needs an image with this extra.",
        )


def requirements_of(library: str) -> list[str]:
    """Give the packages that a trained model is loaded with, as they are installed here."""
    names = ["scikit-learn", "numpy", "pandas", "cloudpickle"]
    names += {XGBOOST: [_xgboost()], LIGHTGBM: ["lightgbm"]}.get(library, [])
    # An image of steps has MLflow's small distribution alone, of the same version.
    return [f"mlflow=={version('mlflow-skinny')}", *(f"{name}=={version(name)}" for name in names)]


def _xgboost() -> str:
    """Give the distribution of XGBoost that is installed; that without GPUs is much smaller."""
    try:
        version("xgboost-cpu")
    except PackageNotFoundError:
        return "xgboost"
    return "xgboost-cpu"


def make_estimator(library: str, table: TrainingTable, options: TrainOptions) -> Any:
    """Give a pipeline of scikit-learn: texts to numbers, then the estimator.

    Args:
        library: `SKLEARN`, `XGBOOST` or `LIGHTGBM`.
        table: Its columns and labels decide what is put before the estimator.
        options: The estimator, its parameters and its seed.

    Raises:
        InvalidInput: There is no such estimator or parameter.
    """
    from sklearn.pipeline import Pipeline

    kind = _estimator_class(library, table.task, options)
    estimator = _with_params(kind, _fixed(library, options), options)
    if library == XGBOOST and table.task == CLASSIFICATION and not _is_numbered(table.labels):
        from sklearn.ensemble import VotingClassifier

        # XGBoost takes 0, 1, 2 … only; an ensemble of one numbers other classes on both sides.
        estimator = VotingClassifier([(XGBOOST, estimator)], voting="soft")
    impute = library == SKLEARN and not kind.__name__.startswith(_BOOSTING)
    steps = [("columns", _columns(table, impute=impute)), ("estimator", estimator)]
    return Pipeline(steps)


def _estimator_class(library: str, task: str, options: TrainOptions) -> Any:
    classifier = task == CLASSIFICATION
    if library != SKLEARN:
        import importlib

        prefix = {XGBOOST: "XGB", LIGHTGBM: "LGBM"}[library]
        name = f"{prefix}{'Classifier' if classifier else 'Regressor'}"
        return getattr(importlib.import_module(_MODULES[library]), name)
    from sklearn.utils import all_estimators

    known = dict(all_estimators(type_filter="classifier" if classifier else "regressor"))
    default = f"{_BOOSTING}{'Classifier' if classifier else 'Regressor'}"
    name = options.estimator.rpartition(".")[2] or default
    if name not in known:
        near = difflib.get_close_matches(name, known, 3) or [default]
        raise InvalidInput(
            f"scikit-learn has no estimator {options.estimator!r} for a {task}.",
            hint=f"Such as {', '.join(near)}.",
        )
    return known[name]


def _fixed(library: str, options: TrainOptions) -> dict[str, Any]:
    """Give what makes a training repeatable, and quiet."""
    if library == LIGHTGBM:
        quiet = {"verbose": -1, "deterministic": True, "force_row_wise": True}
        return {"random_state": options.seed, **quiet}
    return {"random_state": options.seed}


def _with_params(kind: Any, fixed: dict[str, Any], options: TrainOptions) -> Any:
    try:
        known = kind().get_params()
        unknown = [name for name in options.params if name not in known]
        if unknown:
            near = difflib.get_close_matches(unknown[0], known, 3) or sorted(known)[:12]
            raise InvalidInput(
                f"{kind.__name__} has no parameter {unknown[0]!r} (params).",
                hint=f"It has {', '.join(near)}.",
            )
        fixed = {name: value for name, value in fixed.items() if name in known or name != _SEED}
        return kind(**{**fixed, **options.params})
    except TypeError as failure:
        raise InvalidInput(
            f"{kind.__name__} cannot be made of params: {failure}.",
            hint="Choose another estimator, or other parameters.",
        ) from failure


_SEED = "random_state"


def _is_numbered(labels: Any) -> bool:
    import numpy as np

    classes = np.unique(labels)
    return classes.dtype.kind in "iu" and classes.tolist() == list(range(len(classes)))


def _columns(table: TrainingTable, *, impute: bool) -> Any:
    """Give what makes numbers of all columns; names end here, as some libraries refuse many."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numbers = [name for name in table.features.columns if name not in table.texts]
    coded = OneHotEncoder(
        handle_unknown="infrequent_if_exist",
        max_categories=_MOST_CATEGORIES,
        sparse_output=False,
    )
    scaled = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    steps = [
        ("texts", coded, list(table.texts)),
        ("numbers", scaled if impute else "passthrough", numbers),
    ]
    return ColumnTransformer([step for step in steps if step[2]])
