"""Asking a model past MLflow's enforcement: only where that hands on the frame as it was."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
import packed_models as samples
import pandas as pd
import pytest
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import Array, DataType

import kfp_bento.runtime.bentos

COLUMNS = {
    "flag": (DataType.boolean, np.array([True, False])),
    "small": (DataType.integer, np.array([1, 2], "int32")),
    "large": (DataType.long, np.array([1, 2], "int64")),
    "short": (DataType.float, np.array([0.5, np.nan], "float32")),
    "double": (DataType.double, np.array([0.5, np.nan])),
    "text": (DataType.string, np.array(["a", None], object)),
    "bytes": (DataType.binary, np.array([b"\xff", None], object)),
    "moment": (DataType.datetime, np.array(["2024-05-06", "NaT"], "datetime64[ns]")),
}


@pytest.fixture(scope="module")
def direct() -> Any:
    """The class of the module that travels with every service."""
    folder = str(Path(kfp_bento.runtime.bentos.__file__).parent)
    sys.path.insert(0, folder)
    try:
        return importlib.import_module("pyfunc_enforcement").Direct
    finally:
        sys.path.remove(folder)


class Mirror(mlflow.pyfunc.PythonModel):
    """Answers with what it got, and with its parameters."""

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        return {"frame": model_input, "params": params}


@pytest.fixture
def enforced(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The frames that MLflow has enforced a schema on."""
    frames: list[Any] = []
    real = mlflow.pyfunc._enforce_schema

    def enforcing(data: Any, *rest: Any, **named: Any) -> Any:
        frames.append(data)
        return real(data, *rest, **named)

    monkeypatch.setattr(mlflow.pyfunc, "_enforce_schema", enforcing)
    return frames


def loaded(path: Path, columns: list[ColSpec], params: ParamSchema | None = None) -> Any:
    signature = ModelSignature(Schema(columns), params=params)
    mlflow.pyfunc.save_model(path, python_model=Mirror(), signature=signature, **samples.QUICK)
    return mlflow.pyfunc.load_model(str(path))


def table(*names: str) -> pd.DataFrame:
    values = {name: COLUMNS[name][1] for name in names or COLUMNS}
    return pd.DataFrame({name: pd.Series(one, dtype=one.dtype) for name, one in values.items()})


def columns(**optional: bool) -> list[ColSpec]:
    return [
        ColSpec(kind, name, required=not optional.get(name, False))
        for name, (kind, _) in COLUMNS.items()
    ]


def test_a_frame_that_fits_is_enforced_once(
    tmp_path: Path, direct: Any, enforced: list[Any]
) -> None:
    model = loaded(tmp_path / "model", columns())
    first = model.predict(table())
    asked = direct(model)
    answers = [asked.predict(table()) for _ in range(3)]
    assert len(enforced) == 2
    for answer in answers:
        pd.testing.assert_frame_equal(answer["frame"], first["frame"])
        assert answer["params"] == first["params"]


@pytest.mark.parametrize(
    "frame",
    [
        table()[[*COLUMNS][::-1]],
        table().assign(more=1),
        table().assign(small=np.array([1, 2], "int16")),
        table().assign(flag=pd.Series([True, None], dtype=object)),
        table().assign(moment=table()["moment"].astype("datetime64[s]")),
        table().set_index(pd.Index(["a", "b"])),
    ],
    ids=["order", "more", "smaller", "objects", "seconds", "index"],
)
def test_a_frame_that_enforcement_may_change_goes_the_ordinary_way(
    frame: pd.DataFrame, tmp_path: Path, direct: Any, enforced: list[Any]
) -> None:
    model = loaded(tmp_path / "model", columns())
    asked = direct(model)
    for _ in range(2):
        asked.predict(table())
    before = len(enforced)
    found = [asked.predict(frame)["frame"] for _ in range(3)]
    assert len(enforced) == before + 3
    for one in found:
        pd.testing.assert_frame_equal(one, model.predict(frame)["frame"])


def test_what_is_refused_is_refused_every_time(tmp_path: Path, direct: Any) -> None:
    asked = direct(loaded(tmp_path / "model", columns(text=True)))
    for _ in range(3):
        with pytest.raises(mlflow.exceptions.MlflowException, match="double"):
            asked.predict(table("flag", "small"))
        with pytest.raises(mlflow.exceptions.MlflowException, match="column small"):
            asked.predict(table().assign(small=[0.5, 1.5]))


def test_an_optional_column_that_is_left_out_is_left_out(
    tmp_path: Path, direct: Any, enforced: list[Any]
) -> None:
    asked = direct(loaded(tmp_path / "model", columns(text=True)))
    without = table().drop(columns="text")
    for frame in (table(), without) * 3:
        assert [*asked.predict(frame)["frame"]] == [*frame]
    assert len(enforced) == 2


def test_what_a_model_does_to_its_input_is_not_taken_for_enforcement(
    tmp_path: Path, direct: Any, enforced: list[Any]
) -> None:
    model = loaded(tmp_path / "model", columns())

    def spoiling(data: pd.DataFrame, params: Any = None) -> list[str]:
        data["double"] = 7.0
        return [*data]

    model._predict_fn = spoiling
    asked = direct(model)
    assert [asked.predict(table()) for _ in range(2)] == [[*COLUMNS]] * 2
    assert len(enforced) == 1


def test_other_kinds_of_models_go_the_ordinary_way(
    tmp_path: Path, direct: Any, enforced: list[Any]
) -> None:
    params = ParamSchema([ParamSpec("depth", DataType.integer, 3)])
    nested = loaded(tmp_path / "nested", [ColSpec(Array(DataType.double), "double")])
    unnamed = loaded(tmp_path / "unnamed", [ColSpec(DataType.double)])
    known = loaded(tmp_path / "known", columns(), params)
    for model, frame in (
        (nested, pd.DataFrame({"double": [[0.5], [1.5]]})),
        (unnamed, pd.DataFrame({0: [0.5]})),
        (known, table()),
    ):
        enforced.clear()
        asked = direct(model)
        for _ in range(3):
            asked.predict(frame)
        assert len(enforced) == 3
    assert asked.predict(table(), params={"depth": 5})["params"] == {"depth": 5}


def test_another_mlflow_that_does_not_ask_as_this_one_is_left_alone(
    tmp_path: Path, direct: Any, enforced: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = loaded(tmp_path / "model", columns())
    real = mlflow.pyfunc.PyFuncModel._predict
    monkeypatch.setattr(
        mlflow.pyfunc.PyFuncModel,
        "_predict",
        lambda self, data, params=None: (
            real(self, data, {"told": 1})
            if self.metadata.signature is None
            else real(self, data, params)
        ),
    )
    asked = direct(model)
    for _ in range(3):
        assert asked.predict(table())["params"] is None
    assert len(enforced) == 3
