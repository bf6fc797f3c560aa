"""Verdicts where a controller stands between the release and its pods, and how soon they come.

Yatai's controllers are played as they were seen at work (`test_played_yatai.py`), KServe's after
its sources; see `test_wait_verdicts.py` for pods.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from image_builder import BUILDER_POD, GENERATIONS, ImageBuilder
from kserve_controller import KServeController
from live_cluster import LiveCluster
from looking import noting
from played_controller import running
from pod_behaviour import becomes_ready, completes, image_pull_backoff, never_ready
from releases import apply_manifests, wait_until_ready
from sample_bentos import make_bento
from workload_releases import FIRST, SECOND
from yatai_operator import YataiOperator

from kfp_bento.runtime.deployments import TARGETS, Release, Verdict

# From the moment that a verdict could be known; the work of a busy machine included.
SOON = 5.0
TAG = "registry.example.com/team/wine:v1"
SERVICE = ("serving.kserve.io/v1beta1", "InferenceService")
REQUEST = ("resources.yatai.ai/v1alpha1", "BentoRequest")


def request(namespace: str, version: str = "v1") -> Release:
    given = {"namespace": namespace, "archive_url": "https://store.example.com/wine.tar.gz"}
    image = TAG.replace("v1", version)
    return TARGETS["bento-request"].render(image, make_bento("wine", version), given)


def service(namespace: str, image: str = FIRST, **options: Any) -> Release:
    bento = make_bento("wine", {FIRST: "v1", SECOND: "v2"}[image])
    given = {"namespace": namespace, **options}
    return TARGETS["inference-service"].render(image, bento, given)


def put_and_wait(release: Release, seconds: float = 60.0, **options: Any) -> Verdict:
    apply_manifests(release.recorded)
    return wait_until_ready(release.watched, seconds, **options)


def condition(
    cluster: LiveCluster, place: tuple[str, str, str, str], kind: str, status: str
) -> bool:
    live = cluster.api.get(*place) or {}
    told = (live.get("status") or {}).get("conditions") or []
    return (kind, status) in {(one["type"], one["status"]) for one in told}


# -- the image builder -----------------------------------------------------------------------


@pytest.fixture
def builder(
    cluster: LiveCluster, yatai: str, namespace: str, kubeconfig: Path
) -> Iterator[ImageBuilder]:
    with (
        running(YataiOperator(cluster.api, namespace)),
        running(ImageBuilder(cluster.api, namespace)) as played,
    ):
        yield played


@pytest.fixture
def build(cluster: LiveCluster, namespace: str) -> Callable[..., None]:
    """Says how builds of this test's namespace end."""

    def ends(after: float = 0.2, exit_code: int = 0) -> None:
        behaviour = completes(after, exit_code=exit_code, log="error building image\n")
        cluster.pods.behave(namespace, behaviour, labels=BUILDER_POD)

    return ends


each_builder = pytest.mark.parametrize("version", GENERATIONS)


@each_builder
def test_a_build_is_waited_for(
    namespace: str, builder: ImageBuilder, build: Callable[..., None], version: str
) -> None:
    builder.version = version
    build(4)
    begun = time.monotonic()
    verdict = put_and_wait(request(namespace))
    assert verdict.ready, verdict
    assert time.monotonic() - begun > 4


@each_builder
def test_a_build_that_failed_is_told_with_its_log(
    cluster: LiveCluster,
    namespace: str,
    builder: ImageBuilder,
    build: Callable[..., None],
    version: str,
) -> None:
    builder.version = version
    build(2, 42)
    made = request(namespace)
    place = (*REQUEST, namespace, made.manifests[0]["metadata"]["name"])
    with noting(lambda: condition(cluster, place, "ImageBuilding", "False")) as seen:
        verdict = put_and_wait(made)
        came = time.monotonic()
    assert verdict.reason == "BuildFailed", verdict
    assert "is failed" in verdict.message or "status is Failed" in verdict.message
    # It has to last, as the builder may be between two conditions.
    assert came - seen[0] - 3 < SOON
    assert any("error building image" in line for line in verdict.evidence), verdict.evidence


def test_a_build_whose_pods_keep_failing_is_told_before_its_job_gives_up(
    namespace: str, builder: ImageBuilder, build: Callable[..., None]
) -> None:
    build(0.1, 1)
    verdict = put_and_wait(request(namespace), 120)
    assert verdict.reason == "BuildFailed", verdict
    assert "exit code 1" in verdict.message
    assert any("error building image" in line for line in verdict.evidence), verdict.evidence


def test_a_build_whose_own_image_cannot_be_pulled_is_told(
    cluster: LiveCluster, namespace: str, builder: ImageBuilder
) -> None:
    cluster.pods.behave(namespace, image_pull_backoff(), labels=BUILDER_POD)
    begun = time.monotonic()
    verdict = put_and_wait(request(namespace))
    assert verdict.reason in ("ErrImagePull", "ImagePullBackOff"), verdict
    assert "yatai-bento-image-builder" in verdict.message
    assert verdict.evidence
    # It has to last, as pods of a failed attempt before are there for a moment.
    assert time.monotonic() - begun - 3 < SOON


@each_builder
def test_a_build_that_takes_too_long_is_told_whatever_its_builder_says(
    cluster: LiveCluster, namespace: str, builder: ImageBuilder, version: str
) -> None:
    builder.version = version
    cluster.pods.behave(namespace, becomes_ready(), labels=BUILDER_POD)
    made = request(namespace)
    manifests = [dict(one) for one in made.manifests]
    manifests[0]["spec"] = {**manifests[0]["spec"], "imageBuildTimeout": 3 * 10**9}
    begun = time.monotonic()
    verdict = put_and_wait(replace(made, manifests=tuple(manifests)))
    assert verdict.reason == "BuildTimeout", verdict
    assert time.monotonic() - begun - 6 < SOON


def test_a_registry_that_fails_now_and_then_is_no_failure_and_for_good_is_one(
    namespace: str, builder: ImageBuilder
) -> None:
    builder.failure = "registry: connection refused"
    timer = threading.Timer(2.0, lambda: setattr(builder, "failure", ""))
    timer.start()
    assert put_and_wait(request(namespace)).ready
    builder.failure = "registry: unauthorized"
    verdict = put_and_wait(request(namespace, "v2"))
    assert verdict.reason == "BuildFailed", verdict
    assert "unauthorized" in verdict.message


def test_a_builder_that_does_not_watch_the_namespace_is_told(
    namespace: str, builder: ImageBuilder
) -> None:
    builder.asleep = True
    begun = time.monotonic()
    verdict = put_and_wait(request(namespace), unwatched=3)
    assert verdict.reason == "NotWatched", verdict
    assert "yatai-image-builder" in verdict.message
    assert time.monotonic() - begun - 3 < SOON


def test_a_builder_that_waits_for_another_s_registry_is_not_away(
    cluster: LiveCluster, namespace: str, builder: ImageBuilder
) -> None:
    builder.hangs = "wine:slow"
    apply_manifests(request(namespace, "slow").recorded)
    place = (*REQUEST, namespace, "wine--slow")
    cluster.until("it hangs", lambda: condition(cluster, place, "ImageExistsChecked", "Unknown"))
    verdict = put_and_wait(request(namespace), 6, unwatched=2)
    assert verdict.reason == "DeadlineExceeded", verdict
    assert "wine--slow keeps the controller" in verdict.message
    builder.hangs = ""
    assert put_and_wait(request(namespace)).ready


def test_what_was_built_must_start_too(
    cluster: LiveCluster, namespace: str, builder: ImageBuilder
) -> None:
    cluster.pods.behave(namespace, image_pull_backoff(), image="team/wine")
    verdict = put_and_wait(request(namespace))
    assert verdict.reason in ("ErrImagePull", "ImagePullBackOff"), verdict


# -- KServe ----------------------------------------------------------------------------------


@pytest.fixture
def controller(
    cluster: LiveCluster, kserve: str, namespace: str, kubeconfig: Path
) -> Iterator[KServeController]:
    with running(KServeController(cluster.api, namespace)) as played:
        yield played


@pytest.mark.parametrize("own_generation", [False, True])
@pytest.mark.parametrize("mode", ["Standard", "Knative"])
def test_a_service_is_ready_when_the_pods_of_its_newest_revision_are(
    cluster: LiveCluster,
    namespace: str,
    controller: KServeController,
    mode: str,
    own_generation: bool,
) -> None:
    controller.own_generation = own_generation
    assert put_and_wait(service(namespace, deployment_mode=mode)).ready
    cluster.pods.behave(namespace, never_ready(), image="b2b2")
    changed = service(namespace, SECOND, deployment_mode=mode)
    late = put_and_wait(changed, 5)
    assert late.reason == "DeadlineExceeded", late
    cluster.pods.change(namespace, becomes_ready())
    assert wait_until_ready(changed.watched).ready


def test_a_controller_that_has_not_come_by_leaves_the_old_revision(
    cluster: LiveCluster, namespace: str, controller: KServeController
) -> None:
    assert put_and_wait(service(namespace)).ready
    controller.asleep = True
    changed = service(namespace, SECOND)
    late = put_and_wait(changed, 4)
    assert late.reason == "DeadlineExceeded", late
    assert "wine-predictor still has image" in late.message
    controller.asleep = False
    assert wait_until_ready(changed.watched).ready


def test_a_namespace_that_kserve_does_not_watch_is_told(
    cluster: LiveCluster, namespace: str, controller: KServeController
) -> None:
    controller.asleep = True
    begun = time.monotonic()
    verdict = put_and_wait(service(namespace), unwatched=3)
    assert verdict.reason == "NotWatched", verdict
    assert time.monotonic() - begun - 3 < SOON


def test_a_model_that_cannot_be_loaded_is_told_in_kserve_s_words(
    cluster: LiveCluster, namespace: str, controller: KServeController
) -> None:
    controller.failing_load = "no such file model.skops"
    cluster.pods.behave(namespace, never_ready())
    begun = time.monotonic()
    verdict = put_and_wait(service(namespace))
    assert "no such file model.skops" in verdict.message, verdict
    assert time.monotonic() - begun < 2 + SOON


def test_a_mode_that_kserve_does_not_know_is_told(
    cluster: LiveCluster, namespace: str, controller: KServeController
) -> None:
    controller.mode = "Knative"
    begun = time.monotonic()
    verdict = put_and_wait(service(namespace, deployment_mode="Standard"))
    assert verdict.reason == "OtherDeploymentMode", verdict
    assert time.monotonic() - begun - 2 < SOON


def test_scaled_to_zero_is_ready_where_that_was_asked_for(
    cluster: LiveCluster, namespace: str, controller: KServeController
) -> None:
    controller.idle = True
    zero = {"deployment_mode": "Knative", "autoscaling": {"minReplicas": 0}}
    verdict = put_and_wait(service(namespace, **zero))
    assert verdict.ready, verdict
