"""Asked or not, the local runner takes the one way to the alias that the parameter says."""

from __future__ import annotations

import contextlib
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from wine import log_wine_model

from kfp_bento.runtime.errors import InvalidInput, LocalRunError
from kfp_bento.runtime.local import ADDRESS_VARIABLE, Step, local_target, run_pipeline
from kfp_bento.runtime.local.runs import Run
from kfp_bento.runtime.models import ModelVersion
from kfp_bento.runtime.promotion import decide

PIPELINE = "tests.local.approval_pipelines:promoting"
IMAGE = "sha256:" + "a" * 64


def run(alias: str, server: str, folder: Path, **more: Any) -> Run:
    arguments = {
        "model": "models:/wine/1",
        "tracking_uri": server,
        "alias": alias,
        "marker": str(folder / "marker"),
    }
    return run_pipeline(PIPELINE, {**arguments, **more}, folder / "run")


def holder(server: str, alias: str) -> str:
    from mlflow import MlflowClient

    return str(MlflowClient(server).get_registered_model("wine").aliases.get(alias, ""))


@pytest.mark.slow  # whole roads go this way in other tests, too
def test_where_nobody_is_asked_no_step_runs_for_it(
    wine_model: ModelVersion, mlflow_server: str, tmp_path: Path
) -> None:
    done = run("unasked", mlflow_server, tmp_path)
    assert [*done.seconds] == ["pull-model", "check-nothing", "promote-model", "note-the-end"]
    assert done.record("promote-model")["alias"] == "unasked"
    assert holder(mlflow_server, "unasked") == "1"


@pytest.mark.slow  # the ways through the pipeline are looked at in its YAML, too
def test_the_alias_moves_after_an_approval(
    wine_model: ModelVersion, mlflow_server: str, tmp_path: Path
) -> None:
    decide(["models:/wine/1"], "asked", image=IMAGE, why="reviewed")
    done = run("asked", mlflow_server, tmp_path, approval_seconds=60)
    assert [*done.seconds][2:] == ["await-approval", "promote-model-2", "note-the-end"]
    assert "reviewed" in done.output("await-approval", "summary").read_text()
    assert holder(mlflow_server, "asked") == "1"


@pytest.mark.slow
def test_the_alias_stays_where_nobody_approves(
    wine_model: ModelVersion, mlflow_server: str, tmp_path: Path
) -> None:
    with pytest.raises(LocalRunError, match=r"Step promote-model-2 failed: .*Nobody approved"):
        run("late", mlflow_server, tmp_path, approval_seconds=1)
    assert (tmp_path / "marker").read_text() == "ended"
    assert holder(mlflow_server, "late") == ""
    log = (tmp_path / "run" / "pipeline.log").read_text()
    assert f"kfp-bento approve models:/wine/1 --alias late --image {IMAGE} --refuse" in log


def answer(version: str, *, refuse: bool) -> Any:
    """A person who answers the question of a run once it is asked."""

    def on_step(step: Step) -> None:
        while step.name == "await-approval" and step.succeeded is None:
            with contextlib.suppress(InvalidInput):  # it is not asked yet
                decide([f"models:/asked wine/{version}"], "live", refuse=refuse, why="seen")
                return
            time.sleep(0.2)

    return on_step


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_what_a_person_approves_goes_live_and_what_they_refuse_goes_back(
    mlflow_server: str, shared_cache: Path, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    for seen in ("first", "second"):
        log_wine_model("asked wine", metadata={"trained": seen})
    with local_target(tmp_path / "service", cache=shared_cache) as target:
        environment = {ADDRESS_VARIABLE: target.address, "KFP_BENTO_CACHE": str(shared_cache)}

        def serve(version: str, *, refuse: bool) -> Run:
            arguments = {
                "model_uris": [f"models:/asked wine/{version}"],
                "tracking_uri": mlflow_server,
                "image_base": "host",
                "image_destination": f"oci:{tmp_path}/image",
                "promote_alias": "live",
                "approval_seconds": 600,
            }
            return run_pipeline(
                *("serve_model", arguments, tmp_path / f"run-{version}"),
                environment=environment,
                on_step=answer(version, refuse=refuse),
            )

        done = serve("1", refuse=False)
        approved = target.services[-1].url
        assert [*done.seconds][-3:] == ["await-approval", "promote-model-2", "settle-run"]
        with pytest.raises(
            LocalRunError, match=r"Step promote-model-2 failed: .*Refused by .*seen"
        ):
            serve("2", refuse=True)
        assert str(MlflowClient().get_registered_model("asked wine").aliases["live"]) == "1"
        with urllib.request.urlopen(f"{approved}/readyz", timeout=30) as answered:
            assert answered.status == 200
