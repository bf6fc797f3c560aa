"""Verdicts of the wait on a real API server with staged pods, and how soon they come."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from live_cluster import LiveCluster
from looking import noting
from played_controller import condition_of
from pod_behaviour import (
    becomes_ready,
    config_error,
    crash_loop,
    image_pull_backoff,
    never_ready,
    out_of_memory,
)
from releases import apply_manifests, handmade, wait_until_ready
from workload_releases import FIRST, SECOND, workload, yatai_pair
from yatai_operator import YataiOperator, running

from kfp_bento.runtime.deployments import Release, Verdict

# From the moment that a verdict could be known; the work of a busy machine included.
SOON = 5.0
DEPLOYMENT = ("apps/v1", "Deployment")

Manifests = list[dict[str, Any]]


@pytest.fixture
def pods(cluster: LiveCluster, namespace: str, kubeconfig: Path) -> Iterator[Any]:
    """Says what the pods of this test's namespace do."""

    def behave(behaviour: Any, **options: Any) -> None:
        cluster.pods.behave(namespace, behaviour, **options)

    yield behave


def wait(manifests: Manifests, seconds: float = 60.0, **options: Any) -> tuple[Verdict, float]:
    """The verdict on manifests, and the moment it came."""
    verdict = wait_until_ready(release_of(manifests).watched, seconds, **{"steady": 1.0, **options})
    return verdict, time.monotonic()


def put(manifests: Manifests) -> None:
    apply_manifests(release_of(manifests).recorded)


def release_of(manifests: Manifests) -> Release:
    plain = any(one["kind"] == "Deployment" for one in manifests)
    image = next(find_image(one) for one in manifests if find_image(one))
    return handmade("workload" if plain else "bento-deployment", manifests, image=image)


def find_image(manifest: dict[str, Any]) -> str:
    """The image of a Bento, or of a Deployment's container."""
    if manifest["kind"] == "Bento":
        return str(manifest["spec"]["image"])
    if manifest["kind"] == "Deployment":
        return str(manifest["spec"]["template"]["spec"]["containers"][0]["image"])
    return ""


def late(seen: list[float], came: float) -> float:
    """How long after the first sight a verdict came; it may well have been there first."""
    return came - seen[0] if seen else 0.0


def waiting_reason(cluster: LiveCluster, namespace: str, *reasons: str) -> Callable[[], bool]:
    def look() -> bool:
        return any(
            ((status.get("state") or {}).get("waiting") or {}).get("reason") in reasons
            for pod in cluster.pods_of(namespace)
            for status in (pod.get("status") or {}).get("containerStatuses") or []
        )

    return look


def condition(
    cluster: LiveCluster, namespace: str, kind: str, status: str, reason: str = ""
) -> Callable[[], bool]:
    def look() -> bool:
        live = cluster.api.get(*DEPLOYMENT, namespace, "wine") or {}
        return any(
            (entry["type"], entry["status"]) == (kind, status)
            and reason in ("", entry.get("reason"))
            for entry in (live.get("status") or {}).get("conditions") or []
        )

    return look


def test_a_slow_start_is_waited_for(cluster: LiveCluster, namespace: str, pods: Any) -> None:
    pods(becomes_ready(after=6))
    put(workload(namespace))
    available = condition(cluster, namespace, "Available", "True")
    with noting(available) as seen:
        verdict, came = wait(workload(namespace))
    assert verdict.ready, verdict
    assert seen, "ready before any pod was available"
    assert 0 <= late(seen, came) < SOON


@pytest.mark.parametrize(
    ("behaviour", "reasons"),
    [
        (image_pull_backoff(), ("ErrImagePull", "ImagePullBackOff")),
        (crash_loop(), ("CrashLoopBackOff",)),
        (config_error(), ("CreateContainerConfigError",)),
    ],
    ids=["image", "crash", "config"],
)
def test_a_pod_that_cannot_start_is_told_at_once_with_evidence(
    cluster: LiveCluster, namespace: str, pods: Any, behaviour: Any, reasons: tuple[str, ...]
) -> None:
    pods(behaviour)
    put(workload(namespace))
    with noting(waiting_reason(cluster, namespace, *reasons)) as seen:
        verdict, came = wait(workload(namespace))
    assert verdict.reason in reasons, verdict
    assert late(seen, came) < SOON
    assert verdict.evidence
    if "CrashLoopBackOff" in reasons:
        assert any("ModuleNotFoundError" in line for line in verdict.evidence)


def test_memory_is_named_when_it_was_the_reason(
    cluster: LiveCluster, namespace: str, pods: Any
) -> None:
    pods(out_of_memory())
    put(workload(namespace))
    with noting(waiting_reason(cluster, namespace, "CrashLoopBackOff")) as seen:
        verdict, came = wait(workload(namespace))
    assert verdict.reason == "OOMKilled", verdict
    assert late(seen, came) < SOON


def test_a_crash_after_ready_is_told(cluster: LiveCluster, namespace: str, pods: Any) -> None:
    pods(crash_loop(ready_for=1.5))
    put(workload(namespace))
    verdict, _ = wait(workload(namespace), steady=8.0)
    assert verdict.reason in ("CrashedAfterReady", "CrashLoopBackOff"), verdict


def test_the_old_revision_s_pods_do_not_count(
    cluster: LiveCluster, namespace: str, pods: Any
) -> None:
    put(workload(namespace))
    assert wait(workload(namespace))[0].ready
    pods(never_ready(), image="b2b2")
    put(workload(namespace, SECOND))
    verdict, _ = wait(workload(namespace, SECOND), 6)
    assert verdict.reason == "DeadlineExceeded"
    live = cluster.api.get(*DEPLOYMENT, namespace, "wine")
    assert live is not None and live["status"]["availableReplicas"] == 1


def test_failing_pods_of_the_revision_before_are_not_held_against_the_new(
    cluster: LiveCluster, namespace: str, pods: Any
) -> None:
    pods(crash_loop(), image="a1a1")
    put(workload(namespace))
    assert wait(workload(namespace))[0].reason == "CrashLoopBackOff"
    put(workload(namespace, SECOND))
    assert wait(workload(namespace, SECOND))[0].ready


def test_a_paused_deployment_is_told_at_once(
    cluster: LiveCluster, namespace: str, pods: Any
) -> None:
    put(workload(namespace))
    assert wait(workload(namespace))[0].ready
    cluster.api.merge(*DEPLOYMENT, namespace, "wine", {"spec": {"paused": True}})
    put(workload(namespace, SECOND))
    begun = time.monotonic()
    verdict, came = wait(workload(namespace, SECOND))
    assert verdict.reason == "Paused", verdict
    assert came - begun < SOON


def allow_pods(cluster: LiveCluster, namespace: str, number: int) -> None:
    place = ("v1", "ResourceQuota", namespace, "pods")
    cluster.api.apply(
        {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": "pods", "namespace": namespace},
            "spec": {"hard": {"pods": str(number)}},
        }
    )
    cluster.until(
        "the quota counts",
        lambda: (cluster.api.get(*place) or {}).get("status", {}).get("hard"),
    )


def test_an_exceeded_quota_is_told_in_the_server_s_words(
    cluster: LiveCluster, namespace: str, pods: Any
) -> None:
    allow_pods(cluster, namespace, 0)
    put(workload(namespace))
    refused = condition(cluster, namespace, "ReplicaFailure", "True")
    with noting(refused) as seen:
        verdict, came = wait(workload(namespace))
    assert verdict.reason == "Quota", verdict
    assert "exceeded quota" in verdict.message
    assert late(seen, came) < SOON
    assert any("FailedCreate" in line for line in verdict.evidence), verdict.evidence


def test_a_webhook_that_cannot_be_called_is_told(
    cluster: LiveCluster, namespace: str, pods: Any
) -> None:
    hook = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": f"refusing-{namespace}"},
        "webhooks": [
            {
                "name": "pods.refusing.example.com",
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "failurePolicy": "Fail",
                "timeoutSeconds": 2,
                "clientConfig": {"url": "https://127.0.0.1:1/"},
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
                "rules": [
                    {
                        "apiGroups": [""],
                        "apiVersions": ["v1"],
                        "operations": ["CREATE"],
                        "resources": ["pods"],
                    }
                ],
            }
        ],
    }
    cluster.api.apply(hook)
    try:
        time.sleep(1)  # the API server learns of webhooks by a watch
        put(workload(namespace))
        refused = condition(cluster, namespace, "ReplicaFailure", "True")
        with noting(refused) as seen:
            verdict, came = wait(workload(namespace))
    finally:
        cluster.api.delete(hook["apiVersion"], hook["kind"], None, hook["metadata"]["name"])
    assert verdict.reason == "WebhookRejected", verdict
    assert "pods.refusing.example.com" in verdict.message
    assert late(seen, came) < SOON


def test_replicas_that_lack_are_not_ready(cluster: LiveCluster, namespace: str, pods: Any) -> None:
    allow_pods(cluster, namespace, 1)
    put(workload(namespace, replicas=2))
    verdict, _ = wait(workload(namespace, replicas=2))
    assert verdict.reason == "Quota", verdict


def test_a_release_that_is_deleted_meanwhile_is_told(
    cluster: LiveCluster, namespace: str, pods: Any
) -> None:
    pods(never_ready())
    put(workload(namespace))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(wait, workload(namespace))
        time.sleep(3)
        cluster.api.delete(*DEPLOYMENT, namespace, "wine")
        begun = time.monotonic()
        verdict, came = waiting.result(timeout=60)
    assert verdict.reason == "Deleted", verdict
    assert came - begun < SOON


def test_a_release_that_another_took_over_is_told(
    cluster: LiveCluster, namespace: str, pods: Any
) -> None:
    pods(never_ready())
    put(workload(namespace))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(wait, workload(namespace))
        time.sleep(3)
        put(workload(namespace, SECOND))
        begun = time.monotonic()
        verdict, came = waiting.result(timeout=60)
    assert verdict.reason == "Superseded", verdict
    assert came - begun < SOON


def test_an_image_that_somebody_changed_is_told(
    cluster: LiveCluster, namespace: str, pods: Any
) -> None:
    put(workload(namespace))
    changed = workload(namespace, SECOND)[0]
    cluster.api.apply(changed, manager="kubectl", force=True)
    begun = time.monotonic()
    verdict, came = wait(workload(namespace))
    assert verdict.reason == "WrongImage", verdict
    assert SECOND in verdict.message
    assert came - begun < SOON


def test_a_pod_that_no_node_takes_is_told_after_the_grace(
    cluster: LiveCluster, namespace: str, pods: Any
) -> None:
    huge = {"resources": {"requests": {"cpu": "1000"}}}
    manifests = workload(namespace, container=huge)
    put(manifests)

    def unschedulable() -> bool:
        return any(
            entry.get("reason") == "Unschedulable"
            for pod in cluster.pods_of(namespace)
            for entry in (pod.get("status") or {}).get("conditions") or []
        )

    with noting(unschedulable) as seen:
        verdict, came = wait(manifests, unschedulable=4)
    assert verdict.reason == "Unschedulable", verdict
    assert "Insufficient cpu" in verdict.message
    assert late(seen, came) - 4 < SOON
    assert any("FailedScheduling" in line for line in verdict.evidence), verdict.evidence


def test_the_progress_deadline_of_the_deployment_is_told(
    cluster: LiveCluster, namespace: str, pods: Any
) -> None:
    pods(never_ready())
    manifests = workload(namespace, progressDeadlineSeconds=3)
    put(manifests)
    stuck = condition(cluster, namespace, "Progressing", "False", "ProgressDeadlineExceeded")
    with noting(stuck) as seen:
        verdict, came = wait(manifests)
    assert verdict.reason == "ProgressDeadlineExceeded", verdict
    assert late(seen, came) < SOON
    assert any("Unhealthy" in line for line in verdict.evidence), verdict.evidence


def test_the_deadline_is_ours_and_says_what_was_missing(
    cluster: LiveCluster, namespace: str, pods: Any
) -> None:
    pods(never_ready())
    put(workload(namespace))
    begun = time.monotonic()
    verdict, came = wait(workload(namespace), 4)
    assert verdict.reason == "DeadlineExceeded", verdict
    assert "0 of 1 replicas available" in verdict.message
    assert came - begun - 4 < SOON


def test_a_server_that_is_away_is_waited_out(
    cluster: LiveCluster, namespace: str, pods: Any
) -> None:
    pods(never_ready())
    put(workload(namespace))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(wait, workload(namespace), 90)
        time.sleep(2)
        with cluster.api_server_down(abruptly=True):
            time.sleep(5)
            assert not waiting.done()
        cluster.pods.change(namespace, becomes_ready())
        verdict, _ = waiting.result(timeout=120)
    assert verdict.ready, verdict


@contextmanager
def answering(status: int) -> Iterator[str]:
    """A service on this machine whose `/readyz` has one answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/readyz" else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_ready_pods_must_answer_too(cluster: LiveCluster, namespace: str, pods: Any) -> None:
    put(workload(namespace))
    watched = release_of(workload(namespace)).watched
    with answering(503) as url:
        silent = wait_until_ready(replace(watched, url=url), 60)
        assert silent.reason == "NotAnswering", silent
        assert "answers 503" in silent.message
        tolerated = ["NotAnswering"]
        assert wait_until_ready(replace(watched, url=url), 60, tolerated=tolerated).ready
    with answering(200) as url:
        assert wait_until_ready(replace(watched, url=url), 60).ready


# -- yatai-deployment ------------------------------------------------------------------------


@pytest.fixture
def operator(
    cluster: LiveCluster, yatai: str, namespace: str, kubeconfig: Path
) -> Iterator[YataiOperator]:
    with running(YataiOperator(cluster.api, namespace)) as made:
        yield made


def test_available_alone_is_no_readiness(
    cluster: LiveCluster, namespace: str, operator: YataiOperator, pods: Any
) -> None:
    pods(never_ready())
    put(yatai_pair(namespace))
    verdict, _ = wait(yatai_pair(namespace), 6)
    live = cluster.api.get("serving.yatai.ai/v2alpha1", "BentoDeployment", namespace, "wine")
    assert live is not None
    assert condition_of(live, "Available")["status"] == "True"
    assert verdict.reason == "DeadlineExceeded", verdict


def test_an_operator_that_has_not_come_by_leaves_the_old_revision(
    cluster: LiveCluster, namespace: str, operator: YataiOperator, pods: Any
) -> None:
    put(yatai_pair(namespace))
    assert wait(yatai_pair(namespace))[0].ready
    operator.asleep = True
    new = yatai_pair(namespace, SECOND, version="v2")
    put(new)
    verdict, _ = wait(new, 6)
    assert verdict.reason == "DeadlineExceeded"
    assert "still at yatai.ai/bento-version=v1, not v2" in verdict.message
    operator.asleep = False
    assert wait(new)[0].ready


def test_a_namespace_that_the_operator_does_not_watch_is_told(
    cluster: LiveCluster, namespace: str, operator: YataiOperator, pods: Any
) -> None:
    operator.asleep = True
    put(yatai_pair(namespace))
    begun = time.monotonic()
    verdict, came = wait(yatai_pair(namespace), unwatched=4)
    assert verdict.reason == "NotWatched", verdict
    assert namespace in verdict.message
    assert came - begun - 4 < SOON


def test_the_empty_domain_suffix_is_recognised(
    cluster: LiveCluster, namespace: str, operator: YataiOperator, pods: Any
) -> None:
    operator.suffix = ""
    put(yatai_pair(namespace))
    available = condition(cluster, namespace, "Available", "True")
    with noting(available) as seen:
        verdict, came = wait(yatai_pair(namespace))
    assert verdict.reason == "DomainSuffix", verdict
    assert late(seen, came) - 4 < SOON
    tolerant, _ = wait(yatai_pair(namespace), tolerated=["DomainSuffix"])
    assert tolerant.ready


def test_what_the_operator_failed_with_is_told(
    cluster: LiveCluster, namespace: str, operator: YataiOperator, pods: Any
) -> None:
    operator.failure = "list deployments: connection refused"
    put(yatai_pair(namespace))
    begun = time.monotonic()
    verdict, came = wait(yatai_pair(namespace))
    assert verdict.reason == "OperatorError", verdict
    assert "connection refused" in verdict.message
    assert came - begun - 3 < SOON


def test_runners_that_lack_are_not_ready(
    cluster: LiveCluster, namespace: str, operator: YataiOperator, pods: Any
) -> None:
    operator.runners = 1
    put(yatai_pair(namespace, runners=2))
    verdict, _ = wait(yatai_pair(namespace, runners=2), 6)
    assert verdict.reason == "DeadlineExceeded"
    assert "no Deployment wine-runner-1" in verdict.message
    operator.runners = None
    operator.restart()
    assert wait(yatai_pair(namespace, runners=2))[0].ready


def test_an_operator_that_deploys_another_image_is_told(
    cluster: LiveCluster, namespace: str, operator: YataiOperator, pods: Any
) -> None:
    operator.image = SECOND
    put(yatai_pair(namespace, FIRST))
    verdict, _ = wait(yatai_pair(namespace, FIRST))
    assert verdict.reason == "WrongImage", verdict
