"""The custom resource definitions that tests rely on are real ones, and really change."""

from __future__ import annotations

from typing import Any

import pytest
from crd_sets import FAMILIES, available
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


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "pipelines"])
def test_our_own_definitions_are_always_here(family: str) -> None:
    assert available(family)[0] == "minimal"


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


@pytest.mark.parametrize(
    ("family", "name"),
    [(family, name) for family in FAMILIES if family != "yatai" for name in available(family)],
)
def test_the_definitions_of_others_can_be_installed(
    cluster: LiveCluster, family: str, name: str
) -> None:
    cluster.crds.ensure(family, name)
    groups = {group["name"] for group in cluster.api.request("GET", "/apis")["groups"]}
    expected = {
        "kserve": "serving.kserve.io",
        "gateway-api": "gateway.networking.k8s.io",
        "monitoring": "monitoring.coreos.com",
        "pipelines": "pipelines.kubeflow.org",
    }
    assert expected[family] in groups


OWN_KINDS = [
    ("kserve", "serving.kserve.io/v1beta1", "InferenceService", {"predictor": {"odd": 1}}),
    ("gateway-api", "gateway.networking.k8s.io/v1", "HTTPRoute", {"odd": 1}),
    ("monitoring", "monitoring.coreos.com/v1", "ServiceMonitor", {"odd": 1}),
]


@pytest.mark.parametrize(("family", "version", "kind", "spec"), OWN_KINDS)
def test_our_own_definitions_refuse_unknown_fields(
    cluster: LiveCluster, namespace: str, family: str, version: str, kind: str, spec: Any
) -> None:
    cluster.crds.ensure(family, "minimal")
    metadata = {"name": "wine", "namespace": namespace}
    with pytest.raises(Refused, match=r'field not declared in schema|unknown field "spec'):
        cluster.api.apply(
            {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}, dry_run=True
        )


def test_every_set_names_its_files_once() -> None:
    for paths in [paths for sets in FAMILIES.values() for paths in sets.values()]:
        assert len(set(paths)) == len(paths)
