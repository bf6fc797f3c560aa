"""Verdicts where a controller stands between the release and its pods, and how soon they come.

The controllers are played after their sources; see `test_wait_verdicts.py` for pods.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from image_builder import ImageBuilder
from kserve_controller import KServeController
from live_cluster import LiveCluster
from looking import noting
from played_controller import running
from pod_behaviour import becomes_ready, image_pull_backoff, never_ready
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


def test_a_build_is_waited_for(cluster: LiveCluster, namespace: str, builder: ImageBuilder) -> None:
    builder.seconds = 4
    begun = time.monotonic()
    verdict = put_and_wait(request(namespace))
    assert verdict.ready, verdict
    assert time.monotonic() - begun > 4


@pytest.mark.parametrize("forgets", [False, True], ids=["stays failed", "forgotten"])
def test_a_build_that_failed_is_told(
    cluster: LiveCluster, namespace: str, builder: ImageBuilder, forgets: bool
) -> None:
    builder.seconds, builder.job_fails, builder.forgets = 2, True, forgets
    made = request(namespace)
    place = (*REQUEST, namespace, made.manifests[0]["metadata"]["name"])
    with noting(lambda: condition(cluster, place, "ImageBuilding", "False")) as seen:
        verdict = put_and_wait(made)
        came = time.monotonic()
    assert verdict.reason == "BuildFailed", verdict
    assert "is failed" in verdict.message
    # It has to last, as the builder may be between two conditions.
    assert came - seen[0] - 3 < SOON


def test_a_build_that_takes_too_long_is_told_before_it_is_tried_again(
    cluster: LiveCluster, namespace: str, builder: ImageBuilder
) -> None:
    builder.seconds, builder.times_out, builder.retry_seconds = 2, True, 4
    begun = time.monotonic()
    verdict = put_and_wait(request(namespace))
    assert verdict.reason == "BuildTimeout", verdict
    assert time.monotonic() - begun - builder.seconds < SOON


def test_a_registry_that_fails_now_and_then_is_no_failure_and_for_good_is_one(
    cluster: LiveCluster, namespace: str, builder: ImageBuilder
) -> None:
    builder.failure, builder.retry_seconds = "registry: connection refused", 0.5
    timer = threading.Timer(2.0, lambda: setattr(builder, "failure", ""))
    timer.start()
    assert put_and_wait(request(namespace)).ready
    builder.failure, builder.retry_seconds = "registry: unauthorized", 60
    verdict = put_and_wait(request(namespace, "v2"))
    assert verdict.reason == "BuildFailed", verdict
    assert "unauthorized" in verdict.message


def test_a_builder_that_does_not_watch_the_namespace_is_told(
    cluster: LiveCluster, namespace: str, builder: ImageBuilder
) -> None:
    builder.asleep = True
    begun = time.monotonic()
    verdict = put_and_wait(request(namespace), unwatched=3)
    assert verdict.reason == "NotWatched", verdict
    assert "yatai-image-builder" in verdict.message
    assert time.monotonic() - begun - 3 < SOON


def test_what_was_built_must_start_too(
    cluster: LiveCluster, namespace: str, builder: ImageBuilder
) -> None:
    cluster.pods.behave(namespace, image_pull_backoff())
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
