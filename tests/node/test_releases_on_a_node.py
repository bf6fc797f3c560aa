"""Releases whose pods are real: they answer through their Service, whatever is done to them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from crd_sets import available
from endpoints import DEPLOYMENT, NAME, SMALL, Built, Endpoint, load
from gateway import GatewayController, running
from kfp_bento_command import assert_refused
from real_node import RealCluster

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def first(images: dict[int, Built]) -> Built:
    return images[1]


@pytest.fixture(scope="module")
def second(images: dict[int, Built]) -> Built:
    return images[2]


def restricted(cluster: RealCluster, namespace: str) -> Endpoint:
    """One whose namespace takes nothing but pods without any privilege."""
    label = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.api.merge("v1", "Namespace", None, namespace, {"metadata": {"labels": label}})
    return Endpoint(cluster, namespace)


@pytest.fixture
def endpoint(cluster: RealCluster, namespace: str) -> Endpoint:
    return restricted(cluster, namespace)


@pytest.fixture(scope="module")
def serving(cluster: RealCluster, first: Built) -> Iterator[Endpoint]:
    """One where the first release was found good, and serves again after each test."""
    made = restricted(cluster, cluster.namespace("serving"))
    made.serve(first)
    yield made
    cluster.discard(made.namespace)


def test_a_release_changes_and_goes_back_and_no_request_is_lost(
    serving: Endpoint, second: Built
) -> None:
    with load(serving.ask) as asked:
        asked.until_answered("1")
        serving.serve(second)
        asked.until_answered("2")
        serving.roll_back()
        asked.until_answered("1")
    assert sum(asked.answers.values()) > 100
    assert {*asked.answers} == {"1", "2"}


def test_a_canary_comes_and_becomes_the_release_and_no_request_is_lost(
    cluster: RealCluster, endpoint: Endpoint, first: Built, second: Built
) -> None:
    cluster.crds.ensure("gateway-api", available("gateway-api")[-1])
    routed = ("--set", "route={gateway: public}")
    beside = ("--set", "canary_percent=50", "--set", f"stable_image={first.image}")
    with running(GatewayController(cluster.api, endpoint.namespace)):
        endpoint.serve(first, *routed)
        with load(endpoint.ask_through_the_route) as asked:
            asked.until_answered("1")
            endpoint.serve(second, *routed, *beside)
            asked.until_answered("1")
            asked.until_answered("2")
            both = cluster.api.list(*DEPLOYMENT, endpoint.namespace)
            assert len(both) == 2
            endpoint.serve(second, *routed)
            # Whoever was asked before has answered by then.
            asked.until_answered("2")
            old = asked.answers["1"]
            asked.until_answered("2", 100)
            assert asked.answers["1"] == old
    (left,) = cluster.api.list(*DEPLOYMENT, endpoint.namespace)
    (container,) = left["spec"]["template"]["spec"]["containers"]
    assert (left["metadata"]["name"], container["image"]) == (NAME, second.image)


# -- what the cluster really does with what does not serve ------------------------------------


def test_the_last_good_release_answers_while_its_successor_never_does(
    serving: Endpoint, second: Built
) -> None:
    with load(serving.ask) as asked:
        failed = serving.apply(second, "--env", "FAILS=1", "--roll-back-on-failure")
        assert_refused(failed, "does not serve (CrashLoopBackOff)")
        assert "this model does not load" in failed.stderr, failed.stderr
        asked.until_answered("1")
    assert {*asked.answers} == {"1"}
    assert len(serving.pods()) == 1


@pytest.mark.parametrize(
    ("reason", "told", "given"),
    [
        ("ErrImagePull|ImagePullBackOff", "has no image", {"image": "0" * 64}),
        ("OOMKilled", "raise the limit", {"envs": ("EATS=1",)}),
        ("Evicted", "ephemeral", {"envs": ("FILLS=1",), "limits": {"ephemeral-storage": "64Mi"}}),
        ("Unschedulable", "Insufficient cpu", {"limits": {"cpu": "64"}, "requests": {"cpu": "64"}}),
    ],
)
def test_what_keeps_a_release_from_serving_is_told(
    endpoint: Endpoint, first: Built, reason: str, told: str, given: dict[str, Any]
) -> None:
    image = first.image.partition("@")[0] + "@sha256:" + given["image"] if "image" in given else ""
    resources = {kind: {**SMALL[kind], **given.get(kind, {})} for kind in ("requests", "limits")}
    envs = [word for env in given.get("envs", ()) for word in ("--env", env)]
    failed = endpoint.apply(first, *envs, resources=resources, image=image)
    assert_refused(failed, "does not serve (")
    assert re.search(rf"does not serve \(({reason})\)", failed.stderr), failed.stderr
    assert told in failed.stderr, failed.stderr


def test_a_node_that_is_gone_takes_its_pods_along_and_comes_back_with_them(
    cluster: RealCluster, serving: Endpoint, second: Built
) -> None:
    with cluster.node.away():
        cluster.until("what serves is told to be down", lambda: not serving.is_up(), 300)
        failed = serving.apply(second)
        assert_refused(failed, "does not serve (Unschedulable)")
        assert "untolerated taint" in failed.stderr, failed.stderr
    cluster.wait_for_node()
    serving.serve(second)
    assert serving.ask() == "2"
