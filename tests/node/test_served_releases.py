"""Releases whose pods are real: they answer through their Service, whatever is done to them."""

from __future__ import annotations

import pytest
from endpoints import Built, Endpoint, load
from real_node import RealCluster

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def first(images: dict[int, Built]) -> Built:
    return images[1]


@pytest.fixture(scope="module")
def second(images: dict[int, Built]) -> Built:
    return images[2]


@pytest.fixture
def endpoint(cluster: RealCluster, namespace: str) -> Endpoint:
    """One whose namespace takes nothing but pods without any privilege."""
    label = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.api.merge("v1", "Namespace", None, namespace, {"metadata": {"labels": label}})
    return Endpoint(cluster, namespace)


def test_a_release_changes_and_goes_back_and_no_request_is_lost(
    endpoint: Endpoint, first: Built, second: Built
) -> None:
    endpoint.serve(first)
    with load(endpoint.ask) as asked:
        asked.until_answered("1")
        endpoint.serve(second)
        asked.until_answered("2")
        endpoint.roll_back()
        asked.until_answered("1")
    assert sum(asked.answers.values()) > 100
    assert {*asked.answers} == {"1", "2"}
