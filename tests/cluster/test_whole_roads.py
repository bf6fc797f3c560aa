"""Every pipeline goes its good and its bad roads whole; then it is asked where both ends are.

The API server, its controllers, MLflow, the registry and the object store are real, and so are the
services that pods run. Where a run has to go wrong it does so by what it is given, or since the
process of a step is killed at a moment that is waited for.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from live_cluster import LiveCluster
from serving_pods import serving_pods_in
from whole_roads import HANGS, REFUSING, WRONG, Road, Stage, register, stage_in

from kfp_bento.runtime.local import Step

pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def stage(
    cluster: LiveCluster,
    mlflow_server: str,
    oci_registry: str,
    shared_cache: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("stage")
    with (
        serving_pods_in(folder / "pods", cluster) as pods,
        stage_in(folder, pods, mlflow_server, oci_registry, shared_cache) as made,
    ):
        for factor in (1, 2, 3):
            register("road", folder, factor)
        yield made


@pytest.fixture(scope="module")
def road(stage: Stage) -> Road:
    """Version 1 serves, was found good, and holds the alias."""
    import mlflow

    made = Road(stage, "road", stage.pods.namespace(), mlflow.MlflowClient())
    made.run("1")
    assert made.where == ("1", "1")
    return made


@pytest.fixture
def before(road: Road) -> tuple[str, str]:
    """What serves and holds the alias when a test begins: the same version."""
    serves, alias = road.where
    assert serves == alias != ""
    return serves, alias


# -- serve_model ---------------------------------------------------------------------------------


def test_a_gate_that_refuses_leaves_both(road: Road, before: Any) -> None:
    told = road.refused(road.next, check_gates=REFUSING)
    assert "Step promote-model failed: The check 'load_test' did not pass" in told
    assert road.where == before


def test_answers_that_are_not_the_models_leave_both(road: Road, before: Any) -> None:
    told = road.refused(road.next, deploy_envs=WRONG)
    assert "Step promote-model failed: The check 'compare_predictions' did not pass" in told
    assert road.where == before


def test_a_release_that_does_not_serve_in_time_leaves_both(road: Road, before: Any) -> None:
    told = road.refused(road.next, deploy_envs=HANGS, deploy_wait_seconds=8)
    assert "Step promote-model failed: The check 'smoke_test' did not pass" in told
    assert road.where == before


def test_an_alias_that_moved_meanwhile_stays_there_and_the_endpoint_stays(
    road: Road, before: Any
) -> None:
    def meanwhile(step: Step) -> None:
        if step == Step("check-release"):
            road.client.set_registered_model_alias(road.model, road.pointer, theirs)

    new = road.next
    (theirs,) = {"1", "2", "3"} - {*before, new}
    try:
        told = road.refused(new, meanwhile=meanwhile)
        assert f"moved while version {new} was being checked" in told
        assert road.where == (before[0], theirs)
    finally:
        road.client.set_registered_model_alias(road.model, road.pointer, before[1])


def test_a_release_that_nobody_approves_in_time_leaves_both(road: Road, before: Any) -> None:
    told = road.refused(road.next, approval_seconds=1)
    assert "Nobody approved" in told
    assert road.where == before


def test_a_run_that_is_killed_in_one_step_after_the_other_ends_right_when_it_is_run_again(
    road: Road, before: Any
) -> None:
    new, stage = road.next, road.stage
    for step, moment in {"deploy-bento": "applied", "check-release": "ask"}.items():
        stage.deaths[step] = moment
        assert f"Step {step} failed" in road.refused(new)
        assert stage.died.pop() == step
        assert road.where == before
    stage.deaths["promote-model-2"] = stage.deaths["promote-model"] = "alias"
    assert "Step promote-model failed" in road.refused(new)
    assert stage.died.pop() == "promote-model"
    stage.deaths.clear()
    assert road.where == (new, new)
    road.run(new)
    assert road.where == (new, new)


def test_a_run_whose_exit_handler_is_killed_too_is_settled_by_the_next(
    road: Road, before: Any
) -> None:
    new, stage = road.next, road.stage
    stage.deaths |= {"check-release": "ask", "settle-run": "apply"}
    assert "Step check-release failed" in road.refused(new)
    assert stage.died == ["check-release", "settle-run"]
    stage.died.clear()
    assert road.where == (new, before[1])  # on trial, and nobody has refused it
    road.refused(new, check_gates=REFUSING)
    assert road.where == before
