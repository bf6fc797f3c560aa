"""Bentos that batches are asked of: a model of every type, and a service of one's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from small_models import small_model

from kfp_bento.runtime.bentos import Bento, build_bento
from kfp_bento.runtime.models import load_model

COLUMNS = (
    {"name": "number", "type": "double", "required": True},
    {"name": "single", "type": "float", "required": True},
    {"name": "count", "type": "long", "required": True},
    {"name": "small", "type": "integer", "required": True},
    {"name": "flag", "type": "boolean", "required": True},
    {"name": "text", "type": "string", "required": True},
    {"name": "moment", "type": "datetime", "required": True},
    {"name": "raw", "type": "binary", "required": True},
    {"name": "list", "type": "array", "items": {"type": "double"}, "required": True},
    {"name": "maybe", "type": "double", "required": False},
)
PARAMS = ({"name": "answer", "type": "string", "default": "seen", "shape": None},)
KINDS = """\
import pandas as pd

def _load_pyfunc(path):
    return Model()

def seen(value):
    if hasattr(value, "__len__") and not isinstance(value, (str, bytes)):
        value = [float(n) for n in value]
    return "missing" if value is None or value != value else f"{type(value).__name__} {value}"

class Model:
    def predict(self, inputs, params=None):
        if (inputs["count"] == 13).any():
            raise ValueError("13")
        if (inputs["count"] == 500).any():
            raise OSError("broken")
        asked = (params or {}).get("answer", "seen")
        if asked == "seen":
            rows = [";".join(map(seen, row)) for row in inputs.itertuples(index=False)]
            return pd.DataFrame({"columns": ",".join(inputs.columns), "row": rows})
        number = inputs["number"]
        return {
            "scalar": lambda: number.to_numpy() * 2,
            "vector": lambda: [[n, n + 1] for n in number],
            "strings": lambda: [f"{n:.1f}, \\"x\\"" for n in number],
            "dict": lambda: {"twice": (number * 2).tolist(), "name": inputs["text"].tolist()},
            "frame": lambda: pd.DataFrame({"twice": number * 2, "whole": inputs["count"]}),
            "objects": lambda: [{"n": {"deep": n}} for n in number],
            "none": lambda: [None if n > 2 else n for n in number],
            "clash": lambda: pd.DataFrame({"number": number}),
            "short": lambda: [1],
        }[asked]()
"""
OWN = """\
from __future__ import annotations

import bentoml
from pydantic import BaseModel


class Application(BaseModel):
    income: float
    name: str = "nobody"


@bentoml.service
class Credit:
    @bentoml.api
    def decide(self, applications: list[Application], limit: float = 100.0) -> list[dict]:
        return [{"who": a.name, "approved": a.income > limit} for a in applications]

    @bentoml.api
    def one(self, application: Application) -> str:
        if application.income < 0:
            raise ValueError("negative")
        return "APPROVED" if application.income > 100 else "DECLINED"

    @bentoml.api
    def add(self, a: int, b: int = 1) -> int:
        return a + b
"""


def kinds_bento(folder: Path, columns: Any = COLUMNS) -> Bento:
    """A bento whose model tells what reached it, and answers in every form."""
    model = small_model(folder / "kinds", KINDS, inputs=columns, outputs=None, example=None)
    mlmodel = model.directory / "MLmodel"
    params = json.dumps(json.dumps(PARAMS))
    mlmodel.write_text(mlmodel.read_text() + f"  params: {params}\n")
    return build_bento([load_model(model.directory)], folder / "kinds-bento", name="kinds")


def own_bento(folder: Path) -> Bento:
    """A service of one's own, with a model beside it that nobody asks."""
    source = folder / "credit.py"
    source.write_text(OWN)
    return build_bento([small_model(folder / "beside")], folder / "own", service=source)


def asked_directly(bento: Bento, table: pd.DataFrame, **params: str) -> pd.DataFrame:
    """What MLflow's own pyfunc gives for a table, as a DataFrame."""
    name, _, version = bento.models[0].tag.partition(":")
    model = mlflow.pyfunc.load_model(str(bento.directory / "models" / name / version))
    found = model.predict(table, params=params or None)
    return found if isinstance(found, pd.DataFrame) else pd.DataFrame({"prediction": found})
