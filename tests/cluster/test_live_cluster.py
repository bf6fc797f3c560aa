"""The test cluster does what tests of deployments rely on."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import urllib3
from kube_api import KubeApi, Refused
from live_cluster import LiveCluster
from pod_behaviour import (
    Behaviour,
    becomes_ready,
    completes,
    config_error,
    crash_loop,
    image_pull_backoff,
    never_ready,
    out_of_memory,
)

IMAGE = "registry.example.com/wine@sha256:" + "a1" * 32


def deployment(namespace: str, name: str = "wine", **changes: Any) -> dict[str, Any]:
    labels = {"app": name}
    container = {"name": "main", "image": IMAGE, **changes.pop("container", {})}
    pod = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": pod,
            **changes,
        },
    }


def condition(cluster: LiveCluster, namespace: str, kind: str, name: str = "wine") -> Any:
    found = cluster.api.get("apps/v1", "Deployment", namespace, name) or {}
    for entry in found.get("status", {}).get("conditions") or []:
        if entry["type"] == kind:
            return entry
    return None


def container_state(cluster: LiveCluster, namespace: str) -> dict[str, Any]:
    for pod in cluster.pods_of(namespace):
        for status in pod.get("status", {}).get("containerStatuses") or []:
            return dict(status)
    return {}


def is_available(cluster: LiveCluster, namespace: str, name: str = "wine") -> bool:
    entry = condition(cluster, namespace, "Available", name)
    return bool(entry) and entry["status"] == "True"


def test_the_server_says_the_version_it_was_built_from(cluster: LiveCluster) -> None:
    told = cluster.api.request("GET", "/version")
    assert told["gitVersion"] in str(cluster.plane.programs)
    assert (told["major"], told["minor"]) == tuple(told["gitVersion"][1:].split(".")[:2])


def test_a_deployment_becomes_available_and_its_service_has_endpoints(
    cluster: LiveCluster, namespace: str
) -> None:
    cluster.api.apply(deployment(namespace, replicas=2))
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "wine", "namespace": namespace},
        "spec": {"selector": {"app": "wine"}, "ports": [{"name": "http", "port": 3000}]},
    }
    cluster.api.apply(service)
    cluster.until("two pods", lambda: is_available(cluster, namespace))
    cluster.until(
        "two endpoints",
        lambda: (
            [
                endpoint["conditions"]["ready"]
                for piece in cluster.api.list("discovery.k8s.io/v1", "EndpointSlice", namespace)
                for endpoint in piece.get("endpoints") or []
            ]
            == [True, True]
        ),
    )
    status = container_state(cluster, namespace)
    assert status["imageID"] == IMAGE


def test_a_slow_start_is_not_available_before_it_is_ready(
    cluster: LiveCluster, namespace: str
) -> None:
    cluster.pods.behave(namespace, becomes_ready(after=2.5))
    cluster.api.apply(deployment(namespace))
    cluster.until(
        "the container runs",
        lambda: (
            "running" in container_state(cluster, namespace)["state"]
            if container_state(cluster, namespace)
            else False
        ),
    )
    assert not is_available(cluster, namespace)
    cluster.until("available after all", lambda: is_available(cluster, namespace))


@pytest.mark.parametrize(
    ("behaviour", "reason", "event"),
    [
        (image_pull_backoff(), "ImagePullBackOff", "Failed"),
        (crash_loop(), "CrashLoopBackOff", "BackOff"),
        (out_of_memory(), "CrashLoopBackOff", "BackOff"),
        (config_error(), "CreateContainerConfigError", "Failed"),
    ],
    ids=["image pull", "crash", "out of memory", "config"],
)
def test_a_failure_is_told_in_pod_status_and_events(
    cluster: LiveCluster, namespace: str, behaviour: Behaviour, reason: str, event: str
) -> None:
    cluster.pods.behave(namespace, behaviour)
    cluster.api.apply(deployment(namespace))

    def waiting_reason() -> str:
        state = container_state(cluster, namespace).get("state", {})
        return str(state.get("waiting", {}).get("reason", ""))

    cluster.until(reason, lambda: waiting_reason() == reason)
    [pod] = cluster.pods_of(namespace)
    told = cluster.until(
        "its event",
        lambda: [
            entry["reason"]
            for entry in cluster.events(namespace, pod["metadata"]["name"])
            if entry["type"] == "Warning"
        ],
    )
    assert event in told
    assert not is_available(cluster, namespace)


def test_a_container_that_crashes_is_started_again_and_again(
    cluster: LiveCluster, namespace: str
) -> None:
    cluster.pods.behave(namespace, out_of_memory())
    cluster.api.apply(deployment(namespace))
    cluster.until(
        "two restarts", lambda: container_state(cluster, namespace).get("restartCount", 0) >= 2
    )
    last = container_state(cluster, namespace)["lastState"]["terminated"]
    assert (last["reason"], last["exitCode"]) == ("OOMKilled", 137)


def test_a_pod_that_is_never_ready_runs_into_the_progress_deadline(
    cluster: LiveCluster, namespace: str
) -> None:
    cluster.pods.behave(namespace, never_ready())
    cluster.api.apply(deployment(namespace, progressDeadlineSeconds=2))
    stuck = cluster.until(
        "the deadline",
        lambda: (
            (entry := condition(cluster, namespace, "Progressing"))
            and entry["status"] == "False"
            and entry
        ),
    )
    assert stuck["reason"] == "ProgressDeadlineExceeded"


@pytest.mark.parametrize("cause", ["too large", "cordoned"])
def test_a_pod_that_fits_nowhere_is_unschedulable(
    cluster: LiveCluster, namespace: str, cause: str
) -> None:
    request = {"resources": {"requests": {"cpu": "64"}}} if cause == "too large" else {}

    def refusal() -> str:
        for pod in cluster.pods_of(namespace):
            for entry in pod["status"].get("conditions") or []:
                if entry["type"] == "PodScheduled" and entry["reason"] == "Unschedulable":
                    return str(entry["message"])
        return ""

    if cause == "cordoned":
        with cluster.cordoned():
            cluster.api.apply(deployment(namespace))
            message = cluster.until("unschedulable", refusal)
        cluster.until("scheduled once it may", lambda: is_available(cluster, namespace))
    else:
        cluster.api.apply(deployment(namespace, container=request))
        message = cluster.until("unschedulable", refusal)
    assert message.startswith("0/2 nodes are available")


def test_the_last_rule_that_fits_the_image_decides(cluster: LiveCluster, namespace: str) -> None:
    cluster.pods.behave(namespace, becomes_ready())
    cluster.pods.behave(namespace, image_pull_backoff(), image="/broken@")
    cluster.api.apply(deployment(namespace, "good"))
    broken = {"image": IMAGE.replace("/wine@", "/broken@")}
    cluster.api.apply(deployment(namespace, "bad", container=broken))
    cluster.until("the good one", lambda: is_available(cluster, namespace, "good"))
    assert not is_available(cluster, namespace, "bad")


def test_a_running_pod_can_begin_to_fail_and_recover(cluster: LiveCluster, namespace: str) -> None:
    cluster.api.apply(deployment(namespace))
    cluster.until("available", lambda: is_available(cluster, namespace))
    assert cluster.pods.change(namespace, crash_loop()) == 1
    cluster.until("gone", lambda: not is_available(cluster, namespace))
    cluster.pods.change(namespace, becomes_ready())
    cluster.until("back", lambda: is_available(cluster, namespace))


def test_logs_come_through_the_api_server(cluster: LiveCluster, namespace: str) -> None:
    cluster.pods.behave(namespace, crash_loop(log="one\ntwo\nthree\n"))
    cluster.api.apply(deployment(namespace))
    cluster.until("a crash", lambda: container_state(cluster, namespace).get("lastState"))
    [pod] = cluster.pods_of(namespace)
    path = cluster.api.path("v1", "Pod", namespace, pod["metadata"]["name"]) + "/log"
    told = cluster.api.request("GET", path, previous="true", tailLines=2)
    assert told == "two\nthree\n"


def test_a_container_that_never_ran_has_no_log(cluster: LiveCluster, namespace: str) -> None:
    cluster.pods.behave(namespace, image_pull_backoff())
    cluster.api.apply(deployment(namespace))
    cluster.until("its state", lambda: container_state(cluster, namespace).get("state"))
    [pod] = cluster.pods_of(namespace)
    path = cluster.api.path("v1", "Pod", namespace, pod["metadata"]["name"]) + "/log"
    with pytest.raises(Refused, match="waiting to start"):
        cluster.api.request("GET", path)


def test_a_job_completes(cluster: LiveCluster, namespace: str) -> None:
    cluster.pods.behave(namespace, completes())
    spec = {"containers": [{"name": "main", "image": IMAGE}], "restartPolicy": "Never"}
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "build", "namespace": namespace},
        "spec": {"template": {"spec": spec}},
    }
    cluster.api.apply(job)
    cluster.until(
        "the Job",
        lambda: (cluster.api.get("batch/v1", "Job", namespace, "build") or {})["status"].get(
            "succeeded"
        ),
    )


def test_a_deleted_deployment_takes_its_pods_along(cluster: LiveCluster, namespace: str) -> None:
    cluster.api.apply(deployment(namespace))
    cluster.until("available", lambda: is_available(cluster, namespace))
    cluster.api.delete("apps/v1", "Deployment", namespace, "wine")
    cluster.until("no pods", lambda: not cluster.pods_of(namespace))


@pytest.mark.parametrize("abruptly", [False, True])
def test_the_cluster_goes_on_after_its_api_server_was_restarted(
    cluster: LiveCluster, namespace: str, abruptly: bool
) -> None:
    cluster.api.apply(deployment(namespace, "before"))
    with cluster.api_server_down(abruptly=abruptly), pytest.raises(urllib3.exceptions.HTTPError):
        cluster.api.list("v1", "Pod", namespace)
    cluster.api.apply(deployment(namespace, "after"))
    for name in ("before", "after"):
        cluster.until(name, lambda name=name: is_available(cluster, namespace, name))


def test_a_limited_user_may_only_what_its_rules_say(cluster: LiveCluster, namespace: str) -> None:
    rules = [{"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get", "list"]}]
    user = KubeApi(cluster.user(namespace, rules))
    assert user.list("apps/v1", "Deployment", namespace) == []
    with pytest.raises(Refused) as refused:
        user.apply(deployment(namespace))
    assert refused.value.status == 403


def test_a_quota_refuses_pods_and_the_deployment_says_so(
    cluster: LiveCluster, namespace: str
) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "small", "namespace": namespace},
        "spec": {"hard": {"pods": "0"}},
    }
    cluster.api.apply(quota)
    cluster.until(
        "the quota counts",
        lambda: (
            (cluster.api.get("v1", "ResourceQuota", namespace, "small") or {})
            .get("status", {})
            .get("hard")
        ),
    )
    cluster.api.apply(deployment(namespace))
    failure = cluster.until("the refusal", lambda: condition(cluster, namespace, "ReplicaFailure"))
    assert "exceeded quota" in failure["message"]


def test_a_namespace_is_fresh_and_goes_away(cluster: LiveCluster) -> None:
    one, two = cluster.namespace(), cluster.namespace()
    assert one != two
    for name in (one, two):
        cluster.discard(name)
    cluster.until("gone", lambda: cluster.api.get("v1", "Namespace", None, one) is None)


def test_waiting_for_what_never_comes_says_what_was_awaited(cluster: LiveCluster) -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError, match="a miracle"):
        cluster.until("a miracle", lambda: None, seconds=0.2)
    assert time.monotonic() - began < 5


def test_the_product_s_client_library_talks_to_it(cluster: LiveCluster, namespace: str) -> None:
    from kubernetes import client

    with cluster.client() as api:
        names = [item.metadata.name for item in client.CoreV1Api(api).list_node().items]
    assert tuple(names) == cluster.nodes


def test_secrets_of_the_cluster_are_for_its_owner_only(cluster: LiveCluster) -> None:
    assert Path(cluster.kubeconfig).stat().st_mode & 0o077 == 0
