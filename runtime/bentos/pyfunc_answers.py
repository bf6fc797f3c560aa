"""A model's answer as plain JSON, and whose fault it is where there is none.

This file lies beside `service.py` in every bento that kfp-bento generates.
"""

from __future__ import annotations

import base64
import dataclasses
import math
import re
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import bentoml
from bentoml.exceptions import InvalidArgument
from pydantic import BaseModel
from pyfunc_guard import log, traced  # type: ignore[import-not-found]

with bentoml.importing():  # the image has these; the machine that builds the bento may not
    import numpy as np
    import pandas as pd
    from mlflow.exceptions import MlflowException


def answer(model: Any, inputs: Any, params: BaseModel | None = None) -> Any:
    """Asks an MLflow model and gives its answer as plain JSON; see `asked` and `plain`."""
    return plain(asked(model, inputs, params))


def asked(model: Any, inputs: Any, params: BaseModel | None = None) -> Any:
    """Asks an MLflow model and gives its answer as it is.

    `params` are handed on only where the signature has some: MLflow before 2.6 knows none.

    Raises:
        bentoml.exceptions.InvalidArgument: MLflow or the model refuses the input (HTTP status 400).
    """
    given = {} if params is None else {"params": _plain_params(params)}
    try:
        return model.predict(inputs, **given)
    except MlflowException as error:
        reason = _MLFLOW_REASONS.search(str(error))
        if error.get_http_status_code() != 400 and not reason:
            raise
        told = f": {reason[0]}" if reason else ""
        raise InvalidArgument(f"MLflow finds that the input does not fit{told}") from error
    except Exception as error:
        if not _is_about_values(error):
            raise
        log.warning("The model refused its input\n%s", traced(error))
        told = f"the model refuses the input ({type(error).__name__})"
        raise InvalidArgument(f"{told}; the service's log says where") from error


# What MLflow says without quoting values.
_MLFLOW_REASONS = re.compile(
    r"(?:Model is missing|Missing required|Incompatible input types|Shape of input|dtype of input)"
    r"[^\n]{,200}"
)
_ABOUT_VALUES = (ValueError, TypeError, LookupError, ArithmeticError, AssertionError)
_NOT_ABOUT_VALUES = (OSError, AttributeError)  # as sklearn's NotFittedError
_NAMES_ABOUT_VALUES = {"LightGBMError", "CatBoostError", "InvalidArgument", "InvalidArgumentError"}


def _is_about_values(error: Exception) -> bool:
    """Says whether a model found fault with what it was asked.

    MLflow's server says so of every exception. Here a file that is gone, memory that is used up, a
    GPU or a server that failed are the service's own failures, and callers may try again.
    """
    names = {kind.__name__ for kind in type(error).__mro__}
    if isinstance(error, _ABOUT_VALUES) or names & _NAMES_ABOUT_VALUES:
        return not isinstance(error, _NOT_ABOUT_VALUES)
    return False


def _plain_params(params: BaseModel) -> dict[str, Any]:
    """Gives parameters as MLflow takes them: its datetimes end at microseconds."""
    return {name: _param(value) for name, value in params.model_dump(by_alias=True).items()}


def _param(value: Any) -> Any:
    if isinstance(value, np.datetime64):
        return value.astype("datetime64[us]").item()
    return [_param(item) for item in value] if isinstance(value, list) else value


def plain(value: Any) -> Any:
    """Gives an answer as plain JSON.

    A DataFrame becomes a list of records, a Series or an array a list, a datetime ISO 8601 to the
    nanosecond, a timedelta seconds, bytes base64. JSON knows neither NaN nor infinity: they and all
    missing values become null.

    Raises:
        TypeError: The answer holds something that has no JSON form.
    """
    if isinstance(value, pd.DataFrame):
        columns = [plain(value.iloc[:, n]) for n in range(value.shape[1])]
        if not columns:
            return [{} for _ in range(len(value))]
        names = [_key(name) for name in value.columns]
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    if isinstance(value, (pd.Series, pd.Index)):
        return plain(value.to_numpy())
    if isinstance(value, np.ndarray):
        return _plain_array(value)
    if isinstance(value, Mapping):
        return {_key(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if isinstance(value, BaseModel):
        return plain(value.model_dump())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain(dataclasses.asdict(value))
    if hasattr(value, "toarray"):  # a SciPy sparse matrix
        return plain(value.toarray())
    return _plain_scalar(value)


def _key(value: Any) -> str:
    """Gives what JSON makes of a key."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def _plain_array(array: np.ndarray) -> Any:
    if isinstance(array, np.ma.MaskedArray):
        return plain(array.tolist())
    kind = array.dtype.kind
    if kind in "biuU":
        return array.tolist()
    if kind == "f":
        return _plain_floats(array.astype("float64") if array.dtype.itemsize > 8 else array)
    if kind == "M":
        return _plain_moments(array)
    if kind == "m":
        return _plain_floats(np.asarray(array / np.timedelta64(1, "s")))
    return plain(array.tolist())


def _plain_floats(array: np.ndarray) -> Any:
    finite = np.isfinite(array)
    if finite.all():
        return array.tolist()
    found = array.astype(object)
    found[~finite] = None
    return found.tolist()


_WRITTEN_TO = {
    **dict.fromkeys(("Y", "M", "W", "D"), "D"),
    **dict.fromkeys(("h", "m", "s"), "s"),
    **dict.fromkeys(("ms", "us"), "us"),
}


def _plain_moments(array: np.ndarray) -> Any:
    """Gives datetimes as `isoformat` writes them: days alone, or as many digits as there are."""
    unit: Any = _WRITTEN_TO.get(np.datetime_data(array.dtype)[0], "ns")
    texts = np.datetime_as_string(array, unit=unit, casting="unsafe")
    return _shortened(np.asarray(texts).tolist())


def _shortened(text: Any) -> Any:
    if isinstance(text, list):
        return [_shortened(item) for item in text]
    if text == "NaT":
        return None
    whole, dot, digits = text.partition(".")
    if not digits.rstrip("0"):
        return whole
    return whole + dot + (digits[:6] if digits.endswith("000") and len(digits) == 9 else digits)


def _plain_scalar(value: Any) -> Any:
    if value is None or value is pd.NA or value is pd.NaT or isinstance(value, (bool, str)):
        return None if value is pd.NA or value is pd.NaT else value
    if isinstance(value, (np.datetime64, np.timedelta64, np.floating)):
        return _plain_array(np.asarray(value))
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, int):
        return int(value)
    if isinstance(value, (float, Decimal)):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode("ascii")
    raise TypeError(f"the model answers with {type(value).__name__}, which has no JSON form")
