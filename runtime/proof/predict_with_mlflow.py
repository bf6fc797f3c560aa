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
import dataclasses
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
    import pandas as pd

    if not specs:
        if isinstance(inputs, dict):
            return {name: _array(values) for name, values in inputs.items()}
        if isinstance(inputs, list) and inputs and all(isinstance(row, dict) for row in inputs):
            return pd.DataFrame(inputs)
        return _array(inputs)
    if any("tensor-spec" in spec for spec in specs):
        if specs[0].get("name") in (None, ""):
            return _array(inputs, specs[0]["tensor-spec"]["dtype"])
        return {
            spec["name"]: _array(inputs[spec["name"]], spec["tensor-spec"]["dtype"])
            for spec in specs
        }
    if all(spec.get("name") not in (None, "") for spec in specs):
        return _table(inputs, {str(spec["name"]): (spec["name"], spec) for spec in specs})
    rows = [[row] for row in inputs] if len(specs) == 1 else inputs
    numbered = [{str(number): value for number, value in enumerate(row)} for row in rows]
    return _table(numbered, {str(number): (number, spec) for number, spec in enumerate(specs)})


def _array(values: Any, dtype: str | None = None) -> Any:
    import numpy as np

    if dtype and dtype.startswith("bytes"):
        given = np.array(values, dtype=object)
        decoded = [base64.b64decode(value) for value in given.flat]
        return np.array(decoded, dtype=dtype).reshape(given.shape)
    array = np.array(values, dtype=dtype)
    if dtype is None and array.dtype == object:
        numbers = all(value is None or type(value) in (int, float) for value in array.flat)
        return array.astype("float64") if numbers else array
    return array


def _table(rows: list[dict[str, Any]], specs: dict[str, tuple[Any, dict[str, Any]]]) -> Any:
    """Give rows as a DataFrame; a column that no row has, or of missing integers only, is none."""
    import numpy as np
    import pandas as pd

    columns = {}
    for key in dict.fromkeys([*specs, *(key for row in rows for key in row)]):
        label, spec = specs.get(key, (key, {}))
        kind = spec.get("type")
        missing = all(row.get(key) is None for row in rows)
        if not any(key in row for row in rows) or (missing and kind in ("integer", "long")):
            continue
        values = pd.Series([row.get(key, np.nan) for row in rows], dtype=object)
        columns[label] = _column(values, kind)
    return pd.DataFrame(columns, index=range(len(rows)))


def _column(values: Any, kind: Any) -> Any:
    import pandas as pd

    if kind == "boolean" and values.isna().any():
        return values
    if kind in _SCALARS:
        return values.astype(_SCALARS[kind])
    if kind == "binary":
        return values.map(lambda item: base64.b64decode(item) if isinstance(item, str) else None)
    if kind == "datetime":
        moments = pd.to_datetime(values, utc=True, format="ISO8601").dt.tz_localize(None)
        return moments.astype("datetime64[ns]")
    return values


def plain(value: Any) -> Any:
    """Give a prediction as plain JSON; NaN and infinities stay what they are."""
    import numpy as np
    import pandas as pd

    if isinstance(value, pd.DataFrame):
        columns = [(_key(name), plain(value.iloc[:, n])) for n, name in enumerate(value.columns)]
        return [{name: column[n] for name, column in columns} for n in range(len(value))]
    if isinstance(value, (pd.Series, pd.Index)):
        value = value.to_numpy()
    if hasattr(value, "toarray"):
        value = value.toarray()
    if isinstance(value, (np.datetime64, np.timedelta64)):
        return _moment(value)
    if isinstance(value, np.ndarray) and value.dtype.kind in "mM":
        return (
            plain([value[index] for index in range(len(value))]) if value.ndim else plain(value[()])
        )
    if isinstance(value, (np.ndarray, np.generic)):
        return plain(value.tolist())
    if isinstance(value, dict):
        return {_key(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    return _plain_scalar(value)


def _key(value: Any) -> str:
    """Give what JSON makes of a key."""
    return {None: "null", True: "true", False: "false"}[value] if _is_word(value) else str(value)


def _is_word(value: Any) -> bool:
    return value is None or isinstance(value, bool)


def _moment(value: Any) -> Any:
    """Give a datetime as ISO 8601, a day alone where it is one, and a timedelta in seconds."""
    import numpy as np
    import pandas as pd

    if np.isnat(value):
        return None
    if isinstance(value, np.timedelta64):
        return float(value / np.timedelta64(1, "s"))
    if np.datetime_data(value.dtype)[0] in ("Y", "M", "W", "D"):
        return str(value.astype("datetime64[D]"))
    return pd.Timestamp(value).isoformat()


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
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain(dataclasses.asdict(value))
    raise TypeError(f"the model answers with {type(value).__name__}, which has no JSON form")


if __name__ == "__main__":
    main(*sys.argv[1:])
