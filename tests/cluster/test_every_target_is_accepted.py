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


def lost(sent: Any, kept: Any, path: str = "spec") -> list[str]:
    """Places that the API server did not keep; it may add defaults."""
    if isinstance(sent, dict) and isinstance(kept, dict):
        return [
            place
            for key, value in sent.items()
            for place in lost(value, kept.get(key), f"{path}.{key}")
        ]
    if isinstance(sent, list) and isinstance(kept, list) and len(sent) == len(kept):
        return [
            place
            for index, (one, other) in enumerate(zip(sent, kept, strict=True))
            for place in lost(one, other, f"{path}[{index}]")
        ]
    return [] if sent == kept else [path]


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
        assert lost(manifest["spec"], cluster.api.apply(manifest)["spec"]) == []


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
        first = cluster.api.apply(manifest)["metadata"].get("generation")
        assert cluster.api.apply(manifest)["metadata"].get("generation") == first
