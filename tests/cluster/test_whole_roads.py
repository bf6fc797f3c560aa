"""Every pipeline goes its good and its bad roads whole; then it is asked where both ends are.

The API server, its controllers, MLflow, the registry and the object store are real, and so are the
services that pods run. Where a run has to go wrong it does so by what it is given, or since the
process of a step is killed at a moment that is waited for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from crd_sets import available
from gateway import GatewayController
from image_builder import BUILD_FAILED, BUILDER_POD
from live_cluster import LiveCluster
from looking import looking
from played_controller import running
from pod_behaviour import completes
from servers import S3Server
from serving_builder import ServingBuilder
from serving_pods import serving_pods_in
from times_models import HANGS, WRONG, register
from whole_roads import REFUSING, Road, Stage, stage_in, why_failed
from wine import requirements
from yatai_operator import YataiOperator

from kfp_bento.runtime.local import Run, Step
from kfp_bento.runtime.training import TrainOptions, train_model

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
            # The environment of what is trained meanwhile serves them too.
            register("road", folder, factor, requirements())
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
    road.stage.deaths.clear()
    road.stage.died.clear()
    serves, alias = road.where
    assert serves == alias != ""
    return serves, alias


# -- serve_model ---------------------------------------------------------------------------------


def test_a_gate_that_refuses_leaves_both(road: Road, before: Any) -> None:
    told = road.refused(road.next, check_gates=REFUSING)
    assert "Step promote-model failed: The check 'load_test' did not pass" in told
    assert road.where == before


def test_what_is_refused_does_not_stay_where_the_step_that_says_so_is_killed(
    road: Road, before: Any
) -> None:
    road.stage.deaths["check-release"] = "apply"  # to bring the last good one back
    assert "Step check-release failed" in road.refused(road.next, check_gates=REFUSING)
    assert road.stage.died.pop() == "check-release"
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
    stage.deaths["promote-model"] = "alias"
    assert "Step promote-model failed" in road.refused(new)
    assert stage.died.pop() == "promote-model"
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
    assert road.where == (new, before[1])  # on trial, and nobody has refused it
    road.refused(new, check_gates=REFUSING)
    assert road.where == before


# -- other roads to the same endpoint --------------------------------------------------------------


def test_what_was_just_trained_and_is_refused_leaves_both(road: Road, before: Any) -> None:
    given = {"model_name": "trained", "check_gates": REFUSING}
    assert "'load_test' did not pass" in why_failed(lambda: trained(road, "train_to_serve", given))
    assert road.where == before
    assert road.client.get_registered_model("trained").aliases == {}


def test_what_was_trained_anew_since_data_drifted_and_is_refused_leaves_both(
    road: Road, before: Any, tmp_path: Path
) -> None:
    from sklearn.datasets import load_wine

    table = load_wine(as_frame=True).frame
    table.to_csv(tmp_path / "table.csv", index=False)
    (table * 3).to_csv(tmp_path / "drifted.csv", index=False)
    known = {"label": "target", "model_name": "watched", "params": {"max_iter": 20}}
    train_model("scikit-learn", str(tmp_path / "table.csv"), TrainOptions(**known))
    road.client.set_registered_model_alias("watched", road.pointer, "1")
    given = {
        **known,
        "data": str(tmp_path / "table.csv"),
        "drift_model_uri": "models:/watched/1",
        "check_gates": REFUSING,
    }
    drifted = {**given, "drift_data": str(tmp_path / "drifted.csv")}
    told = why_failed(lambda: trained(road, "retrain_on_drift", drifted))
    assert "'load_test' did not pass" in told
    assert road.where == before
    assert road.client.get_registered_model("watched").aliases == {road.pointer: "1"}
    assert road.client.get_model_version("watched", "2").version == "2"
    same = trained(road, "retrain_on_drift", {**given, "drift_data": str(tmp_path / "table.csv")})
    assert [*same.seconds] == ["detect-drift", "settle-run"]
    assert road.where == before


def trained(road: Road, pipeline: str, given: dict[str, Any]) -> Run:
    where = {
        "image_destination": f"{road.stage.registry}/ml/road",
        "image_base": "host",
        "deploy_target": "workload",
    }
    return road.stage.run(pipeline, **where, **road.ends, **given)


SERVICE = """
import os

import bentoml


@bentoml.service
class Road:
    @bentoml.api
    def predict(self, inputs: list[dict[str, float]]) -> list[float]:
        wrong = os.path.exists(os.environ.get("WRONG_WHEN", ""))
        return [one["a"] * {factor} + wrong / 2 for one in inputs]
"""


def test_a_service_without_a_model_stays_where_the_next_one_is_refused(
    stage: Stage, road: Road
) -> None:
    own = replace(road, namespace=stage.pods.namespace())

    def serve(factor: int, **more: Any) -> Run:
        return stage.run(
            "serve_service",
            bento_service=SERVICE.replace("{factor}", str(factor)),
            bento_requests=[{"path": "/predict", "body": {"inputs": [{"a": 2.0}]}}],
            image_destination=f"{stage.registry}/ml/road",
            image_base="host",
            deploy_name="road",
            deploy_target="workload",
            deploy_namespace=own.namespace,
            deploy_wait_seconds=120,
            **more,
        )

    serve(5)
    assert own.serves == "5"
    told = why_failed(lambda: serve(7, deploy_envs=WRONG))
    assert "Step confirm-release failed: The check 'compare_predictions' did not pass" in told
    assert own.serves == "5"


# -- canary_release and roll_back_model ------------------------------------------------------------


@pytest.fixture(scope="module")
def canaries(cluster: LiveCluster, stage: Stage, road: Road) -> Iterator[Road]:
    """Version 1 came by canary_release to an endpoint with a route."""
    cluster.crds.ensure("gateway-api", available("gateway-api")[-1])
    made = replace(
        road,
        namespace=stage.pods.namespace(),
        pointer="canary",
        given={
            "deploy_options": {"route": {"gateway": "public"}},
            "canary_steps": [10, 50],
            "canary_soak_seconds": 1,
        },
    )
    with running(GatewayController(cluster.api, made.namespace)):
        made.run("1", "canary_release")
        assert made.where == ("1", "1")
        yield made


def weights(road: Road) -> dict[str, int]:
    """How the Gateway is told to split requests."""
    route = ("gateway.networking.k8s.io/v1", "HTTPRoute", road.namespace, "road")
    live = road.stage.pods.cluster.api.get(*route)
    assert live is not None
    return {one["name"]: one.get("weight", 1) for one in live["spec"]["rules"][0]["backendRefs"]}


def test_a_canary_that_is_wrong_once_it_has_half_of_the_requests_gets_none(
    canaries: Road, tmp_path: Path
) -> None:
    seen: set[int] = set()

    def look() -> bool:
        percent = weights(canaries).get("road-canary", 0)
        seen.add(percent)
        if percent == 50:
            (tmp_path / "now").touch()
        return percent == 50

    envs = [{"name": "WRONG_WHEN", "value": str(tmp_path / "now")}]
    with looking(look):
        told = canaries.refused("2", "canary_release", deploy_envs=envs)
    assert seen == {0, 10, 50}
    assert "The check 'compare_predictions at 50 %' did not pass: 4 served values differ" in told
    assert canaries.where == ("1", "1")
    assert weights(canaries) == {"road": 1}


def test_a_roll_back_that_is_killed_and_run_again_takes_both_back(canaries: Road) -> None:
    canaries.run("2", "canary_release", canary_steps=[50])
    assert canaries.where == ("2", "2")
    assert weights(canaries) == {"road": 1}

    def back() -> Run:
        return canaries.stage.run("roll_back_model", deploy_target="workload", **canaries.ends)

    canaries.stage.deaths["roll-back"] = "alias"
    assert "Step roll-back failed" in why_failed(back)
    assert canaries.where == ("1", "2")
    for _ in range(2):
        back()
        assert canaries.where == ("1", "1")


# -- move_to_production ----------------------------------------------------------------------------


def test_what_is_good_in_staging_goes_to_production_as_it_is_or_not_at_all(
    stage: Stage, road: Road, before: Any
) -> None:
    there = replace(road, namespace=stage.pods.namespace(), pointer="production")
    built = stage.runs[before[0]]

    def move(**more: Any) -> Run:
        given = {
            "model_uris": [f"models:/{road.model}/{before[0]}"],
            "golden_uri": str(built.output("build-bento", "golden")),
            "deploy_image": built.record("build-image")["reference"],
            "source_namespace": road.namespace,
            "deploy_target": "workload",
        }
        return stage.run("move_to_production", **{**given, **there.ends, **more})

    other = built.record("build-image")["repository"] + "@sha256:" + "0" * 64
    told = why_failed(lambda: move(deploy_image=other))
    assert "Step move-release failed: The good release of " in told
    assert there.where == ("", "")
    move()
    assert there.where == before
    told = why_failed(lambda: move(deploy_changes={"envs": WRONG}))
    assert "Step promote-model failed: The check 'compare_predictions' did not pass" in told
    assert there.where == road.where == before


# -- serve_with_yatai_builder ----------------------------------------------------------------------


def test_a_build_of_the_cluster_that_fails_leaves_both(
    cluster: LiveCluster,
    yatai: str,
    s3_server: S3Server,
    stage: Stage,
    road: Road,
    tmp_path: Path,
) -> None:
    built = replace(road, namespace=stage.pods.namespace(), pointer="built")
    stage.environment |= s3_server.environment

    def serve(version: str) -> Run:
        return stage.run(
            "serve_with_yatai_builder",
            model_uris=[f"models:/{road.model}/{version}"],
            archive_uri=f"s3://{s3_server.bucket}/bentos/",
            **built.ends,
        )

    cluster.pods.behave(built.namespace, completes(), labels=BUILDER_POD)
    builder = ServingBuilder(cluster.api, built.namespace, pods=stage.pods, folder=tmp_path)
    with running(YataiOperator(cluster.api, built.namespace)), running(builder):
        serve("1")
        assert built.where == ("1", "1")
        cluster.pods.behave(built.namespace, completes(exit_code=BUILD_FAILED), labels=BUILDER_POD)
        assert "is failed" in why_failed(lambda: serve("2"))
        assert built.where == ("1", "1")
