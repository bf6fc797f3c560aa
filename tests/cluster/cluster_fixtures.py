"""What tests on a cluster share, whether its nodes only tell or run what they are told."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from live_cluster import Cluster


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A fresh namespace, deleted afterwards."""
    name = cluster.namespace()
    yield name
    cluster.discard(name)
