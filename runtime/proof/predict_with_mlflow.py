"""The registry model's own predictions: a script for an interpreter that has the model's needs.

    python predict_with_mlflow.py MODEL_DIRECTORY REQUESTS_FILE ANSWERS_FILE

It is run by path, never imported, and needs mlflow (or mlflow-skinny), numpy and pandas
only. The requests file holds `{"inputs": <the signature's inputs or null>, "requests":
[body, ...]}`, each body as a served model gets it: `{"inputs": ..., "params": ...}`. The
answers file gets a JSON list with one object per body: `{"answer": prediction}`, or `{"refused":
reason}` where the model raised an exception.

It shares no line with the service it judges, though both follow docs/served-values.md: a fault of
one of them is seen by the other. MLflow's own reading of requests is no judge here: it is another
one in each release, and it makes something of values that a service has to refuse. That the two
agree in every type and value is held by the tests that compare the service with MLflow's server.
"""

from __future__ import annotations

import sys

# The folder of this file is not a place to import from.
if __name__ == "__main__":
    sys.path[:] = sys.path[1:]

import base64
import dataclasses
import json
from collections.abc import Callable
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
    answers = [prediction(model, body, task["inputs"]) for body in task["requests"]]
    Path(answers_file).write_text(json.dumps(answers), encoding="utf-8")


def prediction(
    model: Any, body: dict[str, Any], specs: list[dict[str, Any]] | None
) -> dict[str, Any]:
    """Ask the model one request, and give its answer or why it refused."""
    try:
        hinted = getattr(model.metadata, "_is_signature_from_type_hint", bool)()
        inputs = model_inputs(body["inputs"], specs, type_hints=hinted)
        params = body.get("params")
        answer = model.predict(inputs, params=params) if params else model.predict(inputs)
        return {"answer": plain(answer)}
    except Exception as error:
        return {"refused": f"{type(error).__name__}: {error}"[:_LONGEST_REASON]}


def model_inputs(
    inputs: Any, specs: list[dict[str, Any]] | None, *, type_hints: bool = False
) -> Any:
    """Give JSON values as what the model's signature describes.

    Args:
        inputs: The values.
        specs: The inputs of the signature, as MLmodel has them; None or empty without one.
        type_hints: Whether the model's own type hints check the values.

    Raises:
        ValueError: The values are none of the signature's.
    """
    import pandas as pd

    if type_hints and specs:
        return [_hinted(row, specs[0]) for row in inputs]
    if not specs:
        if isinstance(inputs, dict):
            return {name: _free_array(values) for name, values in inputs.items()}
        if isinstance(inputs, list) and inputs and all(isinstance(row, dict) for row in inputs):
            return pd.DataFrame(inputs)
        return _free_array(inputs)
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


def _free_array(values: Any) -> Any:
    """Give an array; null among numbers is NaN."""
    import numpy as np

    array = np.array(values)
    if array.dtype == object and all(_is_number(item) or item is None for item in array.flat):
        try:
            return array.astype("float64") if any(map(_is_number, array.flat)) else array
        except OverflowError:
            return array
    return array


def _array(values: Any, dtype: str) -> Any:
    """Give a tensor whose elements are of its dtype already: NumPy would make something of all."""
    import numpy as np

    wanted = np.dtype(dtype)
    given = np.array(values, dtype=object)
    fits = _ELEMENTS.get(wanted.kind)
    if wanted.kind == "O" or fits is None:
        return np.array(values, dtype=dtype)
    if not all(map(fits, given.flat)):
        raise ValueError(f"an element is not of {wanted.name}")
    read = {"S": _bytes, "M": _datetime}.get(wanted.kind)
    if read is not None:
        first = "datetime64[ns]" if wanted.kind == "M" else dtype
        found = [read(item) for item in given.flat]
        return np.array(found, dtype=first).reshape(given.shape).astype(wanted)
    if wanted.kind in "iu" and given.size:
        limits = np.iinfo(wanted)
        if min(given.flat) < limits.min or max(given.flat) > limits.max:
            raise ValueError(f"an element lies outside of {wanted.name}")
    return _finite(np.array(values, dtype=object), wanted)


def _finite(values: Any, dtype: Any) -> Any:
    """Give an array of a dtype; numbers that are too large for it, and infinite ones, are none."""
    import numpy as np

    with np.errstate(over="ignore"):
        array = np.asarray(values).astype(dtype)
    if array.dtype.kind == "f" and np.isinf(array).any():
        raise ValueError("a number is infinite or too large")
    return array


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or _is_whole(value)


_ELEMENTS: dict[str, Callable[[Any], bool]] = {
    "b": lambda item: isinstance(item, bool),
    "i": _is_whole,
    "u": _is_whole,
    "f": lambda item: item is None or _is_number(item),
    "U": lambda item: isinstance(item, str),
    "S": lambda item: isinstance(item, str),
    "M": lambda item: item is None or isinstance(item, str),
    "m": lambda item: item in (None, "NaT") or _is_whole(item),
}
"""What JSON values a tensor takes, by the kind of its dtype."""


def _bytes(value: str) -> bytes:
    return base64.b64decode("".join(value.split()), validate=True)


def _datetime(value: Any) -> Any:
    """Give ISO 8601 as a datetime to the nanosecond, in UTC where it has an offset."""
    import numpy as np
    import pandas as pd

    if value is not None and not isinstance(value, str):
        raise ValueError("a datetime is a text in ISO 8601")
    moment = pd.NaT if value is None else pd.Timestamp(value)
    if moment is pd.NaT:
        return np.datetime64("NaT", "ns")
    naive = moment if moment.tzinfo is None else moment.tz_convert("UTC").tz_localize(None)
    return naive.to_datetime64().astype("datetime64[ns]")


def _table(rows: list[dict[str, Any]], specs: dict[str, tuple[Any, dict[str, Any]]]) -> Any:
    """Give rows as a DataFrame; a column that no row has, or of missing integers only, is none."""
    import pandas as pd

    columns = {}
    for unknown in {key for row in rows for key in row} - set(specs):
        raise ValueError(f"{unknown} is no column of the signature")
    for key, (label, spec) in specs.items():
        given = [row[key] for row in rows if key in row]
        no_number = spec["type"] in _WHOLE and all(item is None for item in given)
        if not given or (no_number and not spec.get("required", True)):
            continue
        if len(given) < len(rows) and spec.get("required", True):
            raise ValueError(f"{key} is required, and left out in some rows")
        columns[label] = _column([row.get(key, _ABSENT) for row in rows], spec)
    return pd.DataFrame(columns, index=range(len(rows)))


_ABSENT = object()
_WHOLE = ("integer", "long")
_FLOATS = ("float", "double")


def _column(values: list[Any], spec: dict[str, Any]) -> Any:
    import numpy as np
    import pandas as pd

    kind = spec["type"]
    absent = np.nan if kind in ("string", "any") else None
    cells = [absent if item is _ABSENT else _cell(item, spec) for item in values]
    if kind == "string":  # pandas decides how it is missing
        return pd.Series(cells).astype(object)
    if kind == "datetime":
        return np.array([_datetime(cell) if cell is None else cell for cell in cells])
    if kind not in _SCALARS or (kind == "boolean" and None in cells):
        return pd.Series(cells, dtype=object)
    return _finite(np.array(cells, dtype=object), _SCALARS[kind])


def _cell(item: Any, spec: dict[str, Any]) -> Any:
    """Give one value of a column."""
    kind = spec["type"]
    if item is None or item != item:
        if kind in ("string", "any"):
            return item
        if kind in (*_FLOATS, "binary", "datetime") or not (item or spec.get("required", True)):
            return None
        raise ValueError(f"a value of {kind} is missing")
    return _nested(item, spec)


def _nested(item: Any, spec: dict[str, Any], *, listed: bool = False) -> Any:
    """Give a value, or one inside of a list, an object or a map, with its exact type.

    Whether one of those may be missing is MLflow's to say, but that it makes texts of it in lists.
    """
    import numpy as np

    kind = spec["type"]
    if item is None or item != item:
        if kind in _FLOATS:
            return np.dtype(_SCALARS[kind]).type(np.nan)
        if listed and kind not in ("array", "object", "map", "any"):
            raise ValueError(f"a value of {kind} is missing")
        return item
    if kind in _JSON and not _JSON[kind](item):
        raise ValueError(f"a value is no {kind}")
    if kind in _SCALARS:
        return _finite(item, _SCALARS[kind])[()]
    if kind == "binary":
        return _bytes(item)
    if kind == "datetime":
        return _datetime(item)
    if kind == "array":
        return [_nested(one, spec["items"], listed=True) for one in item]
    if kind == "map":
        return {key: _nested(one, spec["values"]) for key, one in item.items()}
    if kind == "object":
        fields = spec["properties"]
        left_out = {key for key, field in fields.items() if field.get("required", True)} - set(item)
        if left_out:
            raise ValueError(f"{sorted(left_out)[0]} is required, and left out")
        return {key: _nested(one, fields.get(key, _ANY)) for key, one in item.items()}
    return item


_ANY = {"type": "any", "required": False}
_JSON: dict[str, Callable[[Any], bool]] = {
    "boolean": lambda item: isinstance(item, bool),
    **dict.fromkeys(_WHOLE, _is_whole),
    **dict.fromkeys(_FLOATS, _is_number),
    **dict.fromkeys(("string", "binary", "datetime"), lambda item: isinstance(item, str)),
    "array": lambda item: isinstance(item, list),
    **dict.fromkeys(("object", "map"), lambda item: isinstance(item, dict)),
}
"""What JSON values a type takes."""


def _hinted(item: Any, spec: dict[str, Any]) -> Any:
    """Give a Python value of what JSON has no values for; the model's hints check the rest."""
    kind = spec.get("type")
    if isinstance(item, str) and kind == "binary":
        return _bytes(item)
    if isinstance(item, str) and kind == "datetime":
        return _datetime(item).astype("datetime64[us]").item()
    if isinstance(item, list) and kind == "array":
        return [_hinted(one, spec["items"]) for one in item]
    if isinstance(item, dict) and kind == "map":
        return {key: _hinted(one, spec["values"]) for key, one in item.items()}
    if isinstance(item, dict) and kind == "object":
        fields = spec["properties"]
        return {key: _hinted(one, fields.get(key, _ANY)) for key, one in item.items()}
    return item


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
    if isinstance(value, np.longdouble):
        return float(value)
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
