"""An alias moves on MLflow's own server, and one run is submitted for it, whatever happens."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from kfp_bento_command import COMMAND, assert_refused, kfp_bento_here
from pipelines_api import KubeflowPipelines, refusal, serve_pipelines, until

from kfp_bento.runtime.errors import InvalidInput
from kfp_bento.runtime.local import load_pipeline
from kfp_bento.runtime.models import ModelVersion
from kfp_bento.runtime.runs import Registry, Submission, Trigger, Watch, choose_server, read_watched
from kfp_bento.runtime.runs import watching as watching_module

PIPELINE = "tests.runs.watched_pipelines:serve"
NOTE = "kfp-bento.submitted.candidate.serve"


@dataclass
class Stage:
    """A registry with models of this test, a stub of Kubeflow Pipelines, and what was told."""

    mlflow: str
    client: Any
    pipelines: KubeflowPipelines
    stem: str
    events: list[dict[str, str]] = field(default_factory=list)

    def register(self, name: str = "", versions: int = 1) -> str:
        import mlflow

        model = f"{self.stem}{name}"
        for _ in range(versions):
            mlflow.register_model("models:/wine/1", model)
        return model

    def move(self, model: str, version: str) -> None:
        self.client.set_registered_model_alias(model, "candidate", version)

    def watch(self, *models: str, tagged: tuple[str, ...] = ()) -> Watch:
        """A watch as one that has just been started."""
        watched = read_watched([f"models:/{one}@candidate" for one in models], tagged, "candidate")
        submission = Submission(load_pipeline(PIPELINE))
        trigger = Trigger(watched, "serve", submission, {"seconds": 2}, "model_uris")
        server = choose_server(self.pipelines.url)
        return Watch(trigger, Registry(self.mlflow), server, tell=lambda e: self.told(e))

    def told(self, event: Any) -> None:
        self.events.append(dict(event))

    @property
    def runs(self) -> list[list[str]]:
        """The models of each run."""
        found = (run["runtime_config"]["parameters"] for run in self.pipelines.runs)
        return [one["model_uris"] for one in found]

    def note(self, model: str, version: str = "1") -> str:
        return str(self.client.get_model_version(model, version).tags.get(NOTE, ""))


@pytest.fixture
def stage(
    mlflow_server: str, wine_model: ModelVersion, request: pytest.FixtureRequest
) -> Iterator[Stage]:
    import mlflow

    stem = f"watch-{zlib.crc32(request.node.name.encode()):x}"
    with serve_pipelines() as pipelines:
        yield Stage(mlflow_server, mlflow.MlflowClient(mlflow_server), pipelines, stem)


def test_an_alias_that_moves_submits_one_run(stage: Stage) -> None:
    model = stage.register(versions=2)
    watch = stage.watch(model)
    assert watch.look() == 0
    assert not stage.runs
    for version in ("1", "2", "1"):
        stage.move(model, version)
        for _ in range(3):
            assert watch.look() == 0
    assert stage.runs == [[f"models:/{model}/1"], [f"models:/{model}/2"]]
    run = stage.pipelines.runs[0]
    assert re.fullmatch(f"serve-{model}-1-[0-9a-f]{{8}}", run["display_name"])
    assert run["runtime_config"]["parameters"]["seconds"] == 2
    assert stage.note(model) == run["run_id"]
    assert [one["event"] for one in stage.events] == ["submitted", "submitted"]


def test_after_a_restart_nothing_is_submitted_again(stage: Stage) -> None:
    model = stage.register()
    stage.move(model, "1")
    for _ in range(2):
        assert stage.watch(model).look() == 0
    assert len(stage.runs) == 1


def test_a_run_whose_note_is_missing_is_found_by_its_name(stage: Stage) -> None:
    model = stage.register()
    stage.move(model, "1")
    stage.watch(model).look()
    stage.client.delete_model_version_tag(model, "1", NOTE)
    stage.watch(model).look()
    assert len(stage.runs) == 1
    assert stage.note(model) == stage.pipelines.runs[0]["run_id"]
    assert [one["event"] for one in stage.events] == ["submitted", "found"]


def test_an_answer_that_is_lost_submits_nothing_twice(stage: Stage) -> None:
    model = stage.register()
    stage.move(model, "1")
    stage.pipelines.lost = 1
    assert stage.watch(model).look() == 0
    assert len(stage.runs) == 1
    assert stage.note(model)


def test_a_version_that_came_back_under_its_number_is_another(stage: Stage) -> None:
    import mlflow

    model = stage.register()
    stage.move(model, "1")
    stage.watch(model).look()
    stage.client.delete_registered_model(model)
    with mlflow.start_run() as run:
        mlflow.log_text("other", "other/MLmodel")
    stage.client.create_registered_model(model)
    stage.client.create_model_version(model, f"runs:/{run.info.run_id}/other", run.info.run_id)
    stage.move(model, "1")
    stage.watch(model).look()
    assert len({run["display_name"] for run in stage.pipelines.runs}) == 2


def test_two_models_are_watched_and_one_that_fails_stops_no_other(stage: Stage) -> None:
    first, second = stage.register("-a"), stage.register("-b")
    stage.move(first, "1")
    stage.move(second, "1")
    watch = stage.watch("nothing-of-that-name", first, second)
    assert watch.look() == 1
    assert watch.look() == 1
    assert stage.runs == [[f"models:/{first}/1"], [f"models:/{second}/1"]]
    failed = [one for one in stage.events if one["event"] == "failed"]
    assert len(failed) == 1  # it is told once, not at every look
    assert "There is no registered model" in failed[0]["message"]


def test_models_with_a_tag_are_watched(stage: Stage) -> None:
    chosen, other = stage.register("-a"), stage.register("-b")
    for model, team in ((chosen, stage.stem), (other, "others")):
        stage.client.set_registered_model_tag(model, "team", team)
        stage.move(model, "1")
    stage.watch(tagged=(f"team={stage.stem}",)).look()
    assert stage.runs == [[f"models:/{chosen}/1"]]


def test_a_server_that_is_down_is_asked_again_and_seldomer(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = stage.register()
    stage.move(model, "1")
    pauses: list[float] = []
    watch = stage.watch(model)

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 5:
            watch.stop()

    monkeypatch.setattr(watch, "_pause", pause)
    stage.pipelines.passing = [refusal(503, 14, "starting")] * 3
    watch.run(10)
    assert pauses == [20, 40, 80, 10, 10]
    assert len(stage.runs) == 1
    assert stage.note(model)
    assert watching_module._pause_after(10, 100) == 900
    assert watching_module._pause_after(3600, 100) == 3600


def test_a_registry_that_is_down_is_no_end(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = stage.watch("any")
    watch.registry = Registry("http://127.0.0.1:9")
    assert watch.look() == 1
    assert "does not answer" in stage.events[0]["message"]


def test_a_look_can_be_rung_for(stage: Stage) -> None:
    model = stage.register()
    watch = stage.watch(model)
    thread = threading.Thread(target=watch.run, args=(600,))
    looks: list[float] = []
    real = watch.look

    def look() -> int:
        failures = real()
        looks.append(time.monotonic())
        return failures

    watch.look = look  # type: ignore[method-assign]
    thread.start()
    until(lambda: looks)
    stage.move(model, "1")
    watch.wake.set()
    until(lambda: len(looks) > 1)
    watch.stop()
    thread.join(timeout=60)
    assert not thread.is_alive()
    assert len(stage.runs) == 1
    assert looks[1] - looks[0] >= 0.9  # however often somebody rings


def started(stage: Stage, model: str, *more: str) -> subprocess.Popen[str]:
    environment = os.environ | {"MLFLOW_TRACKING_URI": stage.mlflow, "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [
            *(*COMMAND, "watch", f"models:/{model}@candidate", "--submit", PIPELINE),
            *("--host", stage.pipelines.url, "--every", "0.1", "--json", *more),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def test_one_that_is_killed_between_run_and_note_submits_nothing_twice(stage: Stage) -> None:
    model = stage.register()
    stage.move(model, "1")
    with started(stage, model) as process:
        stage.pipelines.on_made = process.kill
        process.wait(timeout=120)
    assert process.returncode == -signal.SIGKILL
    assert len(stage.runs) == 1
    assert not stage.note(model)
    stage.pipelines.on_made = lambda: None
    with started(stage, model) as process:
        until(lambda: stage.note(model))
        process.send_signal(signal.SIGTERM)
        told, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert [json.loads(line)["event"] for line in told.splitlines()] == [
        *("watching", "found", "stopped")
    ]
    assert len(stage.runs) == 1
    assert stage.note(model) == stage.pipelines.runs[0]["run_id"]


def test_once_looks_once(stage: Stage) -> None:
    model = stage.register()
    stage.move(model, "1")
    words = ["watch", f"models:/{model}@candidate", "--submit", PIPELINE, "--once"]
    words += ["--host", stage.pipelines.url, "--tracking-uri", stage.mlflow]
    done = kfp_bento_here(*words)
    assert done.returncode == 0, done.stderr
    assert re.match(rf'\S+Z submitted model="{model}" version="1" alias="candidate"', done.stdout)
    assert kfp_bento_here(*words).stdout == ""
    stage.move(stage.register("-b"), "1")
    words[1] = f"models:/{model}-b@candidate"
    stage.pipelines.passing = [refusal(503, 14, "starting")]
    assert kfp_bento_here(*words).returncode == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["models:/credit/7"], "names no alias"),
        ([], "nothing to watch"),
        (["--tagged", "team=a"], "which alias"),
        (["models:/a@b", "-p", "seconds=x"], "not of type Integer"),
        (["models:/a@b", "-p", "model_uris=models:/a/1"], "is what the watch fills in"),
        (["models:/a@b", "--model-parameter", "seconds"], "no parameter seconds that takes"),
        (["models:/a@b", "--listen", "0.0.0.0:8080"], "secret has to have"),
        (["models:/a@b", "--submit", "nothing"], "There is no pipeline nothing"),
    ],
)
def test_a_mistake_is_said_at_once(words: list[str], told: str, mlflow_server: str) -> None:
    given = ["watch", "--submit", PIPELINE, "--host", "http://127.0.0.1:9", *words]
    done = kfp_bento_here(*given, MLFLOW_TRACKING_URI=mlflow_server)
    assert_refused(done, told)


def test_steps_without_an_image_end_the_watch_at_once(mlflow_server: str) -> None:
    words = [
        "-p",
        "image_destination=a",
        "-p",
        "promote_alias=prod",
        "--host",
        "http://127.0.0.1:9",
    ]
    assert_refused(kfp_bento_here("watch", "models:/a@b", *words), "for runtime_image")


def test_an_address_that_is_none_is_refused() -> None:
    from kfp_bento.runtime.runs import read_address

    for address in ("8080", "localhost", ":80", "host:99999", "host:x"):
        with pytest.raises(InvalidInput):
            read_address(address)


@pytest.mark.slow
def test_the_secret_of_a_webhook_may_lie_in_a_file(stage: Stage, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("a secret of sixteen or more\n")
    model = stage.register()
    with started(
        stage, model, "--listen", "127.0.0.1:0", "--webhook-secret-file", str(secret)
    ) as process:
        assert process.stdout is not None
        place = json.loads(process.stdout.readline())
        assert place["event"] == "listening"
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode == 0
