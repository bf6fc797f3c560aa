"""What a model is does not depend on where and when it was logged, nor on who could install it."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow.pyfunc
import pandas as pd
import pytest
import yaml

from kfp_bento.runtime.bentos.tree import add_model
from kfp_bento.runtime.models import (
    file_digests,
    load_model,
    model_files,
    portable_files,
    set_digest,
)
from kfp_bento.runtime.models.portable import last_part, portable_mlmodel

if TYPE_CHECKING:
    from kfp_bento.runtime.models import ModelVersion

CODE = """
import mlflow, pathlib
class Model(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        self.k = float(pathlib.Path(context.artifacts["k"]).read_text())
    def predict(self, context, model_input, params=None):
        return [self.k * value for value in model_input["x"]]
mlflow.models.set_model(Model())
"""
PASSWORD = "s3cr3t-T0ken"


def save(place: Path, lines: list[str] | None = None, **options: object) -> ModelVersion:
    """Log a model from code, with an artifact, in a folder as somebody has it."""
    place.mkdir(parents=True)
    (place / "model.py").write_text(CODE)
    (place / "k.txt").write_text("2.5")
    mlflow.pyfunc.save_model(
        place / "saved",
        python_model=str(place / "model.py"),
        artifacts={"k": str(place / "k.txt")},
        pip_requirements=lines or (None if options else ["mlflow", "pandas"]),
        **options,
    )
    return load_model(place / "saved")


def test_a_model_logged_from_two_checkouts_is_one_model(tmp_path: Path) -> None:
    alice, bob = (save(tmp_path / who / "checkout") for who in ("alice", "bob"))
    assert str(tmp_path) in (alice.directory / "MLmodel").read_text()
    assert alice.digest != bob.digest
    assert alice.content_digest == bob.content_digest


def test_the_bento_holds_no_path_of_the_machine_and_mlflow_loads_the_model(tmp_path: Path) -> None:
    model = save(tmp_path / "alice")
    add_model(model, "echo:1", tmp_path / "store")
    inside = tmp_path / "store" / "echo" / "1"
    held = {path: path.read_bytes() for path in inside.rglob("*") if path.is_file()}
    assert str(tmp_path).encode() not in b"".join(held.values())
    files = model_files(inside, leave_out=frozenset({"model.yaml"}))
    assert set_digest(file_digests(files)) == model.content_digest

    shutil.rmtree(tmp_path / "alice")
    loaded = mlflow.pyfunc.load_model(str(inside))
    assert loaded.predict(pd.DataFrame({"x": [1.0, 2.0]})) == [2.5, 5.0]


def test_a_model_inside_a_model_counts_for_what_it_is(tmp_path: Path) -> None:
    outer = []
    for who in ("alice", "bob"):
        inner = save(tmp_path / who / "inner")
        mlflow.pyfunc.save_model(
            tmp_path / who / "outer",
            python_model=str(tmp_path / who / "inner" / "model.py"),
            artifacts={"k": str(tmp_path / who / "inner" / "k.txt"), "in": str(inner.directory)},
            pip_requirements=["mlflow", "pandas"],
        )
        outer.append(load_model(tmp_path / who / "outer"))
    assert outer[0].content_digest == outer[1].content_digest


def test_a_model_logged_on_windows_is_served_here(tmp_path: Path) -> None:
    model = save(tmp_path / "alice")
    file = model.directory / "MLmodel"
    said = yaml.safe_load(file.read_text())
    flavor = said["flavors"]["python_function"]
    flavor["model_code_path"] = "C:\\proj\\models\\model.py"
    flavor["artifacts"]["k"] = {"path": "artifacts\\k.txt", "uri": "C:\\Users\\al\\Temp\\k.txt"}
    file.write_text(yaml.safe_dump(said))
    file.write_bytes(portable_files(model.directory, ["MLmodel"])["MLmodel"])

    loaded = mlflow.pyfunc.load_model(str(model.directory))
    assert loaded.predict(pd.DataFrame({"x": [1.0]})) == [2.5]


@pytest.mark.parametrize(
    ("path", "last"),
    [
        ("/home/al/model.py", "model.py"),
        ("C:\\proj\\model.py", "model.py"),
        ("C:/proj/models/", "models"),
        ("\\\\share\\proj\\model.py", "model.py"),
        ("model.py", "model.py"),
    ],
)
def test_the_last_part_of_a_path_is_found_on_any_system(path: str, last: str) -> None:
    assert last_part(path) == last


def test_what_a_model_is_configured_with_stays() -> None:
    settings = {"prompts": "/mnt/prompts", "uri": "http://store/x", "model_name": "/mnt/m"}
    text = yaml.safe_dump(
        {
            "flavors": {
                "python_function": {"config": settings, "model_code_path": "/home/al/m.py"},
                "transformers": {"source_model_name": "/tmp/t1/checkpoint", "code": None},
                "llama_index": {"config": "/home/al/config.yaml"},
                "openai": {"model_name": "org/model"},
            },
            "metadata": {"path": "/home/al"},
        }
    )
    said = yaml.safe_load(portable_mlmodel(text.encode()))
    assert said["metadata"] == {"path": "/home/al"}
    assert said["flavors"] == {
        "python_function": {"config": settings, "model_code_path": "m.py"},
        "transformers": {"source_model_name": "checkpoint", "code": None},
        "llama_index": {"config": "config.yaml"},
        "openai": {"model_name": "org/model"},
    }


def test_an_exported_conda_environment_does_not_say_where_it_was(tmp_path: Path) -> None:
    digests = set()
    for who in ("alice", "bob"):
        conda = {
            "name": "e",
            "dependencies": ["python=3.11", "pip", {"pip": ["mlflow", "pandas"]}],
            "prefix": f"/home/{who}/miniconda3/envs/e",
        }
        model = save(tmp_path / who, conda_env=conda)
        digests.add(model.content_digest)
    assert len(digests) == 1
    assert load_model(model.directory).python_version.startswith("3.11")


@pytest.mark.parametrize(
    "place",
    [
        f"--extra-index-url http://robot:{PASSWORD}@127.0.0.1:9/simple",
        f"--extra-index-url http://{PASSWORD}@127.0.0.1:9/simple",
        f"--extra-index-url http://robot:at@{PASSWORD}@127.0.0.1:9/simple",
        f"--find-links http://127.0.0.1:9/simple?token={PASSWORD}",
        f"six @ git+https://{PASSWORD}@127.0.0.1/six@{'a' * 40}",
    ],
)
def test_a_password_for_an_index_is_in_no_record_and_in_no_bento(
    tmp_path: Path,
    place: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        model = save(tmp_path / "alice", lines=["mlflow", place])
    assert PASSWORD in (model.directory / "requirements.txt").read_text()
    assert "change that password" in caplog.text
    assert PASSWORD not in caplog.text
    assert PASSWORD not in json.dumps(model.to_dict())

    add_model(model, "echo:1", tmp_path / "store")
    kept = b"".join(path.read_bytes() for path in (tmp_path / "store").rglob("*.*"))
    assert PASSWORD.encode() not in kept
    assert kept.count(b"127.0.0.1") == 2  # requirements.txt and conda.yaml


def test_a_changed_password_makes_no_other_model(tmp_path: Path) -> None:
    digests = {
        save(
            tmp_path / word, lines=["mlflow", f"--extra-index-url https://me:{word}@host/simple"]
        ).content_digest
        for word in ("old", "new")
    }
    assert len(digests) == 1


def test_names_of_variables_are_left_to_be_refused_where_lines_are_read(tmp_path: Path) -> None:
    line = "--extra-index-url https://${USER}:${PASSWORD}@host/simple"
    assert line in save(tmp_path / "alice", lines=["mlflow", line]).requirements
