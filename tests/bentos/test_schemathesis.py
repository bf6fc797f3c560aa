"""Schemathesis on all that a rich service says it speaks: nothing it sends is our failure."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import packed_models as samples
import pytest
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec
from mlflow.types.schema import Array, Map, Object, Property

if TYPE_CHECKING:
    from collections.abc import Callable

UV = Path(sys.executable).with_name("uv")
COLUMNS = Schema(
    [
        ColSpec("double", "a b"),
        ColSpec("float", "f"),
        ColSpec("integer", "i"),
        ColSpec("long", "n", required=False),
        ColSpec("string", "s", required=False),
        ColSpec("boolean", "b", required=False),
        ColSpec("binary", "bin", required=False),
        ColSpec("datetime", "at", required=False),
        ColSpec(Array(DataType.long), "many", required=False),
        ColSpec(Map(DataType.double), "map", required=False),
        ColSpec(Object([Property("low", DataType.long)]), "limits", required=False),
    ]
)
PARAMS = ParamSchema(
    [ParamSpec("depth", DataType.integer, 3), ParamSpec("names", DataType.string, ["a"], (-1,))]
)
TENSORS = Schema(
    [
        TensorSpec(np.dtype(kind), (-1, 2), kind)
        for kind in ("float32", "float64", "int8", "uint64", "bool", "str", "datetime64[ns]")
    ]
)


@pytest.fixture(scope="module")
def schemathesis(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, in an environment of its own: its requirements are not ours."""
    environment = tmp_path_factory.mktemp("schemathesis") / "env"
    subprocess.run([UV, "venv", "-q", "--python", sys.executable, environment], check=True)
    python = environment / "bin/python"
    subprocess.run(
        [UV, "pip", "install", "-q", "--python", python, "schemathesis==4.*"], check=True
    )
    return environment / "bin/schemathesis"


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kind", ["columns", "tensors", "free", "several"])
def test_what_schemathesis_sends_is_never_our_failure(
    kind: str,
    schemathesis: Path,
    tmp_path: Path,
    generate: Callable[..., Path],
    serve: Any,
    bento_home: Path,
) -> None:
    made = {
        "columns": lambda: samples.save_echo(tmp_path / "columns", COLUMNS, PARAMS),
        "tensors": lambda: samples.save_echo(tmp_path / "tensors", TENSORS),
        "free": lambda: samples.save_echo(tmp_path / "free"),
    }
    models = [make() for name, make in made.items() if kind in (name, "several")]
    with serve(generate(*models), bento_home) as send:
        found = subprocess.run(
            [
                *(schemathesis, "run", f"http://127.0.0.1:{send.port}/docs.json"),
                *(
                    "--checks",
                    "not_a_server_error",
                    "--include-path-regex",
                    "^/(predict|inv|v[12])",
                ),
                *("--max-examples", "60", "--seed", "7", "--phases", "examples,coverage,fuzzing"),
            ],
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        assert send("/readyz")[0] == 200
    assert found.returncode == 0, found.stdout[-8000:] + found.stderr[-2000:]
