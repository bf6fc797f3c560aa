"""The registry model's own predictions: a script for an interpreter that has the model's needs.

    python predict_with_mlflow.py MODEL_DIRECTORY REQUESTS_FILE ANSWERS_FILE

It is run by path, never imported, and needs mlflow (or mlflow-skinny), numpy and pandas
only. The requests file holds `{"inputs": <the signature's inputs or null>, "requests":
[body, ...]}`, each body as a served model gets it: `{"inputs": ..., "params": ...}`. The
answers file gets a JSON list with one object per body: `{"answer": prediction}`, or `{"refused":
reason}` where the model raised an exception.

It shares no line with the service it judges: it reads JSON into the types of the signature
and the model's answer into plain JSON by itself.
"""

from __future__ import annotations

import sys

# The folder of this file is not a place to import from.
if __name__ == "__main__":
    sys.path[:] = sys.path[1:]

import base64
import json
from decimal import Decimal
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

_LONGEST_REASON = 1000
_SCALARS = {
    "boolean": "bool",
    "integer": "int32",
    "long": "int64",
    "float": "float32",
    "double": "float64",
}


_write = SourceFileLoader.set_data


def _write_installed(loader: SourceFileLoader, path: str, data: Any, **mode: Any) -> None:
    """Keep bytecode of what is installed, and write nothing beside a model."""
    if path.startswith(sys.prefix):
        _write(loader, path, data, **mode)


def main(model_directory: str, requests_file: str, answers_file: str) -> None:
    """Predict every request and write the answers."""
    SourceFileLoader.set_data = _write_installed  # type: ignore[assignment,method-assign]

    import mlflow.pyfunc

    task = json.loads(Path(requests_file).read_text(encoding="utf-8"))
    model = mlflow.pyfunc.load_model(model_directory)
    answers = []
    for body in task["requests"]:
        try:
            inputs = model_inputs(body["inputs"], task["inputs"])
            params = body.get("params")
            answer = model.predict(inputs, params=params) if params else model.predict(inputs)
            answers.append({"answer": plain(answer)})
        except Exception as error:
            answers.append({"refused": f"{type(error).__name__}: {error}"[:_LONGEST_REASON]})
    Path(answers_file).write_text(json.dumps(answers), encoding="utf-8")


def model_inputs(inputs: Any, specs: list[dict[str, Any]] | None) -> Any:
    """Give JSON values as what the model's signature describes."""
    import numpy as np
    import pandas as pd

    if not specs:
        if isinstance(inputs, dict):
            return {name: np.array(values) for name, values in inputs.items()}
        if isinstance(inputs, list) and inputs and all(isinstance(row, dict) for row in inputs):
            return pd.DataFrame(inputs)
        return np.array(inputs)
    if any("tensor-spec" in spec for spec in specs):
        tensors = {
            spec.get("name"): np.array(
                inputs[spec["name"]] if spec.get("name") else inputs,
                dtype=spec["tensor-spec"]["dtype"],
            )
            for spec in specs
        }
        return tensors if specs[0].get("name") else tensors[specs[0].get("name")]
    if all(spec.get("name") not in (None, "") for spec in specs):
        labels = {str(spec["name"]): spec["name"] for spec in specs}
        table = pd.DataFrame(inputs).rename(columns=labels)
        return _typed(table, {spec["name"]: spec for spec in specs})
    rows = [[row] for row in inputs] if len(specs) == 1 else inputs
    return _typed(pd.DataFrame(rows), dict(enumerate(specs)))


def _typed(table: Any, specs: dict[Any, dict[str, Any]]) -> Any:
    import pandas as pd

    for label in list(table.columns):
        spec = specs.get(label, {})
        column, kind = table[label], spec.get("type")
        if kind in ("integer", "long") and column.isna().all():
            table = table.drop(columns=[label])
        elif kind == "boolean" and column.isna().any():
            table[label] = column.astype(object)
        elif kind in _SCALARS:
            table[label] = column.astype(_SCALARS[kind])
        elif kind == "binary":
            table[label] = [None if item is None else base64.b64decode(item) for item in column]
        elif kind == "datetime":
            moments = pd.to_datetime(column, utc=True, format="ISO8601").dt.tz_localize(None)
            table[label] = moments.astype("datetime64[ns]")
    return table


def plain(value: Any) -> Any:
    """Give a prediction as plain JSON; NaN and infinities stay what they are."""
    import numpy as np
    import pandas as pd

    if isinstance(value, pd.DataFrame):
        columns = {str(name): plain(value.iloc[:, n]) for n, name in enumerate(value.columns)}
        return [{name: column[n] for name, column in columns.items()} for n in range(len(value))]
    if isinstance(value, (pd.Series, pd.Index)):
        value = value.to_numpy()
    if hasattr(value, "toarray"):
        value = value.toarray()
    if isinstance(value, np.ndarray) and value.dtype.kind == "M":
        value = value.astype("datetime64[us]")
    if isinstance(value, (np.datetime64, np.timedelta64)):
        return None if np.isnat(value) else plain(pd.Timestamp(value).to_pydatetime())
    if isinstance(value, (np.ndarray, np.generic)):
        return plain(value.tolist())
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    return _plain_scalar(value)


def _plain_scalar(value: Any) -> Any:
    import pandas as pd

    if value is pd.NA or value is pd.NaT:
        return None
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode("ascii")
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if hasattr(value, "total_seconds"):
        return value.total_seconds()
    if isinstance(value, Decimal):
        return float(value)
    if hasattr(value, "model_dump"):
        return plain(value.model_dump())
    raise TypeError(f"the model answers with {type(value).__name__}, which has no JSON form")


if __name__ == "__main__":
    main(*sys.argv[1:])
