"""The gates on data and the ready-made trainers as steps of pipelines."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import yaml
from kfp import compiler

from kfp_bento import components
from kfp_bento.pipelines import train_to_serve
from kfp_bento.runtime.local import run_pipeline

PIPELINE = """\
from kfp import dsl

from kfp_bento.components import describe_data, detect_drift


@dsl.component(base_image="python", install_kfp_package=False)
def tell(said: str) -> str:
    return said


@dsl.pipeline
def watch(then: str, now: str):
    described = describe_data(data=then, columns=["age", "city"])
    found = detect_drift(data=now, statistics=described.outputs["statistics"], share=0.5)
    with dsl.If(found.outputs["Output"] == True):  # noqa: E712
        tell(said="retrain").set_display_name("retrain")
    with dsl.Else():
        tell(said="go on").set_display_name("go on")
"""


def task_name(name: str) -> str:
    return name.replace("_", "-")


@pytest.mark.parametrize("name", ["train_sklearn", "train_xgboost", "train_lightgbm"])
def test_a_trainer_is_the_first_step_to_a_service(name: str, tmp_path: Path) -> None:
    pipeline = train_to_serve(getattr(components, name), name="trained")
    compiler.Compiler().compile(pipeline, str(tmp_path / "pipeline.yaml"))
    document, platform = yaml.safe_load_all((tmp_path / "pipeline.yaml").read_text())
    dags = [
        document["root"]["dag"],
        *(one.get("dag", {}) for one in document["components"].values()),
    ]
    tasks = {key: task for dag in dags for key, task in dag.get("tasks", {}).items()}
    follow = [key for key, task in tasks.items() if task_name(name) in str(task.get("inputs"))]
    assert task_name(name) in tasks and follow
    given = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    (storage,) = given[f"exec-{task_name(name)}"]["secretAsVolume"]
    assert storage["secretNameParameter"]["componentInputParameter"] == "storage_secret"
    assert {"data", "label", "model_name", "promote_alias"} <= set(
        document["root"]["inputDefinitions"]["parameters"]
    )


def people(rows: int, first: int, city: str) -> pd.DataFrame:
    return pd.DataFrame({"age": range(first, first + rows), "city": [city] * rows, "id": "x"})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "city", "said"), [(20, "Rome", "go on"), (90, "Oslo", "retrain")]
)
def test_a_pipeline_branches_on_drift(first: int, city: str, said: str, tmp_path: Path) -> None:
    people(200, 20, "Rome").to_csv(tmp_path / "then.csv", index=False)
    people(200, first, city).to_csv(tmp_path / "now.csv", index=False)
    (tmp_path / "watching.py").write_text(PIPELINE)
    arguments = {"then": f"{tmp_path}/then.csv", "now": f"{tmp_path}/now.csv"}
    found = {"PYTHONPATH": str(tmp_path)}
    run = run_pipeline("watching:watch", arguments, tmp_path / "run", environment=found)
    told = [step for step in run.seconds if step.startswith("tell")]
    assert told == ["tell" if said == "retrain" else "tell-2"]
    report = run.record("detect-drift", "report")
    assert report["passed"] is (said == "go on")
    assert "<svg" in run.output("detect-drift", "page").read_text()
    assert run.output("detect-drift", "summary").read_text().startswith("# Drift: ")
