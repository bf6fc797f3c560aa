"""The servers that are measured: ours, and what a person would write or start without us."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.load import Request
from kfp_bento.runtime.bentos import build_bento
from kfp_bento.runtime.models import load_model

ROWS = 10_000


@dataclass(frozen=True)
class Side:
    """One server.

    Attributes:
        name: What it is called in the table.
        command: What starts it, but for the port.
        port_option: The option that takes the port.
        folder: Where it is started.
        ready: The path that answers 200 when it serves.
        one: A request with one row.
        many: A request with `ROWS` rows.
        environment: Variables it needs besides.
    """

    name: str
    command: tuple[str, ...]
    port_option: str
    folder: Path
    ready: str
    one: Request
    many: Request
    environment: Mapping[str, str] = field(default_factory=dict)


HAND_WRITTEN = """
import bentoml
import numpy as np
import pandas as pd
import mlflow.sklearn
from pydantic import BaseModel


class Rows(BaseModel):
    inputs: list[dict[str, float]]


@bentoml.service(traffic={{"timeout": 60}})
class Wine:
    def __init__(self):
        self.model = mlflow.sklearn.load_model({path!r})

    @bentoml.api
    def predict(self, inputs: list[dict[str, float]]) -> list[int]:
        return self.model.predict(pd.DataFrame(inputs)).tolist()
"""

HAND_WRITTEN_BATCHED = """
import bentoml
import pandas as pd
import mlflow.sklearn


@bentoml.service(traffic={{"timeout": 60}})
class Wine:
    def __init__(self):
        self.model = mlflow.sklearn.load_model({path!r})

    @bentoml.api(batchable=True, max_batch_size=20000, max_latency_ms=10000)
    def predict(self, inputs: list[dict[str, float]]) -> list[int]:
        return self.model.predict(pd.DataFrame(inputs)).tolist()
"""


def wine_model(folder: Path) -> Path:
    """Save a small real model with 13 columns, by MLflow itself."""
    import mlflow.sklearn
    from mlflow.models import infer_signature
    from sklearn.datasets import load_wine
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    data = load_wine(as_frame=True)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    model.fit(data.data, data.target)
    signature = infer_signature(data.data, model.predict(data.data))
    path = folder / "wine"
    mlflow.sklearn.save_model(model, path, signature=signature, input_example=data.data.head(3))
    return path


def sides(work: Path, endpoint: str) -> list[Side]:
    """Make the model, the bentos and the services, and say how each is served.

    Args:
        work: A directory for all of it.
        endpoint: Where traces go.
    """
    from sklearn.datasets import load_wine

    model = wine_model(work)
    rows = load_wine(as_frame=True).data.to_dict(orient="records")
    many = [rows[number % len(rows)] for number in range(ROWS)]
    one, thousands = (_body("inputs", some) for some in (rows[:1], many))
    bentoml = (sys.executable, "-m", "bentoml", "serve")
    served = ("--host", "127.0.0.1")
    found = [
        *_generated(work, model, (bentoml, served), (one, thousands), endpoint),
        *(
            Side(
                name,
                (*bentoml, f"{module}:Wine", *served),
                "--port",
                _written(work, module, source.format(path=str(model))),
                "/readyz",
                Request("/predict", one),
                Request("/predict", thousands),
            )
            for name, module, source in (
                ("hand-written", "by_hand", HAND_WRITTEN),
                ("hand-written, batchable", "by_hand_batched", HAND_WRITTEN_BATCHED),
            )
        ),
    ]
    mlflow = str(Path(sys.executable).with_name("mlflow"))
    options = ("models", "serve", "-m", str(model), "--env-manager", "local", "--host", "127.0.0.1")
    records = [_body("dataframe_records", some) for some in (rows[:1], many)]
    asked = [Request("/invocations", body) for body in records]
    path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"
    server = Side(
        "mlflow models serve", (mlflow, *options), "--port", work, "/ping", *asked, {"PATH": path}
    )
    return [*found, server]


def _generated(
    work: Path,
    model: Path,
    start: tuple[tuple[str, ...], tuple[str, ...]],
    bodies: Any,
    endpoint: str,
) -> list[Side]:
    found = []
    for name, options in GENERATED.items():
        folder = work / name.replace(", ", "-")
        build_bento([load_model(model)], folder, name="wine", **options)
        command = (*start[0], str(folder), *start[1])
        asked = [Request("/predict", body) for body in bodies]
        found.append(Side(name, command, "--port", work, "/readyz", *asked))
    log = {"KFP_BENTO_REQUEST_LOG": str(work / "requests.jsonl")}
    watched = {
        "traces": {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint},
        "log": log,
        "redacted log": {**log, "KFP_BENTO_REQUEST_LOG_REDACT": "alcohol,proline"},
    }
    plain = found[0]
    found += [
        replace(plain, name=f"{plain.name}, {name}", environment=variables)
        for name, variables in watched.items()
    ]
    return found


GENERATED: dict[str, dict[str, Any]] = {
    "generated": {},
    "generated, batching": {"options": {"max_batch_size": ROWS}},
}


def _written(work: Path, module: str, source: str) -> Path:
    folder = work / module
    folder.mkdir()
    (folder / f"{module}.py").write_text(source)
    return folder


def _body(key: str, rows: list[dict[str, float]]) -> bytes:
    return json.dumps({key: rows}).encode()
