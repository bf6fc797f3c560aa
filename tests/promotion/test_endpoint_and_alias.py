"""Endpoint and alias go together: whatever happens, and whenever a run dies.

The registry is MLflow's own; the API server is a stub whose pods serve, or do not, as they are told
to, since what is looked at here is what is written down, and when.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from stub_api_server import ApiServer, serve_api, write_kubeconfig
from trials import KINDS, Endpoint, Killed, dying, image_of, played_waits

from kfp_bento.runtime.checks import CheckReport, ReleaseReports
from kfp_bento.runtime.deployments import ReleaseFacts, Waiting, leave_release, release_status
from kfp_bento.runtime.errors import DeploymentError, PromotionError, PromotionRefused
from kfp_bento.runtime.models import ModelVersion, pull_models
from kfp_bento.runtime.promotion import (
    await_approval,
    decide,
    promote_release,
    roll_back_release,
    settle_run,
)

REQUIRED = ("smoke", "replay")


@dataclass
class Stage:
    """A registered model with three versions, and an endpoint of its own."""

    endpoint: Endpoint
    client: Any
    name: str
    folder: Path

    @property
    def alias(self) -> str:
        """The version that holds the alias; "" for none."""
        found = self.client.get_registered_model(self.name).aliases.get("prod")
        return "" if found is None else str(found)

    @property
    def where(self) -> tuple[str, str]:
        """What serves, and where the alias is."""
        return self.endpoint.serves, self.alias

    def pull(self, version: str) -> list[ModelVersion]:
        place = self.folder / f"models-{len(list(self.folder.iterdir()))}"
        return list(pull_models([f"models:/{self.name}/{version}"], place))

    def run(self, version: str, *, passed: bool = True, meanwhile: Callable[[], Any] = int) -> Any:
        """What a run of serve_model does from its deployment on."""
        models = self.pull(version)
        release = self.endpoint.trial(version, run=f"run-{version}")
        meanwhile()
        found = self.reports(models, release, passed=passed and not release.failure)
        if not found.passed:
            leave_release(release, "The answers differ.", waiting=Waiting(60))
        return promote_release(
            models, found, "prod", required=REQUIRED, by="me", waiting=Waiting(60)
        )

    def reports(
        self, models: list[ModelVersion], release: ReleaseFacts, *, passed: bool = True
    ) -> ReleaseReports:
        digests = tuple(model.digest for model in models)
        made = [
            CheckReport(
                name, True, "fine", {}, (), digests, "", image=release.image, release=release.title
            )
            for name in ("smoke_test", "compare_predictions")
        ]
        made[-1] = replace(made[-1], passed=passed, summary="fine" if passed else "They differ.")
        return ReleaseReports(release, tuple(made))

    def settle(self, version: str) -> tuple[str, ...]:
        """What the exit handler of that run does."""
        return settle_run(f"run-{version}", target="workload", waiting=Waiting(60))

    def back(self) -> Any:
        return roll_back_release(
            "wine", target="workload", alias="prod", why="complaints", waiting=Waiting(60)
        )


@pytest.fixture
def stage(
    mlflow_server: str,
    wine_model: ModelVersion,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Stage]:
    """Version 1 serves, was found good, and holds the alias."""
    import mlflow

    name = f"stage-{zlib.crc32(request.node.name.encode()):x}"
    for _ in range(3):
        mlflow.register_model("models:/wine/1", name)
    client = mlflow.MlflowClient(mlflow_server)
    with serve_api(ApiServer(kinds=KINDS)) as server:
        config = write_kubeconfig(tmp_path / "kubeconfig", server.url)
        monkeypatch.setenv("KUBECONFIG", str(config))
        endpoint = Endpoint(server, tmp_path, model=name)
        folder = tmp_path / "models"
        folder.mkdir()
        with played_waits(endpoint):
            made = Stage(endpoint, client, name, folder)
            made.run("1")
            assert made.where == ("1", "1")
            yield made


def test_a_promotion_moves_both(stage: Stage) -> None:
    promoted = stage.run("2")
    assert stage.where == ("2", "2")
    assert "is the good release now" in promoted.release
    assert "promotion" not in stage.endpoint.marks
    tags = stage.client.get_model_version(stage.name, "2").tags
    entry = json.loads(tags["kfp-bento.promoted.prod.1"])
    assert (entry["by"], entry["previous"]) == ("me", "1")
    assert entry["release"].startswith("workload default/wine at revision ")


def test_a_check_that_does_not_pass_leaves_both(stage: Stage) -> None:
    with pytest.raises(PromotionRefused, match="They differ"):
        stage.run("2", passed=False)
    assert stage.where == ("1", "1")


def test_a_release_that_a_person_refuses_leaves_both(stage: Stage) -> None:
    models = stage.pull("2")
    found = stage.reports(models, stage.endpoint.trial("2"))
    decide([f"models:/{stage.name}/2"], "prod", image=found.release.image, refuse=True)
    approval = await_approval(models, found, "prod", seconds=60)
    assert stage.endpoint.serves == "2"
    with pytest.raises(PromotionRefused, match="'approval' did not pass: Refused by"):
        promote_release(models, found, "prod", required=REQUIRED, approval=approval)
    assert stage.where == ("1", "1")


def test_a_release_that_does_not_serve_leaves_both(stage: Stage) -> None:
    stage.endpoint.broken = {"2"}
    with pytest.raises(PromotionRefused):
        stage.run("2")
    assert stage.where == ("1", "1")


def test_pods_of_another_image_leave_both(stage: Stage) -> None:
    def other() -> None:
        stage.endpoint.runs = image_of("3")

    with pytest.raises(PromotionRefused, match="is not kept as good") as refused:
        stage.run("2", meanwhile=other)
    assert stage.where == ("1", "1")
    assert "It was rolled back to revision" in refused.value.message


def test_an_alias_that_moved_meanwhile_stays_and_the_endpoint_goes_back(stage: Stage) -> None:
    def moved() -> None:
        stage.client.set_registered_model_alias(stage.name, "prod", "3")

    with pytest.raises(PromotionRefused, match="moved while version 2") as refused:
        stage.run("2", meanwhile=moved)
    assert stage.where == ("1", "3")
    assert "It was rolled back to revision" in refused.value.message


def test_a_release_that_came_in_between_is_not_promoted(stage: Stage) -> None:
    with pytest.raises(DeploymentError, match="cannot be confirmed"):
        stage.run("2", meanwhile=lambda: stage.endpoint.trial("3"))
    assert stage.where == ("3", "1")
    assert release_status("wine", target="workload").on_trial


@pytest.mark.parametrize("missing", ["smoke", "replay", "load"])
def test_a_required_check_cannot_be_left_out(stage: Stage, missing: str) -> None:
    models = stage.pull("2")
    release = stage.endpoint.trial("2")
    found = stage.reports(models, release)
    kept = tuple(one for one in found.reports if missing not in one.name)
    kept = tuple(one for one in kept if missing != "replay" or one.name == "smoke_test")
    with pytest.raises(PromotionRefused, match=f"'{missing}' is required"):
        promote_release(
            models,
            replace(found, reports=kept),
            "prod",
            required=(*REQUIRED, "load"),
            waiting=Waiting(60),
        )
    assert stage.where == ("1", "1")


@pytest.mark.parametrize("changes", [{"image": "other@sha256:" + "0" * 64}, {"release": "other"}])
def test_reports_of_another_release_do_not_count(stage: Stage, changes: dict[str, str]) -> None:
    models = stage.pull("2")
    release = stage.endpoint.trial("2")
    found = stage.reports(models, release)
    other = tuple(replace(one, **changes) for one in found.reports)
    with pytest.raises(PromotionRefused, match="about another release"):
        promote_release(
            models, replace(found, reports=other), "prod", required=REQUIRED, waiting=Waiting(60)
        )
    assert stage.where == ("1", "1")


def test_a_run_that_ends_before_its_checks_is_settled_by_its_exit_handler(stage: Stage) -> None:
    stage.endpoint.trial("2", run="run-2")
    (told,) = stage.settle("2")
    assert "rolled back to revision" in told
    assert stage.where == ("1", "1")
    assert stage.settle("2") == ()


def test_a_run_that_ended_well_has_left_nothing_to_settle(stage: Stage) -> None:
    stage.run("2")
    assert stage.settle("2") == ()
    assert stage.where == ("2", "2")


def test_an_exit_handler_leaves_the_trials_of_other_runs(stage: Stage) -> None:
    stage.endpoint.trial("2", run="run-2")
    assert stage.settle("3") == ()
    assert stage.endpoint.serves == "2"


def test_a_roll_back_takes_the_alias_along(stage: Stage) -> None:
    stage.run("2")
    for changed in (True, False):
        back = stage.back()
        assert stage.where == ("1", "1")
        (moved,) = back.models
        assert (moved.version, moved.changed) == ("1", changed)
    tags = stage.client.get_model_version(stage.name, "1").tags
    told = [json.loads(tags[key]) for key in sorted(tags) if key.startswith("kfp-bento.promoted.")]
    assert (told[-1]["why"], told[-1]["previous"]) == ("complaints", "2")


def test_a_roll_back_to_what_does_not_serve_moves_no_alias(stage: Stage) -> None:
    stage.run("2")
    stage.endpoint.broken = {"1"}
    back = stage.back()
    assert not back.rollout.verdict.ready
    assert stage.alias == "2"


def test_a_roll_back_can_be_looked_at_first(stage: Stage) -> None:
    stage.run("2")
    seen = roll_back_release("wine", target="workload", alias="prod", dry_run=True)
    assert [(one.version, one.changed) for one in seen.models] == [("1", True)]
    assert stage.where == ("2", "2")


def test_a_registry_that_fails_leaves_the_rest_to_the_next_run(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    def down(*_: Any, **__: Any) -> None:
        raise mlflow.exceptions.MlflowException("it is down")

    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, "set_registered_model_alias", down)
        with pytest.raises(PromotionError, match="it is down"):
            stage.run("2")
    assert stage.where == ("2", "1")
    (told,) = stage.settle("2")
    assert "cut short is completed" in told
    assert stage.where == ("2", "2")


CHANGES = 11
"""Changes of a run from its deployment on, those that are only tried among them."""

QUICK = {(8, False)}
"""Between endpoint and alias."""

moments = pytest.mark.parametrize(
    ("at", "after"),
    [
        pytest.param(at, after, marks=() if (at, after) in QUICK else pytest.mark.slow)
        for at in range(1, CHANGES + 1)
        for after in (False, True)
    ],
)


def test_every_change_of_a_run_is_one_at_which_it_dies_below(stage: Stage) -> None:
    with dying(1000, after=False) as death:
        stage.run("2")
    assert death.count == CHANGES


@moments
def test_a_run_that_dies_anywhere_is_completed_by_the_next(
    stage: Stage, at: int, after: bool
) -> None:
    assert die(at, lambda: stage.run("2"), after=after)
    stage.run("2")
    assert stage.where == ("2", "2")
    assert stage.settle("2") == ()


@moments
def test_after_a_run_that_died_a_refused_one_leaves_both_together(
    stage: Stage, at: int, after: bool
) -> None:
    die(at, lambda: stage.run("2"), after=after)
    with pytest.raises(PromotionRefused):
        stage.run("3", passed=False)
    serves, alias = stage.where
    assert serves == alias != "3"


@moments
def test_a_run_that_died_is_settled_by_its_exit_handler(stage: Stage, at: int, after: bool) -> None:
    die(at, lambda: stage.run("2"), after=after)
    stage.settle("2")
    serves, alias = stage.where
    assert serves == alias
    assert not release_status("wine", target="workload").on_trial


@moments
def test_a_roll_back_that_dies_anywhere_ends_the_same_way(
    stage: Stage, at: int, after: bool
) -> None:
    stage.run("2")
    die(at, stage.back, after=after)
    stage.back()
    assert stage.where == ("1", "1")


def die(at: int, work: Callable[[], Any], *, after: bool) -> bool:
    """Lets some work die at its n-th change; says whether it came that far."""
    try:
        with dying(at, after=after):
            work()
    except Killed:
        return True
    return False


def test_where_no_alias_is_to_move_no_registry_is_asked(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    stage.endpoint.trial("2", run="run-2")
    assert len(stage.settle("2")) == 1
    assert stage.endpoint.serves == "1"


def noted(stage: Stage, version: str) -> None:
    """Somebody who may edit the release writes that a promotion was begun."""
    note = json.dumps(["prod", [stage.name, "1", version]], separators=(",", ":"))
    assert stage.endpoint.api is not None
    holder = stage.endpoint.api.objects["deployments/wine"]["metadata"]
    holder["annotations"]["kfp-bento/promotion"] = note


def test_a_planted_note_moves_no_alias_to_what_was_never_checked(stage: Stage) -> None:
    noted(stage, "3")
    (told,) = stage.settle("2")
    assert "not known to serve it: no alias was moved" in told
    assert stage.where == ("1", "1")


def test_with_a_shared_key_only_a_sealed_note_is_believed(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.setenv("KFP_BENTO_RECORD_KEY", "k" * 40)
    stage.run("2")
    noted(stage, "2")
    with pytest.raises(DeploymentError, match="has no seal"):
        stage.settle("2")

    def down(*_: Any, **__: Any) -> None:
        raise mlflow.exceptions.MlflowException("it is down")

    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, "set_registered_model_alias", down)
        with pytest.raises(PromotionError, match="it is down"):
            stage.run("3")
    assert " sealed " in stage.endpoint.marks["promotion"]
    stage.settle("3")
    assert stage.where == ("3", "3")
