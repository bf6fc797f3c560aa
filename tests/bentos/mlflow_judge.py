"""MLflow's own scoring server, in this process: what it answers is what a request means."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import mlflow.pyfunc
from mlflow.pyfunc import scoring_server
from starlette.testclient import TestClient

if TYPE_CHECKING:
    from pathlib import Path


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
