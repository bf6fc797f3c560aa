"""Requests go to pods that serve: routes, canaries, and who says how many pods there are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gateway import GatewayController
from kserve_controller import KServeController
from live_cluster import LiveCluster
from looking import looking
from played_controller import running
from pod_behaviour import becomes_ready, crash_loop
from releases import roll_out
from sample_bentos import make_bento
from workload_releases import FIRST, SECOND

from kfp_bento.runtime.deployments import (
    TARGETS,
    Release,
    Rollout,
    Waiting,
    delete_release,
    diff_release,
    roll_back,
)
from kfp_bento.runtime.errors import DeploymentError

DEPLOYMENT = ("apps/v1", "Deployment")
ROUTE = ("gateway.networking.k8s.io/v1", "HTTPRoute")
SCALER = ("autoscaling/v2", "HorizontalPodAutoscaler")
ROUTED = {"route": {"gateway": "public"}}
CANARY = {**ROUTED, "canary_percent": 10, "stable_image": FIRST}
SCALED = {"autoscaling": {"minReplicas": 2, "maxReplicas": 6}}


@pytest.fixture
def gateway(
    cluster: LiveCluster, gateway_api: str, namespace: str, kubeconfig: Path
) -> Iterator[GatewayController]:
    with running(GatewayController(cluster.api, namespace)) as played:
        yield played


def made(namespace: str, image: str, target: str = "workload", **options: Any) -> Release:
    version = {FIRST: "v1", SECOND: "v2"}[image]
    given = {"namespace": namespace, **options}
    return TARGETS[target].render(image, make_bento("wine", version), given)


def out(namespace: str, image: str = FIRST, target: str = "workload", **options: Any) -> Rollout:
    knobs = ("seconds", "roll_back_on_failure", "unwatched")
    waiting = {name: options.pop(name) for name in knobs if name in options}
    return roll_out(made(namespace, image, target, **options), **waiting)


def names(cluster: LiveCluster, namespace: str, kind: tuple[str, str] = DEPLOYMENT) -> list[str]:
    return sorted(one["metadata"]["name"] for one in cluster.api.list(*kind, namespace))


def weights(cluster: LiveCluster, namespace: str) -> dict[str, int | None]:
    live = cluster.api.get(*ROUTE, namespace, "wine")
    assert live is not None
    backends = live["spec"]["rules"][0]["backendRefs"]
    return {backend["name"]: backend.get("weight") for backend in backends}


def replicas(cluster: LiveCluster, namespace: str) -> int:
    live = cluster.api.get(*DEPLOYMENT, namespace, "wine")
    assert live is not None
    return int(live["spec"]["replicas"])


def scale(cluster: LiveCluster, namespace: str, number: int, manager: str) -> None:
    """As an autoscaler does it, or a person: through the subresource."""
    change = {"spec": {"replicas": number}}
    place = (*DEPLOYMENT, namespace, "wine")
    cluster.api.merge(*place, change, subresource="scale", manager=manager)


# -- routes and canaries of a workload -------------------------------------------------------


def test_a_canary_gets_requests_once_it_serves_and_none_when_it_is_gone(
    cluster: LiveCluster, gateway: GatewayController, namespace: str
) -> None:
    assert out(namespace, **ROUTED).verdict.ready
    assert weights(cluster, namespace) == {"wine": 1}
    cluster.pods.behave(namespace, becomes_ready(after=3), image="b2b2")
    seen: list[bool] = []
    with looking(lambda: seen.append(_canary_gets_requests_before_it_serves(cluster, namespace))):
        canary = out(namespace, SECOND, **CANARY)
    assert canary.verdict.ready, canary.verdict
    assert seen and not any(seen)
    assert weights(cluster, namespace) == {"wine": 90, "wine-canary": 10}
    promoted = out(namespace, SECOND, **ROUTED)
    assert promoted.verdict.ready, promoted.verdict
    assert weights(cluster, namespace) == {"wine": 1}
    assert names(cluster, namespace) == ["wine"]
    removed = {f"{ref.kind}/{ref.name}" for ref in promoted.removed}
    assert removed == {"Deployment/wine-canary", "Service/wine-canary"}


def test_a_canary_that_fails_never_gets_a_request(
    cluster: LiveCluster, gateway: GatewayController, namespace: str
) -> None:
    stable = out(namespace, **ROUTED)
    cluster.pods.behave(namespace, crash_loop(), image="b2b2")
    failed = out(namespace, SECOND, roll_back_on_failure=True, **CANARY)
    assert failed.verdict.reason == "CrashLoopBackOff"
    assert weights(cluster, namespace) == {"wine": 1}
    assert failed.rolled_back_to == stable.revision
    assert names(cluster, namespace) == ["wine"]


def test_a_canary_that_served_is_rolled_back_to_the_stable_release(
    cluster: LiveCluster, gateway: GatewayController, namespace: str
) -> None:
    out(namespace, **ROUTED)
    out(namespace, SECOND, **CANARY)
    done = roll_back("wine", target="workload", namespace=namespace, waiting=Waiting(60))
    assert done.verdict.ready, done.verdict
    assert weights(cluster, namespace) == {"wine": 1}
    assert names(cluster, namespace) == ["wine"]
    gone = delete_release("wine", target="workload", namespace=namespace)
    assert {ref.kind for ref in gone.removed} == {"Deployment", "Service", "HTTPRoute"}


def test_a_gateway_that_takes_no_route_is_told(
    cluster: LiveCluster, gateway: GatewayController, namespace: str
) -> None:
    gateway.asleep = True
    ignored = out(namespace, unwatched=3, **ROUTED)
    assert ignored.verdict.reason == "NotWatched", ignored.verdict
    gateway.asleep, gateway.refusal = False, "NotAllowedByListeners"
    refused = out(namespace, **ROUTED)
    assert refused.verdict.reason == "NotAllowedByListeners", refused.verdict


def test_a_route_that_the_server_refuses_changes_nothing(
    cluster: LiveCluster, gateway: GatewayController, namespace: str
) -> None:
    release = made(namespace, FIRST, **ROUTED)
    release.manifests[-1]["spec"]["rules"][0]["backendRefs"][0]["port"] = 0
    with pytest.raises(DeploymentError, match="HTTPRoute"):
        roll_out(release)
    assert names(cluster, namespace) == []


# -- a canary of KServe ----------------------------------------------------------------------


def test_a_canary_of_an_inference_service_comes_and_is_promoted(
    cluster: LiveCluster, kserve: str, namespace: str, kubeconfig: Path
) -> None:
    target, knative = "inference-service", {"deployment_mode": "Knative"}
    with running(KServeController(cluster.api, namespace)):
        assert out(namespace, FIRST, target, **knative).verdict.ready
        cluster.pods.behave(namespace, becomes_ready(after=2), image="b2b2")
        canary = out(namespace, SECOND, target, canary_percent=20, **knative)
        assert canary.verdict.ready, canary.verdict
        images = {
            one["spec"]["template"]["spec"]["containers"][0]["image"]
            for one in cluster.api.list(*DEPLOYMENT, namespace)
        }
        assert images == {FIRST, SECOND}
        promoted = out(namespace, SECOND, target, **knative)
        assert promoted.verdict.ready, promoted.verdict
        back = roll_back("wine", target=target, namespace=namespace, waiting=Waiting(60))
        assert back.verdict.ready, back.verdict


# -- how many pods ---------------------------------------------------------------------------


def test_an_autoscaler_takes_over_the_pods_that_run(
    cluster: LiveCluster, namespace: str, kubeconfig: Path
) -> None:
    out(namespace, autoscaling={"minReplicas": 3})
    seen: list[int] = []
    with looking(lambda: seen.append(replicas(cluster, namespace))):
        assert out(namespace, **SCALED).verdict.ready
    assert set(seen) == {3}
    scale(cluster, namespace, 5, "kube-controller-manager")
    assert not out(namespace, **SCALED).changed
    assert replicas(cluster, namespace) == 5


def test_a_fixed_number_takes_over_from_the_release_s_own_autoscaler(
    cluster: LiveCluster, namespace: str, kubeconfig: Path
) -> None:
    out(namespace, **SCALED)
    scale(cluster, namespace, 4, "kube-controller-manager")
    fixed = made(namespace, FIRST, autoscaling={"minReplicas": 3})
    assert "replicas: 3" in diff_release(fixed).text
    done = out(namespace, autoscaling={"minReplicas": 3})
    assert done.verdict.ready, done.verdict
    assert replicas(cluster, namespace) == 3
    assert names(cluster, namespace, SCALER) == []
    assert not out(namespace, autoscaling={"minReplicas": 3}).changed
    # And back again: the release owned the number alone.
    assert out(namespace, **SCALED).verdict.ready
    assert replicas(cluster, namespace) == 3


def test_a_number_that_a_person_has_set_is_a_conflict(
    cluster: LiveCluster, namespace: str, kubeconfig: Path
) -> None:
    out(namespace, autoscaling={"minReplicas": 2})
    scale(cluster, namespace, 4, "kubectl")
    with pytest.raises(DeploymentError, match=r"kubectl.* owns \.spec\.replicas"):
        out(namespace, SECOND, autoscaling={"minReplicas": 2})
    assert replicas(cluster, namespace) == 4


def test_an_autoscaler_of_somebody_else_is_left_alone(
    cluster: LiveCluster, namespace: str, kubeconfig: Path
) -> None:
    out(namespace)
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "wine"}
    metadata = {"name": "theirs", "namespace": namespace}
    spec = {"scaleTargetRef": target, "minReplicas": 4, "maxReplicas": 4}
    cluster.api.apply(
        {"apiVersion": SCALER[0], "kind": SCALER[1], "metadata": metadata, "spec": spec}
    )
    cluster.until("their autoscaler acts", lambda: replicas(cluster, namespace) == 4)
    with pytest.raises(DeploymentError, match=r"kube-controller-manager.* owns \.spec\.replicas"):
        out(namespace, SECOND)
    assert names(cluster, namespace, SCALER) == ["theirs"]


def _canary_gets_requests_before_it_serves(cluster: LiveCluster, namespace: str) -> bool:
    routed = "wine-canary" in weights(cluster, namespace)
    live = cluster.api.get(*DEPLOYMENT, namespace, "wine-canary") or {}
    return routed and not (live.get("status") or {}).get("availableReplicas")
