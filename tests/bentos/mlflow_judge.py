"""Who says what a request means: MLflow's own scoring server, and the script of the proof."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import mlflow.pyfunc
from mlflow.pyfunc import scoring_server
from starlette.testclient import TestClient

from kfp_bento.runtime.proof.content import without_nan
from kfp_bento.runtime.proof.predict_with_mlflow import prediction

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kfp_bento.runtime.models import ModelVersion


def proof_of(model: ModelVersion) -> Callable[[Any], str]:
    """Give a function of a request's body: the answer that the proof of a bento expects, as text.

    A refusal is the text of 400.
    """
    loaded = mlflow.pyfunc.load_model(str(model.directory))
    specs = model.signature.to_dict()["inputs"] if model.signature else None

    def expected(body: Any) -> str:
        found = json.loads(json.dumps(prediction(loaded, body, specs)))
        return "400" if "refused" in found else json.dumps(without_nan(found["answer"]))

    return expected


@contextmanager
def mlflow_server(model: Path) -> Iterator[Any]:
    """Give a function that posts a body to `/invocations`: its answers are `(status, JSON)`."""
    kept = dict(os.environ)
    app = scoring_server.init(mlflow.pyfunc.load_model(str(model)))
    try:
        with TestClient(app, raise_server_exceptions=False) as client:

            def post(body: Any) -> tuple[int, Any]:
                content = body if isinstance(body, str) else json.dumps(body)
                headers = {"content-type": "application/json"}
                response = client.post("/invocations", content=content, headers=headers)
                try:
                    return response.status_code, response.json()
                except ValueError:
                    return response.status_code, response.text

            yield post
    finally:
        os.environ.clear()
        os.environ.update(kept)


def as_text(status: int, answer: Any) -> str:
    """Give what a service answered in the form of `proof_of`."""
    return json.dumps(answer) if status == 200 else str(status)
