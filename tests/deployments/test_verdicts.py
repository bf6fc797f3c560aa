"""Verdicts over recorded states of objects; a real API server shows them in tests/cluster/."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
from sample_bentos import make_bento
from staged_objects import (
    OTHER,
    OURS,
    bento,
    bento_deployment,
    bento_request,
    condition,
    deployment,
    inference_service,
    pod,
    waiting,
    workload,
    yatai,
)

from kfp_bento.runtime.deployments import Verdict, Waiting, target_of
from kfp_bento.runtime.deployments.kube.objects import ObjectRef
from kfp_bento.runtime.deployments.release.verdict import ReadinessJudge
from kfp_bento.runtime.deployments.targets.readiness import (
    Snapshot,
    Watched,
    WatchedDeployment,
)


def watched_like(target: str, **options: Any) -> Watched:
    chosen = target_of(target)
    bento = make_bento("wine", "v1")
    release = chosen.render(OURS, bento, {"namespace": "serving", **options})
    return chosen.watched(release.manifests)


PLAIN = Watched(
    ObjectRef("apps/v1", "Deployment", "serving", "wine"),
    revision="r1",
    deployments=(WatchedDeployment("wine", image=OURS, container="main"),),
    pods="app=wine",
)
V1 = (("yatai.ai/bento-version", "v1"),)
NEW = {"yatai.ai/bento-version": "v1"}
OLD = {"yatai.ai/bento-version": "v0"}
# What the targets say of their own manifests, with the parts that these tests set themselves.
YATAI = replace(
    watched_like("bento-deployment"),
    revision="r1",
    deployments=(WatchedDeployment("wine", image=OURS, container="main", labels=V1),),
)
REQUEST = target_of("bento-request").render(
    "", make_bento("wine", "v1"), {"namespace": "serving", "archive_url": "s3://b/wine.bento"}
)
BUILT = replace(REQUEST.watched, revision="r1", deployments=YATAI.deployments)
KSERVE = replace(
    watched_like("inference-service"),
    deployments=(WatchedDeployment("wine-predictor", image=OURS, container="main"),),
)
KNATIVE = replace(
    watched_like("inference-service", deployment_mode="Knative", autoscaling={"minReplicas": 0}),
    deployments=(
        WatchedDeployment("", image=OURS, container="main", minimum=0, component="predictor"),
    ),
)
BOTH = (condition("PredictorReady", "True"), condition("Ready", "True"))
AVAILABLE = condition("Available", "True")


def verdict_after(
    watched: Watched, *looks: tuple[float, Snapshot], **options: Any
) -> tuple[Verdict | None, str]:
    """The first verdict over looks at given moments, else what was waited for."""
    judge = ReadinessJudge(watched, Waiting(**options))
    for now, snapshot in looks:
        if verdict := judge.look(snapshot, now):
            return verdict, verdict.message
    return None, judge.waiting_for


def lasting(snapshot: Snapshot, seconds: float) -> tuple[tuple[float, Snapshot], ...]:
    return ((0.0, snapshot), (seconds, snapshot))


# -- what is ready ---------------------------------------------------------------------------


def test_what_stays_available_is_ready() -> None:
    verdict, _ = verdict_after(PLAIN, *lasting(workload(), 2))
    assert verdict == Verdict(True, "Ready", "Deployment serving/wine serves: wine 1/1.")


def test_what_is_available_for_a_moment_is_not_ready_yet() -> None:
    assert verdict_after(PLAIN, *lasting(workload(), 1.9))[0] is None


def test_an_interruption_starts_the_steady_time_anew() -> None:
    down = workload(deployment(available=0))
    looks = ((0.0, workload()), (1.0, down), (2.0, workload()), (3.9, workload()))
    assert verdict_after(PLAIN, *looks)[0] is None
    verdict, _ = verdict_after(PLAIN, *looks, (4.0, workload()))
    assert verdict is not None and verdict.ready


def test_the_same_digest_from_a_mirror_is_our_image() -> None:
    mirror = OURS.replace("registry.example.com", "mirror.internal:5000")
    verdict, _ = verdict_after(PLAIN, *lasting(workload(deployment(image=mirror)), 2))
    assert verdict is not None and verdict.ready


def test_all_replicas_of_the_new_revision_are_wanted() -> None:
    for counts in ({"updated": 1}, {"available": 1}, {"total": 3}):
        part = workload(deployment(replicas=2, **counts))
        verdict, told = verdict_after(PLAIN, *lasting(part, 100))
        assert verdict is None
        assert "of 2 replicas available" in told


# -- what is not ready yet -------------------------------------------------------------------


NOT_YET = {
    "slow start": (workload(deployment(available=0), pod()), "0 of 1 replicas"),
    "old revision still ready": (workload(deployment(updated=0)), "0 of the new revision"),
    "generation not observed": (workload(deployment(observed=2)), "not observed"),
}


@pytest.mark.parametrize(("snapshot", "told"), NOT_YET.values(), ids=NOT_YET)
def test_what_may_still_come_is_waited_for(snapshot: Snapshot, told: str) -> None:
    verdict, message = verdict_after(PLAIN, *lasting(snapshot, 500))
    assert verdict is None
    assert told in message


def test_the_deadline_says_what_was_missing() -> None:
    judge = ReadinessJudge(PLAIN, Waiting(60))
    judge.look(workload(deployment(available=0)), 0)
    verdict = judge.give_up()
    assert (verdict.ready, verdict.reason) == (False, "DeadlineExceeded")
    assert "Not ready after 60 s" in verdict.message and "0 of 1 replicas" in verdict.message


# -- what will not become ready --------------------------------------------------------------


CRASHED = {"exitCode": 1, "reason": "Error"}
KILLED = {"exitCode": 137, "reason": "OOMKilled"}
DOWN = deployment(available=0)


def refused(message: str) -> dict[str, Any]:
    return deployment(
        total=0,
        available=0,
        updated=0,
        conditions=[condition("ReplicaFailure", "True", "FailedCreate", message)],
    )


FAILS = {
    "image missing": (
        workload(DOWN, pod(waiting("ErrImagePull", "manifest unknown"))),
        0,
        "ErrImagePull",
        "manifest unknown",
    ),
    "image missing for longer": (
        workload(DOWN, pod(waiting("ImagePullBackOff"))),
        0,
        "ImagePullBackOff",
        OURS,
    ),
    "image name": (workload(DOWN, pod(waiting("InvalidImageName"))), 0, "InvalidImageName", "main"),
    "crash": (
        workload(DOWN, pod(waiting("CrashLoopBackOff"), restarts=2, ended=CRASHED)),
        0,
        "CrashLoopBackOff",
        "exit code 1 (Error), 2 restarts",
    ),
    "configuration": (
        workload(DOWN, pod(waiting("CreateContainerConfigError", 'secret "x" not found'))),
        0,
        "CreateContainerConfigError",
        'secret "x" not found',
    ),
    "memory": (workload(DOWN, pod(restarts=2, ended=KILLED)), 0, "OOMKilled", "memory"),
    "paused": (workload(deployment(updated=0, paused=True)), 0, "Paused", "paused"),
    "quota": (
        workload(refused('pods "a" is forbidden: exceeded quota: none')),
        2,
        "Quota",
        "exceeded quota",
    ),
    "webhook": (
        workload(refused('admission webhook "p.example.com" denied the request: no')),
        2,
        "WebhookRejected",
        "p.example.com",
    ),
    "pods refused": (
        workload(refused("error looking up service account serving/wine: not found")),
        2,
        "PodsRefused",
        "service account",
    ),
    "progress deadline": (
        workload(
            deployment(
                available=0,
                conditions=[
                    condition("Progressing", "False", "ProgressDeadlineExceeded", "timed out")
                ],
            )
        ),
        1,
        "ProgressDeadlineExceeded",
        "timed out",
    ),
    "unschedulable": (
        workload(
            DOWN,
            pod({}, conditions=[condition("PodScheduled", "False", "Unschedulable", "0/2 nodes")]),
        ),
        30,
        "Unschedulable",
        "0/2 nodes",
    ),
    "wrong image digest": (workload(deployment(image=OTHER)), 2, "WrongImage", OTHER),
    "superseded": (workload(deployment(revision="r2")), 0, "Superseded", "r2 by now"),
    "deleted": (Snapshot(None), 0, "Deleted", "not there"),
}


@pytest.mark.parametrize(("snapshot", "after", "reason", "told"), FAILS.values(), ids=FAILS)
def test_what_does_not_pass_by_itself_is_a_verdict(
    snapshot: Snapshot, after: float, reason: str, told: str
) -> None:
    if after:
        assert verdict_after(PLAIN, *lasting(snapshot, after - 0.1))[0] is None
    verdict, message = verdict_after(PLAIN, *lasting(snapshot, after))
    assert verdict is not None
    assert (verdict.ready, verdict.reason) == (False, reason)
    assert told in message


def test_a_reason_that_is_gone_at_the_next_look_is_none() -> None:
    quota = workload(refused("exceeded quota: none"))
    looks = ((0.0, quota), (1.0, workload()), (1.5, quota), (3.0, quota))
    assert verdict_after(PLAIN, *looks)[0] is None


def test_a_release_that_is_being_deleted_is_no_release() -> None:
    live = deployment()
    live["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    verdict, _ = verdict_after(PLAIN, (0.0, workload(live)))
    assert verdict is not None and verdict.reason == "Deleted"


def test_another_object_of_the_same_name_is_not_the_one_that_was_applied() -> None:
    other = deployment()
    other["metadata"]["uid"] = "another"
    verdict, _ = verdict_after(PLAIN, (0.0, workload()), (1.0, workload(other)))
    assert verdict is not None and verdict.reason == "Deleted"


def test_a_crash_after_ready_is_told_before_the_back_off() -> None:
    up = workload(deployment(), pod(ready=True))
    crashed = pod({"terminated": CRASHED})
    verdict, _ = verdict_after(PLAIN, (0.0, up), (1.0, workload(DOWN, crashed)))
    assert verdict is not None and verdict.reason == "CrashedAfterReady"


def test_a_restart_before_ready_is_no_crash_after_ready() -> None:
    looks = (
        (0.0, workload(DOWN, pod(restarts=1, ended=CRASHED))),
        (1.0, workload(deployment(), pod(ready=True, restarts=1, ended=CRASHED))),
        (2.0, workload(DOWN, pod(restarts=1, ended=CRASHED))),
    )
    assert verdict_after(PLAIN, *looks)[0] is None


def test_pods_of_the_revision_before_are_not_held_against_the_new() -> None:
    old = pod(waiting("CrashLoopBackOff"), owner="wine-1", name="old", ended=CRASHED)
    assert verdict_after(PLAIN, *lasting(workload(DOWN, old), 100))[0] is None


def test_pods_that_are_being_removed_do_not_count() -> None:
    leaving = pod(waiting("CrashLoopBackOff"), ended=CRASHED)
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert verdict_after(PLAIN, *lasting(workload(DOWN, leaving), 100))[0] is None


def evicted(name: str, message: str) -> dict[str, Any]:
    made = pod({"terminated": {"exitCode": 137, "reason": "Error"}}, name=name)
    made["status"] |= {"phase": "Failed", "reason": "Evicted", "message": message}
    return made


FULL = "Pod ephemeral local storage usage exceeds the total limit of containers 64Mi. "
PRESSED = (
    "The node was low on resource: ephemeral-storage. Container bento was using 36Ki, which "
    "exceeds its request of 0. Container rate-limit was using 1Mi, which exceeds its request of 0. "
)


@pytest.mark.parametrize(
    "message",
    [
        FULL,
        'Usage of EmptyDir volume "scratch" exceeds the limit "1Mi". ',
        'Container bento exceeded its local ephemeral storage limit "1Mi". ',
    ],
)
def test_a_pod_that_is_thrown_out_for_a_limit_of_its_own_always_will_be(message: str) -> None:
    looks = ((0.0, workload(DOWN, pod())), (1.0, workload(DOWN, evicted("one", message), pod())))
    verdict, told = verdict_after(PLAIN, *looks)
    assert verdict is not None and verdict.reason == "Evicted"
    assert f"pod one: {message.strip()}" in told


def test_pods_that_a_node_throws_out_for_its_own_sake_may_be_kept_by_another() -> None:
    ready = workload(deployment(), pod(ready=True), evicted("one", PRESSED))
    looks = ((0.0, workload(DOWN, pod(ready=True))), (1.0, ready), (4.0, ready))
    verdict, _ = verdict_after(PLAIN, *looks)
    assert verdict is not None and verdict.ready
    again = [evicted(name, PRESSED) for name in ("one", "two", "three")]
    for count, given_up in ((2, False), (3, True)):
        looks = ((0.0, workload(DOWN, pod())), (1.0, workload(DOWN, *again[:count])))
        assert (verdict_after(PLAIN, *looks)[0] is not None) == given_up


def test_pods_that_were_thrown_out_before_are_not_held_against_the_same_revision() -> None:
    looks = lasting(workload(DOWN, evicted("before", FULL), pod()), 100)
    assert verdict_after(PLAIN, *looks)[0] is None


def test_the_culprits_are_named_for_the_evidence() -> None:
    judge = ReadinessJudge(PLAIN, Waiting())
    judge.look(workload(DOWN, pod(waiting("ImagePullBackOff"))), 0)
    assert judge.culprits == ("wine-2-abc",)


# -- yatai-deployment ------------------------------------------------------------------------


def test_available_of_a_bento_deployment_alone_is_no_readiness() -> None:
    primary = bento_deployment(AVAILABLE)
    verdict, told = verdict_after(YATAI, *lasting(yatai(primary), 500))
    assert verdict is None
    assert "no Deployment wine yet" in told
    down = yatai(primary, deployment(available=0, labels=NEW))
    assert verdict_after(YATAI, *lasting(down, 500))[0] is None


def test_the_old_version_s_healthy_deployment_is_not_ours() -> None:
    old = yatai(bento_deployment(AVAILABLE), deployment(labels=OLD, image=OTHER))
    verdict, told = verdict_after(YATAI, *lasting(old, 500))
    assert verdict is None
    assert "still at yatai.ai/bento-version=v0, not v1" in told


def test_our_version_with_another_image_is_wrong() -> None:
    wrong = yatai(bento_deployment(AVAILABLE), deployment(labels=NEW, image=OTHER))
    verdict, _ = verdict_after(YATAI, *lasting(wrong, 2))
    assert verdict is not None and verdict.reason == "WrongImage"


def test_every_runner_is_wanted() -> None:
    runner = WatchedDeployment("wine-runner-0", image=OURS, container="main", labels=V1)
    watched = replace(YATAI, deployments=(*YATAI.deployments, runner))
    primary, api = bento_deployment(AVAILABLE), deployment(labels=NEW)
    verdict, told = verdict_after(watched, *lasting(yatai(primary, api), 500))
    assert verdict is None
    assert "no Deployment wine-runner-0 yet" in told
    both = yatai(primary, api, deployment("wine-runner-0", labels=NEW))
    verdict, _ = verdict_after(watched, *lasting(both, 2))
    assert verdict is not None and verdict.ready


def test_a_namespace_nobody_watches_is_told() -> None:
    silent = yatai(bento_deployment())
    assert verdict_after(YATAI, *lasting(silent, 19))[0] is None
    verdict, told = verdict_after(YATAI, *lasting(silent, 20))
    assert verdict is not None and verdict.reason == "NotWatched"
    assert "namespace serving" in told


@pytest.mark.parametrize(
    ("available", "after"),
    [
        (condition("Available", "Unknown", message="Reconciling"), 4.0),
        (condition("Available", "False", message="get domain suffix: timed out"), 2.0),
    ],
    ids=["polling", "given up"],
)
def test_the_empty_domain_suffix_is_recognised(available: dict[str, Any], after: float) -> None:
    healthy = yatai(bento_deployment(available), deployment(labels=NEW))
    assert verdict_after(YATAI, *lasting(healthy, after - 0.1))[0] is None
    verdict, told = verdict_after(YATAI, *lasting(healthy, after))
    assert verdict is not None and verdict.reason == "DomainSuffix"
    assert "domain-suffix" in told
    tolerant, _ = verdict_after(
        YATAI, *lasting(healthy, after), tolerated=frozenset(["DomainSuffix"])
    )
    assert tolerant is not None and tolerant.ready


def test_an_operator_that_still_works_on_pods_is_no_trap() -> None:
    busy = bento_deployment(condition("Available", "Unknown", message="Reconciling"))
    starting = yatai(busy, deployment(labels=NEW, available=0))
    assert verdict_after(YATAI, *lasting(starting, 500))[0] is None


def test_the_operator_s_error_is_told_in_its_words() -> None:
    failed = bento_deployment(condition("Available", "False", message="Bento not found"))
    verdict, told = verdict_after(YATAI, *lasting(yatai(failed), 3))
    assert verdict is not None and verdict.reason == "OperatorError"
    assert "Bento not found" in told


def building(*conditions: dict[str, Any], **more: Any) -> Snapshot:
    primary = bento_deployment(condition("Available", "False", message="not built"))
    build = more.pop("build", None) or bento_request(*conditions)
    return Snapshot(primary, primary, build=build, **more)


def test_a_builder_that_does_not_come_by_is_told() -> None:
    watched = BUILT
    assert verdict_after(watched, *lasting(building(), 19))[0] is None
    verdict, told = verdict_after(watched, *lasting(building(), 20))
    assert verdict is not None and verdict.reason == "NotWatched"
    assert "yatai-image-builder" in told


def test_what_a_builder_said_before_the_request_was_changed_is_given_more_time() -> None:
    at = {"lastTransitionTime": "2026-01-01T00:00:00Z"}
    failed = bento_request(condition("BentoAvailable", "False", message="no") | at)
    ours = {"manager": "kfp-bento", "operation": "Apply", "time": "2026-01-01T00:01:00Z"}
    failed["metadata"]["managedFields"] = [ours]
    assert verdict_after(BUILT, *lasting(building(build=failed), 19))[0] is None
    ours["time"] = at["lastTransitionTime"]
    verdict, _ = verdict_after(BUILT, *lasting(building(build=failed), 3))
    assert verdict is not None and verdict.reason == "BuildFailed"


def test_a_build_that_ran_out_of_time_is_told() -> None:
    late = building(
        condition("BentoAvailable", "Unknown"),
        condition("ImageBuilding", "False", "Timeout", "after 30m"),
    )
    verdict, told = verdict_after(BUILT, *lasting(late, 3))
    assert verdict is not None and verdict.reason == "BuildTimeout"
    assert "after 30m" in told


def test_an_error_that_may_be_about_the_generation_before_is_given_more_time() -> None:
    failed = bento_deployment(condition("Available", "False", message="quota"))
    failed["metadata"]["generation"] = 2
    assert verdict_after(YATAI, *lasting(yatai(failed), 19))[0] is None
    verdict, _ = verdict_after(YATAI, *lasting(yatai(failed), 20))
    assert verdict is not None and verdict.reason == "OperatorError"
    other = bento_deployment(condition("Available", "False", message="another"))
    other["metadata"]["generation"] = 2
    looks = ((0.0, yatai(failed)), (1.0, yatai(other)), (4.0, yatai(other)))
    verdict, told = verdict_after(YATAI, *looks)
    assert verdict is not None and "another" in told


def test_a_bento_that_the_operator_does_not_find_is_told() -> None:
    missing = bento_deployment(
        condition("BentoFound", "False", message="Bento not found"),
        condition("Available", "Unknown", message="Reconciling"),
    )
    verdict, told = verdict_after(YATAI, *lasting(yatai(missing), 3))
    assert verdict is not None and verdict.reason == "BentoMissing"
    assert "Bento not found" in told


def test_fewer_replicas_than_asked_for_are_not_ready_though_all_are_available() -> None:
    wanted = replace(PLAIN, deployments=(replace(PLAIN.deployments[0], minimum=2),))
    verdict, told = verdict_after(wanted, *lasting(workload(), 500))
    assert verdict is None and "1 of at least 2 replicas wanted so far" in told
    verdict, _ = verdict_after(wanted, *lasting(workload(deployment(replicas=2)), 2))
    assert verdict is not None and verdict.ready


def test_an_image_that_is_still_built_is_waited_for_and_a_failed_build_told() -> None:
    watched = BUILT

    def looking(status: str, message: str) -> Snapshot:
        return building(condition("BentoAvailable", status, message=message))

    verdict, told = verdict_after(watched, *lasting(looking("Unknown", "building"), 500))
    assert verdict is None and "being built" in told
    failed = looking("False", "Image building job x is failed.")
    flapping = ((0.0, failed), (2.0, looking("Unknown", "")), (2.5, failed), (5.0, failed))
    assert verdict_after(watched, *flapping)[0] is None
    verdict, told = verdict_after(watched, *lasting(failed, 3))
    assert verdict is not None and verdict.reason == "BuildFailed"
    assert "job x is failed" in told


# -- which image it is ------------------------------------------------------------------------

TAG, OLD_TAG = "registry/wine:z1", "registry/wine:y1"
MADE = condition("BentoAvailable", "True", message="Bento is generated")
ASKED = replace(
    target_of("bento-request")
    .render(TAG, make_bento("wine", "v1"), {"namespace": "serving", "archive_url": "s3://b/w.tar"})
    .watched,
    revision="r1",
)
ASKED = replace(ASKED, deployments=(replace(ASKED.deployments[0], labels=V1, template=()),))


def served(image: str, **more: Any) -> Snapshot:
    """What a BentoRequest for TAG looks like when the Bento has some image."""
    primary = bento_deployment(AVAILABLE)
    build = bento_request(MADE, image=TAG)
    more = {"source": bento(image), "build": build, **more}
    return yatai(primary, deployment(labels=NEW, image=image), **more)


def test_available_may_be_about_the_image_before() -> None:
    verdict, told = verdict_after(ASKED, *lasting(served(OLD_TAG), 1.9))
    assert verdict is None
    assert f"Bento wine--v1 at image {OLD_TAG} and not at {TAG}" in told
    verdict, _ = verdict_after(ASKED, *lasting(served(OLD_TAG), 20))
    assert verdict is not None and verdict.reason == "NotRebuilt"
    verdict, _ = verdict_after(ASKED, *lasting(served(TAG), 2))
    assert verdict is not None and verdict.ready


def test_a_bento_that_is_gone_is_missed_while_its_pods_run() -> None:
    gone = bento_deployment(AVAILABLE, condition("BentoFound", "False", message="not found"))
    for watched, build in ((YATAI, None), (ASKED, bento_request(MADE, image=TAG))):
        left = yatai(gone, deployment(labels=NEW), source=None, build=build)
        verdict, told = verdict_after(watched, *lasting(left, 1))
        assert verdict is None and "there is no Bento wine--v1" in told
        verdict, _ = verdict_after(watched, *lasting(left, 3))
        assert verdict is not None and verdict.reason == "BentoMissing"


def test_what_is_live_has_to_be_what_was_applied() -> None:
    """Somebody else's controller may have written the object, and the pods followed."""
    for watched, snapshot in (
        (replace(YATAI, image=OTHER), yatai(bento_deployment(AVAILABLE), deployment(labels=NEW))),
        (replace(PLAIN, image=OTHER), workload()),
    ):
        verdict, told = verdict_after(watched, *lasting(snapshot, 1))
        assert verdict is None
        assert f"asks for image {OURS} by now, while {OTHER} was applied" in told
        verdict, _ = verdict_after(watched, *lasting(snapshot, 3))
        assert verdict is not None and verdict.reason == "WrongImage"


def running(asked: str, runs: str, name: str = "wine-2-abc") -> dict[str, Any]:
    found = pod(ready=True, name=name)
    found["spec"] = {"containers": [{"name": "main", "image": asked}]}
    found["status"]["containerStatuses"][0]["imageID"] = runs
    return found


def test_pods_are_asked_themselves_which_image_they_run() -> None:
    live = deployment()
    verdict, told = verdict_after(PLAIN, *lasting(workload(live, running(OTHER, OTHER)), 2))
    assert verdict is None and f"pod wine-2-abc runs image {OTHER}, not {OURS}" in told
    # A runtime may tell the digest of one platform's manifest.
    plain = workload(live, running(OURS, OTHER))
    verdict, _ = verdict_after(PLAIN, *lasting(plain, 2))
    assert verdict is not None and verdict.ready


@pytest.mark.parametrize("asked", [f"{TAG}@sha256:{'a1' * 32}", "mirror.example.com/wine:z1"])
def test_an_admission_policy_may_write_a_tag_in_another_way(asked: str) -> None:
    tagged = replace(PLAIN, deployments=(replace(PLAIN.deployments[0], image=TAG),))
    live = deployment(image=asked if "@" in asked else TAG)
    verdict, told = verdict_after(tagged, *lasting(workload(live, running(asked, OURS)), 2))
    assert verdict is not None and verdict.ready, told


def test_pods_that_run_different_images_of_one_tag_are_not_one_release() -> None:
    tagged = replace(PLAIN, deployments=(replace(PLAIN.deployments[0], image=TAG),))
    pods = [running(TAG, OURS, "a"), running(TAG, OTHER, "b")]
    both = deployment(image=TAG, replicas=2)
    verdict, told = verdict_after(tagged, *lasting(workload(both, *pods), 2))
    assert verdict is None and "run different images" in told
    same = [running(TAG, OURS, "a"), running(TAG, OURS, "b")]
    verdict, _ = verdict_after(tagged, *lasting(workload(both, *same), 2))
    assert verdict is not None and verdict.ready


# -- paused, blocked, failing and late ---------------------------------------------------------


def test_a_pause_is_told_only_where_a_controller_keeps_it() -> None:
    paused = deployment(labels=OLD, image=OTHER, paused=True)
    assert verdict_after(YATAI, *lasting(yatai(bento_deployment(AVAILABLE), paused), 2))[0] is None
    stuck = deployment(labels=NEW, updated=0, paused=True)
    verdict, _ = verdict_after(YATAI, (0.0, yatai(bento_deployment(AVAILABLE), stuck)))
    assert verdict is not None and verdict.reason == "Paused"
    done = deployment(labels=NEW, paused=True)
    verdict, _ = verdict_after(YATAI, *lasting(yatai(bento_deployment(AVAILABLE), done), 2))
    assert verdict is not None and verdict.ready
    verdict, _ = verdict_after(PLAIN, (0.0, workload(deployment(paused=True))))
    assert verdict is not None and verdict.reason == "Paused"


def other_release(*conditions: dict[str, Any]) -> dict[str, Any]:
    live = bento_deployment(*conditions)
    return {**live, "metadata": {**live["metadata"], "name": "beer", "uid": "uid-beer"}}


def test_an_operator_that_another_release_keeps_waiting_is_not_away() -> None:
    polling = other_release(condition("BentoFound", "True"), condition("Available", "Unknown"))
    blocked = yatai(bento_deployment(), queue=[polling])
    assert verdict_after(YATAI, *lasting(blocked, 19))[0] is None
    verdict, told = verdict_after(YATAI, *lasting(blocked, 20))
    assert verdict is not None and verdict.reason == "DomainSuffix"
    assert "BentoDeployment serving/beer keeps the controller from BentoDeployment" in told
    waiting_too = yatai(bento_deployment(), queue=[other_release()])
    verdict, _ = verdict_after(YATAI, *lasting(waiting_too, 20))
    assert verdict is not None and verdict.reason == "NotWatched"


def test_a_builder_that_waits_for_a_registry_is_waited_for() -> None:
    asking = bento_request(condition("ImageExistsChecked", "Unknown", message="slow/x:1"))
    asking["metadata"]["name"] = "slow--v1"
    blocked = building(queue=[asking])
    verdict, told = verdict_after(BUILT, *lasting(blocked, 500))
    assert verdict is None
    assert "BentoRequest serving/slow--v1 keeps the controller from BentoRequest" in told
    built = bento_request(condition("ImageExistsChecked", "True"))
    verdict, told = verdict_after(BUILT, *lasting(building(queue=[built]), 20))
    assert verdict is not None and verdict.reason == "NotWatched"
    assert "It has worked in this namespace" in told


RUNS = condition("ImageBuilding", "True", message="Image building job x is running")


def build_job(failed: int = 0, *conditions: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": "x", "namespace": "serving", "uid": "uid-job"}
    status = {"failed": failed, "conditions": list(conditions)}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "status": status}


def test_a_build_that_cannot_start_is_told_by_its_pod() -> None:
    pulling = pod(waiting("ImagePullBackOff", "no such image"), name="x-abc")
    look = building(RUNS, builders=[build_job(), pulling])
    verdict, told = verdict_after(BUILT, *lasting(look, 3))
    assert verdict is not None and verdict.reason == "ImagePullBackOff"
    assert "x-abc" in told


def test_a_build_that_keeps_failing_is_told_before_its_job_gives_up() -> None:
    ended = pod({"terminated": {"exitCode": 1, "reason": "Error"}}, name="x-abc")
    twice = building(RUNS, builders=[build_job(2), ended])
    assert verdict_after(BUILT, *lasting(twice, 500))[0] is None
    look = building(RUNS, builders=[build_job(3), ended])
    verdict, told = verdict_after(BUILT, *lasting(look, 3))
    assert verdict is not None and verdict.reason == "BuildFailed"
    assert "main of x-abc ended with exit code 1" in told


@pytest.mark.parametrize(
    ("snapshot", "after", "said"),
    [
        (
            building(condition("BentoAvailable", "False", message="image build timeout")),
            3.0,
            "image build timeout",
        ),
        (
            building(build=bento_request(RUNS, imageBuildTimeout=60 * 10**9)),
            60.0,
            "not built within 60 s, and goes on",
        ),
        (
            building(
                condition("ImageBuilding", "False", message="job x is failed."),
                builders=[
                    build_job(1, condition("Failed", "True", "DeadlineExceeded", "too long"))
                ],
            ),
            3.0,
            "Job x: too long",
        ),
    ],
    ids=["1.1.3", "1.2.28", "3.0.42"],
)
def test_a_build_that_takes_too_long_is_told_whatever_its_builder_says(
    snapshot: Snapshot, after: float, said: str
) -> None:
    assert verdict_after(BUILT, *lasting(snapshot, after - 1))[0] is None
    verdict, told = verdict_after(BUILT, *lasting(snapshot, after))
    assert verdict is not None and verdict.reason == "BuildTimeout"
    assert said in told


def test_the_operator_s_own_error_counts_once_the_image_is_built() -> None:
    failed = bento_deployment(condition("Available", "False", message="quota exceeded"))
    built = yatai(failed, build=bento_request(MADE, image=TAG), source=bento(TAG))
    verdict, _ = verdict_after(ASKED, *lasting(built, 3))
    assert verdict is not None and verdict.reason == "OperatorError"


# -- KServe ----------------------------------------------------------------------------------


def standard(primary: dict[str, Any], *deployments: dict[str, Any]) -> Snapshot:
    return Snapshot(primary, None, deployments=deployments)


def test_a_ready_condition_of_the_revision_before_is_stale() -> None:
    marked = (("kfp-bento/pod-revision", "new"),)
    watched = replace(KSERVE, deployments=(replace(KSERVE.deployments[0], template=marked),))
    stale = standard(inference_service(*BOTH), deployment("wine-predictor"))
    verdict, told = verdict_after(watched, *lasting(stale, 500))
    assert verdict is None
    assert "pods of another revision" in told


def test_kserve_counts_the_generations_of_its_deployment_and_not_its_own() -> None:
    behind = standard(inference_service(*BOTH, observed=1), deployment("wine-predictor"))
    verdict, _ = verdict_after(KSERVE, *lasting(behind, 2))
    assert verdict is not None and verdict.ready


def test_a_mode_that_kserve_did_not_know_is_told() -> None:
    mode = {"serving.kserve.io/deploymentMode": "Standard"}
    live = inference_service(*BOTH, deploymentMode="Serverless")
    live["metadata"]["annotations"] = mode
    other = standard(live, deployment("wine-predictor"))
    verdict, told = verdict_after(KSERVE, *lasting(other, 2))
    assert verdict is not None and verdict.reason == "OtherDeploymentMode"
    assert "mode Serverless, not in Standard" in told
    live["status"]["deploymentMode"] = "RawDeployment"
    verdict, _ = verdict_after(KSERVE, *lasting(other, 2))
    assert verdict is not None and verdict.ready


def test_an_inference_service_that_nobody_touches_is_told() -> None:
    silent = inference_service()
    del silent["status"]
    verdict, told = verdict_after(KSERVE, *lasting(standard(silent), 20))
    assert verdict is not None and verdict.reason == "NotWatched"
    assert "KServe has written nothing about" in told


def test_conditions_and_deployment_of_an_inference_service_are_both_wanted() -> None:
    ready = inference_service(*BOTH)
    verdict, _ = verdict_after(KSERVE, *lasting(standard(ready, deployment("wine-predictor")), 2))
    assert verdict is not None and verdict.ready
    other = standard(ready, deployment("wine-predictor", image=OTHER))
    assert verdict_after(KSERVE, *lasting(other, 500))[0] is None
    unready = inference_service(BOTH[0], condition("Ready", "False", message="no ingress"))
    verdict, told = verdict_after(
        KSERVE, *lasting(standard(unready, deployment("wine-predictor")), 500)
    )
    assert verdict is None and "no ingress" in told


def test_in_serverless_mode_the_newest_revision_must_be_the_ready_one() -> None:
    def looking(ready: str, image: str = OURS, replicas: int = 1) -> Snapshot:
        part = {"latestCreatedRevision": "wine-00002", "latestReadyRevision": ready}
        primary = inference_service(*BOTH, components={"predictor": part})
        live = deployment(
            "wine-00002-deployment",
            image=image,
            replicas=replicas,
            labels={"serving.knative.dev/revision": "wine-00002", "component": "predictor"},
        )
        return standard(primary, live)

    verdict, told = verdict_after(KNATIVE, *lasting(looking("wine-00001"), 500))
    assert verdict is None and "wine-00001 serves" in told
    verdict, told = verdict_after(KNATIVE, *lasting(looking("wine-00002", OTHER), 500))
    assert verdict is None and "no Deployment of the new predictor" in told
    for replicas in (1, 0):
        looks = lasting(looking("wine-00002", replicas=replicas), 2)
        verdict, _ = verdict_after(KNATIVE, *looks)
        assert verdict is not None and verdict.ready, "scaled to zero is ready in this mode"


def test_a_model_that_cannot_load_is_told() -> None:
    failure = {"reason": "ModelLoadFailed", "message": "no model"}
    status = {"transitionStatus": "BlockedByFailedLoad", "lastFailureInfo": failure}
    failed = inference_service(modelStatus=status)
    loaded = standard(failed, deployment("wine-predictor"))
    verdict, told = verdict_after(KSERVE, *lasting(loaded, 2))
    assert verdict is not None and verdict.reason == "ModelLoadFailed"
    assert "no model" in told
    # Before its Deployment is there, it may be about the revision before.
    assert verdict_after(KSERVE, *lasting(standard(failed), 4))[0] is None
    verdict, _ = verdict_after(KSERVE, *lasting(standard(failed), 5))
    assert verdict is not None and verdict.reason == "ModelLoadFailed"


# -- routes ----------------------------------------------------------------------------------


ROUTED = replace(
    PLAIN,
    routes=(ObjectRef("gateway.networking.k8s.io/v1", "HTTPRoute", "serving", "wine"),),
    problems=watched_like("workload", route={"gateway": "public"}).problems,
)


def routed(*conditions: dict[str, Any], generation: int = 2) -> Snapshot:
    told = [{**one, "observedGeneration": 2} for one in conditions]
    route = {
        "metadata": {"name": "wine", "namespace": "serving", "generation": generation},
        "status": {"parents": [{"conditions": told}] if told else []},
    }
    return replace(workload(), routes=[route])


def test_a_route_must_be_taken_by_its_gateway() -> None:
    taken = routed(condition("Accepted", "True"))
    verdict, _ = verdict_after(ROUTED, *lasting(taken, 2))
    assert verdict is not None and verdict.ready
    stale = routed(condition("Accepted", "True"), generation=3)
    verdict, told = verdict_after(ROUTED, *lasting(stale, 500))
    assert verdict is None and "no Gateway has taken HTTPRoute wine" in told
    verdict, told = verdict_after(ROUTED, *lasting(routed(), 20))
    assert verdict is not None and verdict.reason == "NotWatched"
    assert "No Gateway controller" in told


@pytest.mark.parametrize("kind", ["Accepted", "ResolvedRefs"])
def test_a_route_that_the_gateway_refuses_is_told(kind: str) -> None:
    accepted = condition("Accepted", "True")
    refused = routed(accepted, condition(kind, "False", "BackendNotFound", "no Service x"))
    verdict, told = verdict_after(ROUTED, *lasting(refused, 3))
    assert verdict is not None and verdict.reason == "BackendNotFound"
    assert "no Service x" in told


def test_looking_changes_no_snapshot() -> None:
    snapshot = workload(DOWN, pod(waiting("CrashLoopBackOff"), ended=CRASHED))
    before = copy.deepcopy(snapshot)
    ReadinessJudge(PLAIN, Waiting()).look(snapshot, 0)
    assert snapshot == before
