"""Trials on a real API server: who owns which mark, and what is left when a run dies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from live_cluster import LiveCluster
from played_targets import controllers_of
from pod_behaviour import crash_loop
from pods_witness import pods_of_other_images
from releases import roll_out
from sample_bentos import make_bento
from workload_releases import FIRST, SECOND, THIRD

from kfp_bento.runtime.deployments import (
    TARGETS,
    ReleaseFacts,
    Waiting,
    confirm_release,
    deploy,
    end_promotion,
    leave_release,
    moved_release,
    promotion_under_way,
    release_facts,
    release_status,
    served_release,
    unsettled_releases,
)
from kfp_bento.runtime.deployments.release import rollout
from kfp_bento.runtime.errors import NotServed

KINDS = ["workload", "bento-deployment"]


@pytest.fixture(params=KINDS)
def place(
    request: pytest.FixtureRequest, cluster: LiveCluster, namespace: str, kubeconfig: Path
) -> Iterator[dict[str, str]]:
    if request.param == "bento-deployment":
        request.getfixturevalue("yatai")
    with controllers_of(request.param, cluster.api, namespace):
        yield {"target": request.param, "namespace": namespace}


def trial(place: dict[str, str], image: str, *, run: str = "run-1", **options: Any) -> ReleaseFacts:
    version = {FIRST: "v1", SECOND: "v2", THIRD: "v3"}[image]
    given = {"namespace": place["namespace"]}
    release = TARGETS[place["target"]].render(image, make_bento("wine", version), given)
    roll_out(release, confirm=False, run=run, **options)
    return release_facts("wine", **place)


def test_a_trial_is_confirmed_and_the_next_is_left_for_it(place: dict[str, str]) -> None:
    first = trial(place, FIRST)
    assert release_status("wine", **place).on_trial
    confirm_release(first)
    second = trial(place, SECOND, run="run-2")
    status = release_status("wine", **place)
    assert (status.on_trial, status.run, status.last_good) == (True, "run-2", first.revision)
    ((found, mine),) = unsettled_releases("run-2", **place)
    assert (found.revision, mine) == (second.revision, True)
    settled = leave_release(second, "The answers differ.", waiting=Waiting(60))
    assert settled.outcome == "brought back"
    assert release_status("wine", **place).image == FIRST


def test_what_somebody_has_put_in_its_place_is_not_called_good(
    place: dict[str, str], cluster: LiveCluster
) -> None:
    release = trial(place, FIRST)
    assert [one.runs for one in served_release(release).pods] == [FIRST]
    deployment = ("apps/v1", "Deployment", place["namespace"], "wine")
    if place["target"] == "workload":
        (container,) = cluster.api.get(*deployment)["spec"]["template"]["spec"]["containers"]
        pods = {"spec": {"containers": [{**container, "image": SECOND}]}}
        cluster.api.merge(*deployment, {"spec": {"template": pods}})
    else:
        kind = ("resources.yatai.ai/v1alpha1", "Bento", place["namespace"])
        (bento,) = cluster.api.list(*kind)
        cluster.api.merge(*kind, bento["metadata"]["name"], {"spec": {"image": SECOND}})
    with pytest.raises(NotServed, match=r"WrongImage.*sha256:b2") as refused:
        confirm_release(release)
    assert "release status" in refused.value.hint
    assert release_status("wine", **place).on_trial


def test_the_witness_sees_pods_of_another_image(
    cluster: LiveCluster, namespace: str, kubeconfig: Path
) -> None:
    place = {"target": "workload", "namespace": namespace}
    trial(place, FIRST)
    made = TARGETS["workload"].render(SECOND, make_bento("wine", "v1"), {"namespace": namespace})
    (told,) = pods_of_other_images(cluster.api, made.watched)
    assert told.endswith(f"runs {FIRST}, not {SECOND}")


def test_trials_of_runs_after_one_another_leave_nothing(place: dict[str, str]) -> None:
    for image, run in ((FIRST, "run-1"), (SECOND, "run-2"), (SECOND, "run-2")):
        last = trial(place, image, run=run)
    assert release_status("wine", **place).run == "run-2"
    assert leave_release(last, "The answers differ.").outcome == "taken away"
    assert not release_status("wine", **place).exists


@pytest.mark.parametrize("before", [False, True], ids=["first", "another on trial"])
def test_a_run_that_dies_before_it_has_recorded_anything_is_found_and_settled(
    place: dict[str, str], monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    class Lost(Exception):
        pass

    def die(*_: Any, **__: Any) -> None:
        raise Lost

    if before:
        trial(place, FIRST)
    with monkeypatch.context() as patched, pytest.raises(Lost):
        patched.setattr(rollout, "mark_trial", die)
        trial(place, SECOND, run="run-2")
    ((found, mine),) = unsettled_releases("run-2", **place)
    assert mine
    assert leave_release(found, "The run has ended.").outcome == "taken away"


def under_way(release: ReleaseFacts) -> tuple[str, bool] | None:
    found = promotion_under_way(release)
    return (found.note, found.serves) if found else None


def test_the_note_of_a_promotion_outlasts_the_next_apply(place: dict[str, str]) -> None:
    first = trial(place, FIRST)
    confirm_release(first, promotion='["prod"]')
    trial(place, SECOND)
    assert under_way(first) == ('["prod"]', False)
    leave_release(release_facts("wine", **place), "refused", waiting=Waiting(60))
    assert under_way(first) == ('["prod"]', True)
    end_promotion(first, '["prod"]')
    assert under_way(first) is None


def test_a_first_release_that_crashes_is_taken_away_with_all_it_brought(
    cluster: LiveCluster, namespace: str, kubeconfig: Path
) -> None:
    cluster.pods.behave(namespace, crash_loop())
    release = TARGETS["workload"].render(FIRST, make_bento(), {"namespace": namespace})
    done = roll_out(release, confirm=False, run="run-1", roll_back_on_failure=True)
    assert done.verdict.reason == "CrashLoopBackOff"
    assert {ref.kind for ref in done.taken_away} == {"Deployment", "Service"}
    assert not release_status("wine", target="workload", namespace=namespace).exists


def test_what_is_good_in_one_namespace_goes_to_another(
    cluster: LiveCluster, namespace: str, kubeconfig: Path, tmp_path: Path
) -> None:
    place = {"target": "workload", "namespace": namespace}
    production = cluster.namespace()
    try:
        confirm_release(trial(place, FIRST))
        release = moved_release(
            "wine",
            target="workload",
            source=namespace,
            namespace=production,
            image=FIRST,
            changes={"resources": {"limits": {"memory": "2Gi"}}},
        )
        done = deploy(release, tmp_path, mode="apply", waiting=Waiting(60), run="run-1")
        assert not done.failed
        there = {"target": "workload", "namespace": production}
        status = release_status("wine", **there)
        assert (status.image, status.on_trial) == (FIRST, True)
        live = cluster.api.get("apps/v1", "Deployment", production, "wine")
        assert live is not None
        (container,) = live["spec"]["template"]["spec"]["containers"]
        assert container["resources"]["limits"]["memory"] == "2Gi"
        assert leave_release(done.facts, "refused").outcome == "taken away"
        assert release_status("wine", **place).image == FIRST
    finally:
        cluster.discard(production)
