"""MLflow's own scoring protocol: `/invocations`, `/ping`, `/health` and `/version`.

This file lies beside the service in every bento that kfp-bento generates. The answers are those of
`mlflow models serve`, made by MLflow's own functions where they can be imported without a web
framework, and otherwise by what they are made of. What is told of errors is shorter: MLflow quotes
what was sent.
"""

from __future__ import annotations

import functools
import io
import json
import logging
import re
from typing import Any

import anyio.to_thread
import bentoml
from pyfunc_body import read_json  # type: ignore[import-not-found]
from pyfunc_endpoints import (  # type: ignore[import-not-found]
    SMALL,
    Problem,
    Refused,
    Served,
    handled,
)
from pyfunc_guard import LIMITS, traced  # type: ignore[import-not-found]
from pyfunc_lean import Answer, Asked, Handler, Routes  # type: ignore[import-not-found]

with bentoml.importing():
    import pandas as pd
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import BAD_REQUEST
    from mlflow.utils import proto_json_utils
    from mlflow.version import VERSION

CSV = b"text/csv"
FORMATS = ("dataframe_split", "dataframe_records", "instances", "inputs")
FAILED = "Encountered an unexpected error while evaluating the model"

# What MLflow says without quoting values.
_REASONS = re.compile(
    r"(?:The input must be a JSON dictionary with exactly one of the input fields"
    r"|Model is missing|Missing required|Incompatible input types|Shape of input|dtype of input"
    rf"|The length of the|Failed to parse input as a Pandas DataFrame|{FAILED})[^\n'\"{{]{{,200}}"
)

log = logging.getLogger("bentoml.kfp_bento")


def routes(served: Served) -> Routes:
    """Gives what answers MLflow's paths for the one model of a service."""

    async def alive(_: Asked) -> Answer:
        return Answer(b"\n")

    async def version(_: Asked) -> Answer:
        return Answer(VERSION.encode())

    return {
        ("GET", "/ping"): alive,
        ("GET", "/health"): alive,
        ("GET", "/version"): version,
        ("POST", "/invocations"): handled(_invocations(served), _in_mlflows_form),
    }


def _in_mlflows_form(problem: Problem) -> dict[str, Any]:
    code = "BAD_REQUEST" if problem.status < 500 else "INTERNAL_ERROR"
    return {"error_code": problem.code or code, "message": problem.sentence}


def _invocations(served: Served) -> Handler:
    async def handler(asked: Asked) -> Answer:
        small = len(asked.body) <= SMALL
        data = _read(asked) if small else await anyio.to_thread.run_sync(_read, asked)
        media = "text/csv" if asked.media == CSV else "application/json"
        text: str = await served.workers.run(_answer, served.asked_mlflows_way, data, media)
        return Answer(text.encode())

    return handler


def _read(asked: Asked) -> Any:
    """Gives a body as MLflow's functions take it, within limits."""
    if asked.media != CSV:
        data = read_json(asked.body, rows=("dataframe_records", "instances"))
        return data if isinstance(data, dict) else asked.body
    lines, commas = asked.body.count(b"\n"), asked.body.count(b",")
    if lines > LIMITS.max_rows + 1 or commas > LIMITS.max_values:
        raise Refused(400, f"more than {LIMITS.max_rows} rows, or {LIMITS.max_values} values")
    try:
        return asked.body.decode()
    except UnicodeDecodeError as error:
        raise Refused(400, f"byte {error.start} is not UTF-8") from None


def _answer(model: Any, data: Any, media: str) -> str:
    """Asks a model as `mlflow models serve` does."""
    watched = _Watched(model)
    schema = model.metadata.get_input_schema()
    try:
        try:
            from mlflow.pyfunc.scoring_server import invocations
        except ImportError:  # it wants a web framework
            return _by_its_parts(watched, data, media, schema)
        return str(invocations(data, media, watched, schema).response)
    except MlflowException as error:
        raise _refusal(error) from error
    except Exception as error:
        if watched.answered:
            raise
        raise Refused(400, "the input has not the form that it says") from error


class _Watched:
    """A model that tells whether it has answered."""

    def __init__(self, model: Any) -> None:
        self.metadata, self.answered = model.metadata, False

        @functools.wraps(model.predict)  # MLflow looks at its parameters
        def predict(*args: Any, **kwargs: Any) -> Any:
            answer = model.predict(*args, **kwargs)
            self.answered = True
            return answer

        self.predict = predict


def _refusal(error: Any) -> Any:
    """Gives what may be told of an error of MLflow's."""
    found = _REASONS.search(str(error.message))
    told = found[0].strip(" :.;,") if found else "MLflow does not take this request"
    if told.startswith(FAILED):
        log.warning("The model failed\n%s", traced(error))
    return Refused(int(error.get_http_status_code()), told, str(error.error_code))


def _by_its_parts(model: _Watched, data: Any, media: str, schema: Any) -> str:
    params = None
    if media == "text/csv":
        types = None if schema is None else dict(zip(schema.input_names(), schema.pandas_types()))  # noqa: B905
        data = pd.read_csv(io.StringIO(data), dtype=types)
    elif isinstance(data, dict):
        params = data.pop("params", None)
    parsed = data if media == "text/csv" else _parsed(data, schema)
    try:
        answer = model.predict(parsed, **({} if params is None else {"params": params}))
    except MlflowException:
        raise
    except Exception as error:
        raise MlflowException(FAILED, error_code=BAD_REQUEST) from error
    found = proto_json_utils._get_jsonable_obj(answer, pandas_orient="records")
    return json.dumps({"predictions": found}, cls=proto_json_utils.NumpyEncoder)


def _parsed(data: Any, schema: Any) -> Any:
    given = [name for name in FORMATS if isinstance(data, dict) and name in data]
    if len(given) != 1:
        told = "The input must be a JSON dictionary with exactly one of the input fields "
        raise MlflowException(told + ", ".join(FORMATS), error_code=BAD_REQUEST)
    if given[0].startswith("dataframe_"):
        orient = given[0][len("dataframe_") :]
        return proto_json_utils.dataframe_from_parsed_json(data[given[0]], orient, schema)
    return proto_json_utils.parse_tf_serving_input(data, schema=schema)
