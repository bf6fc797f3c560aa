"""Releases by controllers of Yatai, played as they were seen at work: which image, and whose."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from image_builder import BENTO, BUILDER_POD, GENERATIONS, JOB, POD, ImageBuilder
from live_cluster import LiveCluster
from looking import looking
from played_controller import running
from pod_behaviour import becomes_ready, completes, crash_loop
from releases import roll_out
from sample_bentos import make_bento, make_model
from workload_releases import FIRST, SECOND
from yatai_operator import YataiOperator

from kfp_bento.runtime.deployments import (
    TARGETS,
    Release,
    ReleaseStatus,
    Rollout,
    delete_release,
    diff_release,
    release_status,
    roll_back,
)
from kfp_bento.runtime.deployments.kube.cluster import connect
from kfp_bento.runtime.deployments.release.apply import completed
from kfp_bento.runtime.deployments.release.verdict import Waiting
from kfp_bento.runtime.errors import DeploymentError

DEPLOYMENT = ("apps/v1", "Deployment")
SERVING = YataiOperator.kind
REQUEST = ImageBuilder.kind
REPOSITORY = "registry.example.com/team/wine"
ARCHIVE = "https://store.example.com/wine.tar.gz"
each_builder = pytest.mark.parametrize("version", GENERATIONS)


class Yatai:
    """One namespace with both controllers at work."""

    def __init__(
        self,
        cluster: LiveCluster,
        namespace: str,
        operator: YataiOperator,
        builder: ImageBuilder,
    ) -> None:
        self.cluster, self.api, self.namespace = cluster, cluster.api, namespace
        self.operator, self.builder = operator, builder

    def served(self, image: str = FIRST, version: str = "v1", **options: Any) -> Release:
        given = {"namespace": self.namespace, **options}
        return TARGETS["bento-deployment"].render(image, make_bento("wine", version), given)

    def built(
        self, tag: str = "y1", version: str = "v1", bento: Any = None, **options: Any
    ) -> Release:
        given = {"namespace": self.namespace, "archive_url": ARCHIVE, **options}
        image = f"{REPOSITORY}:{tag}"
        return TARGETS["bento-request"].render(image, bento or make_bento("wine", version), given)

    def status(self, name: str = "wine") -> ReleaseStatus:
        return release_status(name, target="bento-deployment", namespace=self.namespace)

    def live(self, place: tuple[str, str], name: str) -> dict[str, Any]:
        return self.api.get(*place, self.namespace, name) or {}

    def bento_image(self, name: str = "wine--v1") -> str:
        return str(self.live(BENTO, name).get("spec", {}).get("image", ""))

    def pod_image(self, name: str = "wine") -> str:
        pod = self.live(DEPLOYMENT, name)["spec"]["template"]["spec"]
        return str(pod["containers"][0]["image"])

    def until(self, what: str, look: Any, seconds: float = 30) -> None:
        self.cluster.until(what, look, seconds)

    def warn(self, message: str, uid: str, moment: str) -> None:
        """Writes a warning about the BentoDeployment `wine`, or one that had its name."""
        about = {"apiVersion": SERVING[0], "kind": SERVING[1], "namespace": self.namespace}
        event = {
            "metadata": {"generateName": "wine.", "namespace": self.namespace},
            "involvedObject": {**about, "name": "wine", "uid": uid},
            "type": "Warning",
            "reason": "ReconcileError",
            "message": message,
            "lastTimestamp": moment,
        }
        self.api.request("POST", self.api.path("v1", "Event", self.namespace), event)

    def builds(self, behaviour: Any) -> None:
        self.cluster.pods.behave(self.namespace, behaviour, labels=BUILDER_POD)

    def builders(self) -> set[str]:
        return {
            one["metadata"]["uid"]
            for one in self.api.list(*JOB, self.namespace)
            + self.api.list(*POD, self.namespace, next(f"{a}={b}" for a, b in BUILDER_POD.items()))
        }


@pytest.fixture
def its(yatai: str, cluster: LiveCluster, namespace: str, kubeconfig: Path) -> Iterator[Yatai]:
    with (
        running(YataiOperator(cluster.api, namespace)) as operator,
        running(ImageBuilder(cluster.api, namespace)) as builder,
    ):
        yield Yatai(cluster, namespace, operator, builder)


@pytest.fixture
def quick(yatai: str, cluster: LiveCluster, namespace: str, kubeconfig: Path) -> Iterator[Yatai]:
    """The same with controllers that hear of everything at once, as the real ones do."""
    with (
        running(YataiOperator(cluster.api, namespace), pause=0.005) as operator,
        running(ImageBuilder(cluster.api, namespace), pause=0.005) as builder,
    ):
        yield Yatai(cluster, namespace, operator, builder)


def out(release: Release, **options: Any) -> Rollout:
    """As `deploy` does it: completed for this apply first."""
    with connect() as cluster:
        release = completed(cluster, release)
    return roll_out(release, **options)


# -- which image it is -------------------------------------------------------------------------


@each_builder
def test_another_image_of_a_bento_is_built_and_then_served(its: Yatai, version: str) -> None:
    its.builder.version = version
    assert out(its.built("y1")).verdict.ready
    changed = out(its.built("z1"))
    assert changed.verdict.ready, changed.verdict
    assert its.bento_image() == its.pod_image() == f"{REPOSITORY}:z1"
    assert its.status().ready


@pytest.mark.parametrize("version", ["1.2.28", "3.0.42"])
def test_what_was_available_before_the_builder_came_is_not_believed(
    its: Yatai, version: str
) -> None:
    its.builder.version = version
    out(its.built("y1"))
    its.builder.asleep = True
    changed = out(its.built("z1"), seconds=6, unwatched=60)
    assert changed.verdict.reason == "DeadlineExceeded", changed.verdict
    status = its.status()
    assert not status.ready, status
    assert its.live(DEPLOYMENT, "wine"), "what ran before runs on"
    its.builder.asleep = False
    assert out(its.built("z1")).verdict.ready


def test_the_bento_before_is_gone_before_another_image_is_asked_for(its: Yatai) -> None:
    """The operator would roll it out again as the new release, while that is being built."""
    out(its.built("y1"))
    its.builder.asleep = True
    old, rolled_out = its.live(REQUEST, "wine--v1"), its.live(DEPLOYMENT, "wine")
    with ThreadPoolExecutor(1) as pool:
        with its.cluster.plane.controllers_away():  # the garbage collector among them
            changed = pool.submit(out, its.built("z1"), seconds=6, unwatched=60)
            its.until("the request goes", lambda: its.live(REQUEST, "wine--v1") != old)
            time.sleep(3)
        verdict = changed.result().verdict
    assert verdict.reason == "DeadlineExceeded", verdict
    assert its.live(DEPLOYMENT, "wine")["spec"]["template"] == rolled_out["spec"]["template"]


def test_a_request_that_somebody_else_has_changed_is_not_what_serves(its: Yatai) -> None:
    """The newest builder never looks at it again, and its condition stays as it was."""
    its.builder.version = "3.0.42"
    out(its.built("y1"))
    other = {"spec": {"image": f"{REPOSITORY}:z1"}}
    its.api.merge(*REQUEST, its.namespace, "wine--v1", other)
    status = its.status()
    assert not status.ready
    assert f"at image {REPOSITORY}:y1 and not at {REPOSITORY}:z1" in status.message


def test_an_image_that_somebody_else_wrote_into_the_bento_is_not_what_was_applied(
    its: Yatai,
) -> None:
    out(its.served())
    its.api.merge(*BENTO, its.namespace, "wine--v1", {"spec": {"image": SECOND}})
    its.until("its pods", lambda: its.pod_image() == SECOND)
    its.until("nothing but that is wrong", lambda: "by now, while" in its.status().message)
    assert not its.status().ready


def test_an_image_that_somebody_else_gave_a_workload_is_not_what_was_applied(
    cluster: LiveCluster, namespace: str, kubeconfig: Path
) -> None:
    made = TARGETS["workload"].render(FIRST, make_bento("wine", "v1"), {"namespace": namespace})
    assert roll_out(made).verdict.ready
    live = cluster.api.get(*DEPLOYMENT, namespace, "wine") or {}
    container = {**live["spec"]["template"]["spec"]["containers"][0], "image": SECOND}
    template = {"spec": {"containers": [container]}}
    cluster.api.merge(*DEPLOYMENT, namespace, "wine", {"spec": {"template": template}})
    cluster.until(
        "nothing but that is wrong",
        lambda: (
            "by now, while"
            in release_status("wine", target="workload", namespace=namespace).message
        ),
    )


def test_a_bento_that_is_gone_is_missed_and_comes_back_with_the_next_apply(its: Yatai) -> None:
    """The newest builder does not write it again."""
    its.builder.version = "3.0.42"
    out(its.built("y1"))
    its.api.delete(*BENTO, its.namespace, "wine--v1")
    its.until("nobody has it", lambda: not its.bento_image())
    assert not its.status().ready
    assert out(its.built("y1")).verdict.ready
    assert its.bento_image() == f"{REPOSITORY}:y1"


# -- from one way to the other ------------------------------------------------------------------


@each_builder
def test_a_bento_that_the_builder_has_taken_over_stays(its: Yatai, version: str) -> None:
    its.builder.version = version
    its.builder.exists = True
    out(its.served())
    shown = diff_release(its.built("y1"))
    assert "removed" not in {one.change for one in shown.objects}
    switched = out(its.built("y1"))
    assert switched.verdict.ready, switched.verdict
    assert switched.removed == ()
    assert its.bento_image() == its.pod_image() == f"{REPOSITORY}:y1"
    assert its.status().ready


def test_what_a_builder_writes_is_taken_from_it_only_with_force(its: Yatai) -> None:
    its.builder.exists = True
    out(its.built("y1"))
    with pytest.raises(DeploymentError, match="is written by the controller of BentoRequest"):
        out(its.served())
    taken = out(its.served(), force=True)
    assert taken.verdict.ready, taken.verdict
    assert not its.live(REQUEST, "wine--v1")
    its.builder.restart()
    time.sleep(1)
    assert its.bento_image() == its.pod_image() == FIRST
    assert its.status().ready
    assert "ownerReferences" not in its.live(BENTO, "wine--v1")["metadata"]


def test_going_back_takes_the_bento_from_the_builder_again(its: Yatai) -> None:
    its.builder.exists = True
    good = out(its.served())
    its.cluster.pods.behave(its.namespace, crash_loop(), image=REPOSITORY)
    failed = out(its.built("y1"), roll_back_on_failure=True)
    assert failed.verdict.reason == "CrashLoopBackOff", failed.verdict
    assert failed.rolled_back_to == good.revision
    assert failed.restored is not None and failed.restored.ready, failed.restored
    assert its.bento_image() == its.pod_image() == FIRST
    assert not its.live(REQUEST, "wine--v1")


def test_what_another_s_controller_makes_is_not_applied_over(
    its: Yatai, cluster: LiveCluster
) -> None:
    """The Deployment of that name is the operator's, which writes it whole."""
    out(its.served())
    given = {"namespace": its.namespace}
    plain = TARGETS["workload"].render(FIRST, make_bento("wine", "v1"), given)
    with pytest.raises(DeploymentError, match="is made by a controller"):
        roll_out(plain, force=True)


# -- two releases of one bento ------------------------------------------------------------------


@pytest.mark.parametrize("way", ["served", "built"])
def test_two_releases_of_one_bento_do_not_touch_each_other(its: Yatai, way: str) -> None:
    made = getattr(its, way)
    first = made(name="first")
    assert out(first).verdict.ready
    before = its.live(BENTO, "wine--v1")["metadata"]["uid"]
    assert out(made(name="second")).verdict.ready
    assert not out(first).changed
    assert its.status("first").ready and its.status("second").ready

    upgraded = out(made(name="first", version="v2"))
    assert upgraded.verdict.ready, upgraded.verdict
    assert its.live(BENTO, "wine--v1")["metadata"]["uid"] == before
    assert its.status("second").ready

    # Nobody but the second uses it by now, and it goes with it.
    gone = delete_release("second", target=first.target.kind, namespace=its.namespace)
    assert "wine--v1" in {ref.name for ref in gone.removed}
    its.until("no Bento", lambda: not its.live(BENTO, "wine--v1"))
    assert its.status("first").ready


def test_deleting_one_of_two_releases_leaves_what_the_other_uses(its: Yatai) -> None:
    out(its.served(name="first"))
    out(its.served(name="second"))
    delete_release("first", target="bento-deployment", namespace=its.namespace)
    assert its.bento_image() == FIRST
    assert its.status("second").ready
    assert out(its.served(name="second", version="v2")).verdict.ready
    its.until("the last user has left it", lambda: not its.live(BENTO, "wine--v1"))


def test_another_image_of_a_bento_that_another_release_serves_is_refused(its: Yatai) -> None:
    out(its.served(name="first"))
    with pytest.raises(DeploymentError, match=r"is what BentoDeployment .*/first serves too"):
        out(its.served(SECOND, name="second"), force=True)
    with pytest.raises(DeploymentError, match=r"is what BentoDeployment .*/first serves too"):
        out(its.built("y1", name="second"), force=True)
    assert its.status("first").ready
    assert not its.live(SERVING, "second")


# -- paused, blocked, repaired ------------------------------------------------------------------


def test_a_pause_that_the_operator_takes_away_is_no_failure(its: Yatai) -> None:
    out(its.served())
    its.api.merge(*DEPLOYMENT, its.namespace, "wine", {"spec": {"paused": True}})
    assert out(its.served(SECOND, "v2")).verdict.ready


def test_a_release_behind_one_without_a_suffix_is_told_what_it_waits_for(its: Yatai) -> None:
    its.operator.suffix = ""
    assert out(its.served(name="first")).verdict.reason == "DomainSuffix"
    behind = out(its.served(name="second", version="v2"), unwatched=3)
    assert behind.verdict.reason == "DomainSuffix", behind.verdict
    assert "/first keeps the controller" in behind.verdict.message


def test_the_same_again_heals_an_error_whose_cause_was_repaired(its: Yatai) -> None:
    out(its.served())
    its.operator.failure = "exceeded quota: count/deployments.apps"
    failed = out(its.served(SECOND, "v2"))
    assert failed.verdict.reason == "OperatorError", failed.verdict
    its.operator.failure = ""
    healed = out(its.served(SECOND, "v2"))
    assert healed.verdict.ready, healed.verdict
    assert {one.change for one in healed.applied} == {"unchanged"}
    pods = its.cluster.pods_of(its.namespace, "yatai.ai/bento-version=v2")
    assert len(pods) == 1, "no pod was started anew"


def test_a_first_release_heals_when_its_quota_was_raised(its: Yatai) -> None:
    """The API server itself refuses the operator's Deployment."""
    place = {"name": "none", "namespace": its.namespace}
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": place}
    its.api.apply({**quota, "spec": {"hard": {"count/deployments.apps": "0"}}})
    counted = ("v1", "ResourceQuota")
    its.until("the quota", lambda: its.live(counted, "none").get("status", {}).get("hard"))
    failed = out(its.served())
    assert failed.verdict.reason == "OperatorError", failed.verdict
    assert "exceeded quota" in failed.verdict.message
    its.api.delete(*counted, its.namespace, "none")
    assert out(its.served()).verdict.ready


@each_builder
def test_a_failed_build_is_tried_again_when_the_same_is_applied_again(
    its: Yatai, version: str
) -> None:
    its.builder.version = version
    its.builds(completes(0.2, exit_code=42))
    failed = out(its.built())
    assert failed.verdict.reason == "BuildFailed", failed.verdict
    its.builds(completes(0.2))
    healed = out(its.built())
    assert healed.verdict.ready, healed.verdict
    assert healed.revision == failed.revision
    assert not out(its.built()).changed


def test_evidence_is_of_this_object_and_since_this_change(its: Yatai) -> None:
    its.operator.failure = "of the first"
    assert any("of the first" in one for one in out(its.served()).verdict.evidence)
    uid = its.live(SERVING, "wine")["metadata"]["uid"]
    its.warn("of another object", "another-uid", "2100-01-01T00:00:00Z")
    its.warn("of long ago", uid, "2020-01-01T00:00:00Z")
    its.warn("of this time", uid, "2100-01-01T00:00:00Z")
    its.operator.failure = "of the second"  # of which no event may arrive
    told = "\n".join(out(its.served(SECOND, "v2"), unwatched=3).verdict.evidence)
    assert "of this time" in told
    others = ("of another object", "of long ago", "of the first")
    assert [one for one in others if one in told] == []


# -- what wakes a builder -----------------------------------------------------------------------


@pytest.mark.parametrize("version", ["1.2.28", "3.0.42"])
@pytest.mark.parametrize(
    "changed",
    [
        {"envs": {"A": "1"}},
        {"labels": {"team": "wine"}, "annotations": {"example.com/ticket": "17"}},
        # The same model, registered anew.
        {"bento": make_bento("wine", "v1", models=(make_model(version="8", run_id="0" * 32),))},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_a_change_of_what_serves_does_not_begin_a_running_build_anew(
    its: Yatai, version: str, changed: dict[str, Any]
) -> None:
    its.builder.version = version
    its.builds(becomes_ready())  # it goes on for ever
    out(its.built(), seconds=5)
    before = its.builders()
    assert before
    assert out(its.built(**changed), seconds=3).changed
    its.builder.restart()  # as an event of the Job would
    time.sleep(2)
    assert its.builders() == before


@each_builder
def test_a_deletion_makes_no_builder_work(quick: Yatai, version: str) -> None:
    quick.builder.version = version
    quick.builds(becomes_ready())
    out(quick.built(), seconds=5)
    before, seen = quick.builders(), set[str]()
    with looking(lambda: seen.update(quick.builders()) or False):
        delete_release("wine", target="bento-request", namespace=quick.namespace)
        quick.until("the garbage collector is done", lambda: not quick.builders())
        time.sleep(1)
    assert seen <= before
    assert not quick.live(REQUEST, "wine--v1")


def test_a_request_that_an_upgrade_has_left_goes_with_its_bento(its: Yatai) -> None:
    out(its.built("y1"))
    upgraded = out(its.built("y2", "v2"))
    assert upgraded.verdict.ready, upgraded.verdict
    assert [ref.name for ref in upgraded.removed] == ["wine--v1"]
    its.until("its Bento went too", lambda: not its.live(BENTO, "wine--v1"))
    back = roll_back("wine", target="bento-request", namespace=its.namespace, waiting=Waiting(60))
    assert back.verdict.ready, back.verdict
    assert its.pod_image() == f"{REPOSITORY}:y1"
