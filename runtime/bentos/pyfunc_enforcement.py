"""MLflow's enforcement of a signature, left out where it would change nothing.

This file lies beside the service in every bento that kfp-bento generates. The service has checked a
request against the signature already; MLflow checks the frame again, column by column, which takes
longer than many models need. Where each column has the very dtype of the signature, what comes of
that depends on columns and dtypes alone. So for each such set it is watched once what MLflow hands
to the model; where that is the frame as it was, a copy of the model that knows no signature is
asked from then on. Everything else goes MLflow's own way.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import operator
from collections.abc import Callable
from typing import Any

import bentoml

with bentoml.importing():
    import numpy as np
    import pandas as pd
    from mlflow.pyfunc import PyFuncModel

MOST_KINDS = 64
"""Sets of columns that are remembered: optional columns make many."""
UNKNOWN = np.dtype("V")


class Direct:
    """Stands for a model, and asks it past MLflow's enforcement where that changes nothing."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._dtypes = _dtypes(model)
        self._bare = _without_signature(model) if self._dtypes else None
        self._unchanged: dict[tuple[Any, ...], bool] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def predict(self, data: Any, *given: Any, **named: Any) -> Any:
        """Asks the model, as `PyFuncModel.predict` does."""
        if given or named or self._bare is None or not self._has_exact_dtypes(data):
            return self._model.predict(data, *given, **named)
        unchanged = self._unchanged.get(kind := tuple(data.columns))
        if unchanged is None and len(self._unchanged) < MOST_KINDS:
            return self._watched(data, kind)
        return (self._bare if unchanged else self._model).predict(data)

    def _has_exact_dtypes(self, data: Any) -> bool:
        if type(data) is not pd.DataFrame or type(data.index) is not pd.RangeIndex:
            return False
        return [*data.dtypes] == [self._dtypes.get(name, UNKNOWN) for name in data.columns]

    def _watched(self, data: pd.DataFrame, kind: tuple[Any, ...]) -> Any:
        """Asks the model MLflow's way, and remembers whether the frame reached it as it was."""
        bare: list[tuple[bool, Any]] = []

        def note(_: Any, frame: Any, named: Any) -> None:
            bare.append((frame is data, named))

        def compare(predict: Callable[..., Any], frame: Any, named: Any) -> Any:
            self._unchanged[kind] = bare == [(True, named)] and _are_same(frame, data)
            return predict(frame, **named)

        with contextlib.suppress(Exception):  # then it is MLflow's own way for ever
            _watching(self._bare, note).predict(data)
        return _watching(self._model, compare).predict(data)


def _dtypes(model: Any) -> dict[Any, Any]:
    """Gives the dtypes that MLflow leaves alone, by column; none where it looks at more."""
    if not isinstance(model, PyFuncModel) or not hasattr(model, "_predict_fn"):
        return {}
    try:
        schema = model.metadata.get_input_schema()
        params = model.metadata.get_params_schema()
        if schema is None or params is not None or schema.is_tensor_spec():
            return {}
        columns = schema.input_dict() if schema.has_input_names() else {}
        return {name: np.dtype(spec.type.to_pandas()) for name, spec in columns.items()}
    except AttributeError:  # arrays, objects and maps have no dtype; and this may be another MLflow
        return {}


def _without_signature(model: Any) -> Any:
    bare = copy.copy(model)
    bare._model_meta = copy.copy(model.metadata)
    bare._model_meta.signature = None
    return bare


def _watching(model: Any, ask: Callable[[Callable[..., Any], Any, Any], Any]) -> Any:
    """Gives a copy of a model that lets something else ask what its `predict` would ask."""
    watched, predict = copy.copy(model), model._predict_fn

    @functools.wraps(predict)  # MLflow looks at its parameters
    def asking(data: Any, **named: Any) -> Any:
        return ask(predict, data, named)

    watched._predict_fn = asking
    return watched


def _are_same(one: Any, other: pd.DataFrame) -> bool:
    """Says whether two frames are the same: cells that are objects have to be the same ones."""
    if type(one) is not pd.DataFrame or not one.columns.identical(other.columns):
        return False
    if not one.index.identical(other.index) or [*one.dtypes] != [*other.dtypes]:
        return False
    objects = [name for name in other.columns if other[name].dtype == object]
    rest = [name for name in other.columns if name not in objects]
    same = (map(operator.is_, one[name], other[name]) for name in objects)
    return all(map(all, same)) and one[rest].equals(other[rest])
