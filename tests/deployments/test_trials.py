"""A release is on trial until it is confirmed; what is refused is left for the last good one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from stub_api_server import ApiServer, serve_api, write_kubeconfig
from trials import KINDS, Endpoint, image_of, played_waits

from kfp_bento.runtime.deployments import (
    Release,
    Settlement,
    Waiting,
    confirm_release,
    leave_release,
    moved_release,
    release_facts,
    release_status,
    unsettled_releases,
)
from kfp_bento.runtime.deployments.release.release_facts import ReleaseFacts
from kfp_bento.runtime.deployments.settling import (
    BROUGHT_BACK,
    CONFIRMED,
    KEPT,
    SUPERSEDED,
    TAKEN_AWAY,
)
from kfp_bento.runtime.errors import DeploymentError, InvalidInput, NotServed

PLACE = {"target": "workload"}


@pytest.fixture
def endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    with serve_api(ApiServer(kinds=KINDS)) as server:
        config = write_kubeconfig(tmp_path / "kubeconfig", server.url)
        monkeypatch.setenv("KUBECONFIG", str(config))
        found = Endpoint(server, tmp_path)
        with played_waits(found):
            yield found


def left(release: ReleaseFacts) -> Settlement:
    return leave_release(release, "The answers differ.", waiting=Waiting(60))


def test_what_serves_is_on_trial_and_nothing_to_go_back_to(endpoint: Endpoint) -> None:
    first = endpoint.good("1")
    endpoint.trial("2")
    status = release_status("wine", **PLACE)
    assert (status.on_trial, status.run, status.last_good) == (True, "run-1", first.revision)
    assert not status.to_dict()["previous_good"]


def test_a_confirmed_release_is_the_last_good_one(endpoint: Endpoint) -> None:
    first, second = endpoint.good("1"), endpoint.trial("2")
    for _ in range(2):
        assert confirm_release(second).outcome == CONFIRMED
    status = release_status("wine", **PLACE)
    assert (status.on_trial, status.last_good) == (False, second.revision)
    assert status.previous_good == first.revision
    assert {"trial", "run", "new"}.isdisjoint(endpoint.marks)


def test_a_release_that_is_being_deleted_is_not_kept(endpoint: Endpoint) -> None:
    trial = endpoint.trial("1")
    live = endpoint.api.objects["deployments/wine"]
    live["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    with pytest.raises(NotServed, match=r"is not kept as good \(Deleted\).*being deleted"):
        confirm_release(trial)
    assert "trial" in endpoint.marks


def test_an_autoscaler_at_work_keeps_no_release_from_being_kept(endpoint: Endpoint) -> None:
    trial = endpoint.trial("1")
    endpoint.api.objects["deployments/wine"]["spec"]["replicas"] = 5  # one of five pods is there
    assert confirm_release(trial).outcome == CONFIRMED


def test_what_an_earlier_revision_had_goes_when_the_new_one_is_good(endpoint: Endpoint) -> None:
    endpoint.good("1", autoscaling={"minReplicas": 1, "maxReplicas": 2})
    second = endpoint.trial("2")
    assert "horizontalpodautoscalers/wine" in endpoint.api.objects
    confirm_release(second)
    assert "horizontalpodautoscalers/wine" not in endpoint.api.objects


def test_a_refused_release_is_left_for_the_last_good_one(endpoint: Endpoint) -> None:
    endpoint.good("1")
    second = endpoint.trial("2")
    settled = left(second)
    assert (settled.outcome, endpoint.serves) == (BROUGHT_BACK, "1")
    assert "rolled back to revision" in settled.message
    # Whoever comes next changes nothing.
    assert (left(second).outcome, endpoint.serves) == (BROUGHT_BACK, "1")


def test_the_first_release_of_a_run_is_taken_away(endpoint: Endpoint) -> None:
    settled = left(endpoint.trial("1"))
    assert (settled.outcome, endpoint.serves) == (TAKEN_AWAY, "")
    assert endpoint.api.objects == {}


def test_a_refused_trial_after_an_unsettled_one_is_taken_away_too(endpoint: Endpoint) -> None:
    endpoint.trial("1")
    assert (left(endpoint.trial("2")).outcome, endpoint.serves) == (TAKEN_AWAY, "")


def test_what_somebody_deployed_by_hand_is_not_taken_away(endpoint: Endpoint) -> None:
    endpoint.trial("1", run="")
    settled = left(endpoint.trial("2"))
    assert (settled.outcome, endpoint.serves) == (KEPT, "2")
    assert "no good release is on record" in settled.message


def test_what_was_good_before_stays(endpoint: Endpoint) -> None:
    endpoint.good("1")
    settled = left(endpoint.trial("1"))
    assert (settled.outcome, endpoint.serves) == (KEPT, "1")
    assert "found good before" in settled.message


def test_another_release_that_came_in_between_stays(endpoint: Endpoint) -> None:
    endpoint.good("1")
    second, _ = endpoint.trial("2"), endpoint.trial("3")
    assert (left(second).outcome, endpoint.serves) == (SUPERSEDED, "3")
    with pytest.raises(DeploymentError, match="cannot be confirmed") as refused:
        confirm_release(second)
    assert "kfp-bento release status wine" in refused.value.hint


def test_a_first_release_that_does_not_serve_is_taken_away(endpoint: Endpoint) -> None:
    endpoint.broken = {"1"}
    deployed = endpoint.deploy("1")
    assert deployed.failed and endpoint.api.objects == {}
    assert "taken away again" in deployed.facts.failure
    with pytest.raises(DeploymentError) as failed:
        deployed.raise_if_failed()
    assert "nothing serves" in failed.value.hint


def test_a_first_release_that_does_not_serve_stays_where_that_is_wanted(
    endpoint: Endpoint,
) -> None:
    endpoint.broken = {"1"}
    endpoint.deploy("1", back=False)
    assert endpoint.serves == "1"


def test_a_release_that_does_not_serve_goes_back_by_itself(endpoint: Endpoint) -> None:
    endpoint.good("1")
    endpoint.broken = {"2"}
    release = endpoint.trial("2")
    assert endpoint.serves == "1"
    assert "rolled back to revision" in release.failure
    assert (left(release).outcome, endpoint.serves) == (BROUGHT_BACK, "1")


def test_a_trial_that_somebody_else_wrote_is_not_confirmed(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KFP_BENTO_RECORD_KEY", "k" * 40)
    second = endpoint.trial("2")
    holder = endpoint.api.objects["deployments/wine"]["metadata"]["annotations"]
    holder["kfp-bento/trial"] = holder["kfp-bento/trial"].partition(".")[0]
    with pytest.raises(DeploymentError, match="has no seal"):
        confirm_release(second)


def test_only_what_a_run_has_left_is_its_own(endpoint: Endpoint) -> None:
    endpoint.good("1")
    second = endpoint.trial("2", run="mine")
    ((found, on_trial),) = unsettled_releases("mine", **PLACE)
    assert (found.revision, on_trial) == (second.revision, True)
    assert unsettled_releases("other", **PLACE) == ()
    confirm_release(second)
    assert unsettled_releases("mine", **PLACE) == ()


def test_a_record_of_a_release_is_believed_if_its_step_wrote_it(tmp_path: Path) -> None:
    facts = ReleaseFacts("workload", "applied", "wine", "models", "ab" * 8, url="http://x:1")
    record = facts.save(tmp_path / "release")
    assert ReleaseFacts.load(tmp_path / "release", record=record) == facts
    (tmp_path / "release").write_text((tmp_path / "release").read_text().replace("wine", "beer"))
    with pytest.raises(DeploymentError, match="somebody changed it"):
        ReleaseFacts.load(tmp_path / "release", record=record)


def moved(image: str = image_of("1"), **given: str) -> Release:
    place = {"target": "workload", "source": "default", "namespace": "production", **given}
    return moved_release("wine", image=image, **place)


def test_the_good_release_of_a_namespace_is_rendered_for_another(endpoint: Endpoint) -> None:
    endpoint.good("1", resources={"limits": {"cpu": "1"}})
    endpoint.trial("2")
    release = moved()
    assert (release.image, release.namespace, release.name) == (image_of("1"), "production", "wine")
    assert release.options["resources"] == {"limits": {"cpu": "1"}}


def test_what_is_not_meant_or_not_good_does_not_move(endpoint: Endpoint) -> None:
    with pytest.raises(InvalidInput, match="already"):
        moved(namespace="default")
    endpoint.trial("1")
    with pytest.raises(DeploymentError, match="no good release on record"):
        moved()
    endpoint.good("1")
    with pytest.raises(DeploymentError, match="has image") as refused:
        moved(image_of("2"))
    assert "kfp-bento release status wine -n default" in refused.value.hint


def test_a_release_is_settled_on_the_cluster_that_it_was_found_on(
    endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert endpoint.api is not None
    endpoint.good("1")
    endpoint.trial("2")
    with serve_api(ApiServer(kinds=KINDS)) as elsewhere:
        config = yaml.safe_load((tmp_path / "kubeconfig").read_text())
        config["clusters"].append({"name": "other", "cluster": {"server": elsewhere.url}})
        config["contexts"].append({"name": "other", "context": {"cluster": "other", "user": "me"}})
        # Meanwhile somebody has chosen another cluster as the current one.
        config["current-context"] = "other"
        (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
        found = release_facts("wine", **PLACE, context="stub")
        assert ReleaseFacts.from_dict(found.to_dict()) == found
        assert left(found).outcome == BROUGHT_BACK
        assert endpoint.serves == "1"
        again = release_facts("wine", **PLACE, context="stub")
        assert confirm_release(again).outcome == CONFIRMED
        assert elsewhere.patches == []
