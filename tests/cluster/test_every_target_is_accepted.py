"""Whatever a target renders, a real API server takes with strict validation, and keeps."""

from __future__ import annotations

from typing import Any

import pytest
from crd_sets import available
from live_cluster import LiveCluster
from sample_targets import RENDERED

from kfp_bento.runtime.deployments import TARGETS

FAMILIES = {
    "InferenceService": "kserve",
    "HTTPRoute": "gateway-api",
}


def cases(*targets: str) -> Any:
    chosen = {name: case for name, case in RENDERED.items() if case[0] in targets}
    return pytest.mark.parametrize(
        ("target", "image", "bento", "options"), chosen.values(), ids=list(chosen)
    )


@cases("bento-deployment", "bento-request")
def test_every_generation_of_yatai_takes_it(
    yatai_generation: str,
    cluster: LiveCluster,
    namespace: str,
    target: str,
    image: str,
    bento: Any,
    options: Any,
) -> None:
    if yatai_generation == "minimal":
        pytest.skip("our own CRDs hold less than these options ask for")
    for manifest in TARGETS[target].render(image, bento, {**options, "namespace": namespace}):
        cluster.api.apply(manifest, dry_run=True)
        assert cluster.api.apply(manifest)["spec"] == manifest["spec"]


@cases("workload", "inference-service")
def test_kubernetes_kserve_and_the_gateway_api_take_it(
    cluster: LiveCluster, namespace: str, target: str, image: str, bento: Any, options: Any
) -> None:
    for manifest in TARGETS[target].render(image, bento, {**options, "namespace": namespace}):
        if manifest["kind"] == "ServiceMonitor":
            continue  # no CRD of the Prometheus operator is here
        if family := FAMILIES.get(manifest["kind"]):
            if not available(family):
                pytest.skip(f"the CRDs of {family} are not here")
            cluster.crds.ensure(family, available(family)[-1])
        cluster.api.apply(manifest, dry_run=True)
        first = cluster.api.apply(manifest)["metadata"]
        assert cluster.api.apply(manifest)["metadata"]["generation"] == first["generation"]
