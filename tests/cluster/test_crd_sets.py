"""The custom resource definitions that tests rely on are real ones, and really change."""

from __future__ import annotations

from typing import Any

import pytest
from crd_sets import FAMILIES, YATAI, available
from kube_api import Refused
from live_cluster import LiveCluster


def request_with_models(namespace: str) -> dict[str, Any]:
    """A BentoRequest with a field that only newer generations have."""
    return {
        "apiVersion": "resources.yatai.ai/v1alpha1",
        "kind": "BentoRequest",
        "metadata": {"name": "wine", "namespace": namespace},
        "spec": {"bentoTag": "wine:1", "serviceName": "service:Wine"},
    }


def test_our_own_definitions_are_always_here() -> None:
    assert available("yatai")[0] == "minimal"


def test_a_generation_replaces_the_one_before(cluster: LiveCluster, namespace: str) -> None:
    known = {}
    for generation in reversed(available("yatai")):
        cluster.crds.ensure("yatai", generation)
        try:
            cluster.api.apply(request_with_models(namespace), dry_run=True)
            known[generation] = True
        except Refused as refused:
            assert "serviceName" in str(refused)
            known[generation] = False
    newer = {"1.1.21 and 1.2.28", "newest"}
    assert known == {generation: generation in newer for generation in available("yatai")}


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "yatai"])
def test_the_definitions_of_others_can_be_installed(cluster: LiveCluster, family: str) -> None:
    if not available(family):
        pytest.skip(f"the CRDs of {family} are not in ../shared/crds")
    cluster.crds.ensure(family, "newest")
    groups = {group["name"] for group in cluster.api.request("GET", "/apis")["groups"]}
    expected = {
        "kserve": "serving.kserve.io",
        "gateway-api": "gateway.networking.k8s.io",
        "pipelines": "pipelines.kubeflow.org",
    }
    assert expected[family] in groups


def test_every_set_names_its_files_once() -> None:
    for paths in YATAI.values():
        assert len(set(paths)) == len(paths)
