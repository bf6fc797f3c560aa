"""KServe's own controller, in its mode Standard, with pods that are real."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from control_plane import ToolsMissing
from endpoints import Built, Endpoint, load
from kfp_bento_command import assert_refused
from kserve_operator import KServe, built_kserve, kserve_running
from real_node import RealCluster

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def kserve(cluster: RealCluster) -> Iterator[KServe]:
    """KServe at work; skips, saying why, where it cannot be had."""
    try:
        built = built_kserve()
    except ToolsMissing as missing:
        pytest.skip(f"no KServe: {missing}")
    with kserve_running(cluster, built) as running:
        yield running


def test_a_release_of_kserve_changes_and_no_request_is_lost(
    cluster: RealCluster, kserve: KServe, namespace: str, images: dict[int, Built]
) -> None:
    endpoint = Endpoint(
        cluster, namespace, target="inference-service", suffix="-predictor", port=80
    )
    endpoint.serve(images[1])
    with load(endpoint.ask) as asked:
        asked.until_answered("1")
        endpoint.serve(images[2])
        asked.until_answered("2")
        endpoint.roll_back()
        asked.until_answered("1")
        nowhere = f"{images[2].image.partition('@')[0]}@sha256:{'0' * 64}"
        failed = endpoint.apply(images[2], "--roll-back-on-failure", image=nowhere)
        assert_refused(failed, "has no image")
        asked.until_answered("1")
