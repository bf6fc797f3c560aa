"""Whatever a target renders, a real API server takes with strict validation, and keeps."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

import pytest
from crd_sets import FAMILIES, available
from live_cluster import LiveCluster
from sample_targets import RENDERED

from kfp_bento.runtime.deployments import TARGETS, Release

NEEDED = {
    "inference-service": ("kserve",),
    "workload": ("gateway-api", "monitoring"),
}
# Where built-in kinds hold a quantity, which the API server writes in its own way: 0.5 as 500m.
QUANTITY = re.compile(
    r".*\.(requests|limits)\.(cpu|memory|ephemeral-storage|[^.]*\..*)"
    r"|.*\.(sizeLimit|divisor|averageValue|target\.value)"
)
UNITS = {"m": Decimal("0.001"), "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9)}
UNITS |= {"Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30), "": Decimal(1)}


def cases(*targets: str) -> Any:
    chosen = {name: case for name, case in RENDERED.items() if case[0] in targets}
    return pytest.mark.parametrize(
        ("target", "image", "bento", "options"), chosen.values(), ids=list(chosen)
    )


def each_set(target: str) -> Any:
    """Each set of the families that a target needs, one after another."""
    sets = [(family, name) for family in NEEDED[target] for name in available(family)]
    return pytest.mark.parametrize(("family", "name"), sets, ids=[" ".join(one) for one in sets])


def lost(sent: Any, kept: Any, path: str = "") -> list[str]:
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
    if kept is not None and QUANTITY.fullmatch(path):
        return [] if amount(sent) == amount(kept) else [path]
    return [] if sent == kept else [path]


def amount(quantity: Any) -> Decimal:
    number, unit = re.fullmatch(r"([0-9.]+)([a-zA-Z]*)", str(quantity)).groups()  # type: ignore[union-attr]
    return Decimal(number) * UNITS[unit]


def check_kept(cluster: LiveCluster, release: Release) -> None:
    for manifest in release.manifests:
        cluster.api.apply(dict(manifest), dry_run=True)
        first = cluster.api.apply(dict(manifest))
        assert lost(manifest, first) == []
        again = cluster.api.apply(dict(manifest))
        assert again["metadata"].get("generation") == first["metadata"].get("generation")


def test_a_loss_is_seen_and_another_spelling_of_a_quantity_is_none() -> None:
    sent = {"spec": {"resources": {"limits": {"cpu": "0.5", "memory": "1Gi"}}, "ports": [80]}}
    kept = {"spec": {"resources": {"limits": {"cpu": "500m", "memory": "2Gi"}}, "ports": []}}
    assert lost(sent, kept) == [".spec.resources.limits.memory", ".spec.ports"]
    assert lost({"spec": {"a": 1, "env": "0.5"}}, {"spec": {"env": "500m"}}) == [
        ".spec.a",
        ".spec.env",
    ]


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
    check_kept(cluster, TARGETS[target].render(image, bento, {**options, "namespace": namespace}))


@cases("inference-service")
@each_set("inference-service")
def test_kserve_takes_it(
    cluster: LiveCluster,
    namespace: str,
    family: str,
    name: str,
    target: str,
    image: str,
    bento: Any,
    options: Any,
) -> None:
    cluster.crds.ensure(family, name)
    check_kept(cluster, TARGETS[target].render(image, bento, {**options, "namespace": namespace}))


@cases("workload")
@each_set("workload")
def test_kubernetes_the_gateway_api_and_the_prometheus_operator_take_it(
    cluster: LiveCluster,
    namespace: str,
    family: str,
    name: str,
    target: str,
    image: str,
    bento: Any,
    options: Any,
) -> None:
    for one in NEEDED[target]:
        cluster.crds.ensure(one, name if one == family else available(one)[-1])
    check_kept(cluster, TARGETS[target].render(image, bento, {**options, "namespace": namespace}))


def test_every_target_has_its_families() -> None:
    others = {case[0] for case in RENDERED.values()} - {"bento-deployment", "bento-request"}
    assert others == set(NEEDED)
    assert {family for one in NEEDED.values() for family in one} <= set(FAMILIES)
