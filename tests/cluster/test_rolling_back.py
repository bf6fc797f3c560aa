"""Going back to the release before, on a real API server: twice, half-way, and to the right one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from live_cluster import LiveCluster
from pod_behaviour import crash_loop
from releases import roll_out
from sample_bentos import make_bento
from workload_releases import FIRST, SECOND, THIRD

from kfp_bento.runtime.deployments import TARGETS, Rollout, Waiting, release_status, roll_back
from kfp_bento.runtime.deployments.release import rollout
from kfp_bento.runtime.errors import DeploymentError


class Lost(Exception):
    """The process that worked on a release is gone."""


@pytest.fixture
def place(namespace: str, kubeconfig: Path) -> dict[str, str]:
    return {"target": "workload", "namespace": namespace}


def out(namespace: str, image: str, **options: Any) -> Rollout:
    release = TARGETS["workload"].render(image, make_bento(), {"namespace": namespace})
    return roll_out(release, **options)


def back(place: dict[str, str], **options: Any) -> Rollout:
    return roll_back("wine", waiting=Waiting(60), **place, **options)


def test_from_a_good_release_it_goes_to_the_one_before_and_no_further(
    cluster: LiveCluster, namespace: str, place: dict[str, str]
) -> None:
    revisions = [out(namespace, image).revision for image in (FIRST, SECOND, THIRD)]
    status = release_status("wine", **place)
    assert (status.last_good, status.previous_good) == (revisions[2], revisions[1])
    done = back(place)
    assert (done.rolled_back_to, done.image, done.verdict.ready) == (revisions[1], SECOND, True)
    status = release_status("wine", **place)
    assert (status.revision, status.rolled_back) == (revisions[1], revisions[2])
    again = back(place)
    assert (again.rolled_back_to, again.changed) == (revisions[1], False)


def test_after_the_next_release_it_can_go_back_again(
    cluster: LiveCluster, namespace: str, place: dict[str, str]
) -> None:
    first, _ = out(namespace, FIRST), out(namespace, SECOND)
    back(place)
    out(namespace, THIRD)
    status = release_status("wine", **place)
    assert (status.rolled_back, status.previous_good) == ("", first.revision)
    assert back(place).image == FIRST


def test_the_same_release_again_does_not_forget_the_one_before(
    cluster: LiveCluster, namespace: str, place: dict[str, str]
) -> None:
    first = out(namespace, FIRST)
    for _ in range(2):
        out(namespace, SECOND)
    assert release_status("wine", **place).previous_good == first.revision


def test_a_failed_release_leaves_the_one_before_on_record(
    cluster: LiveCluster, namespace: str, place: dict[str, str]
) -> None:
    first, second = out(namespace, FIRST), out(namespace, SECOND)
    cluster.pods.behave(namespace, crash_loop(), image="c3c3")
    failed = out(namespace, THIRD, roll_back_on_failure=True)
    assert failed.rolled_back_to == second.revision
    status = release_status("wine", **place)
    assert status.previous_good == first.revision
    # The step that rolls back comes after one that has done it by itself.
    assert not back(place).changed
    assert back(place, to=first.revision[:8]).image == FIRST


@pytest.mark.parametrize("lost_at", ["_apply_whole", "_settle"])
def test_a_roll_back_that_was_killed_goes_the_same_way_again(
    cluster: LiveCluster,
    namespace: str,
    place: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    lost_at: str,
) -> None:
    first, _ = out(namespace, FIRST), out(namespace, SECOND)

    def die(*_: Any, **__: Any) -> Any:
        raise Lost

    with monkeypatch.context() as patched:
        patched.setattr(rollout, lost_at, die)
        with pytest.raises(Lost):
            back(place)
    for _ in range(2):
        done = back(place)
        assert (done.rolled_back_to, done.image) == (first.revision, FIRST)
    assert release_status("wine", **place).image == FIRST


def test_an_image_that_is_not_applied_any_more_is_not_left(
    cluster: LiveCluster, namespace: str, place: dict[str, str]
) -> None:
    out(namespace, FIRST)
    out(namespace, SECOND)
    assert not back(place, leaving=THIRD).changed
    assert release_status("wine", **place).image == SECOND
    assert back(place, leaving=SECOND).image == FIRST


def test_a_newer_release_that_is_not_good_yet_is_not_left_for_another_s_sake(
    cluster: LiveCluster, namespace: str, place: dict[str, str]
) -> None:
    out(namespace, FIRST)
    cluster.pods.behave(namespace, crash_loop(), image="b2b2")
    out(namespace, SECOND)
    with pytest.raises(DeploymentError, match="is not the one to leave"):
        back(place, leaving=THIRD)
    assert back(place, leaving=SECOND).image == FIRST


def test_a_revision_that_is_not_on_record_is_told_with_those_that_are(
    cluster: LiveCluster, namespace: str, place: dict[str, str]
) -> None:
    revision = out(namespace, FIRST).revision
    with pytest.raises(DeploymentError, match="no good release feed on record") as refused:
        back(place, to="feed")
    assert revision in refused.value.hint


def test_an_only_release_stays(cluster: LiveCluster, namespace: str, place: dict[str, str]) -> None:
    revision = out(namespace, FIRST).revision
    done = back(place)
    assert (done.rolled_back_to, done.changed, done.verdict.ready) == (revision, False, True)
