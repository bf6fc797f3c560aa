"""The HTTPRoute of a workload, which splits requests between its image and a canary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kfp_bento.runtime.deployments.options.options import without_empty
from kfp_bento.runtime.deployments.targets.pods import PORT
from kfp_bento.runtime.deployments.targets.workload.options import CANARY_SUFFIX, Route
from kfp_bento.runtime.errors import InvalidInput


def route_spec(name: str, route: Route, canary_percent: int | None) -> dict[str, Any]:
    """Give the spec of the HTTPRoute of a release.

    Args:
        name: Name of the release.
        route: What the user chose.
        canary_percent: Share of requests that the canary gets; None without one.

    Raises:
        InvalidInput: The weights leave the release out.
    """
    rule: dict[str, Any] = {
        "matches": [{"path": {"type": "PathPrefix", "value": route.path}}],
        "backendRefs": [
            {"name": service, "port": PORT, **({} if weight is None else {"weight": weight})}
            for service, weight in _weights(name, route, canary_percent).items()
        ],
    }
    if route.timeout:
        rule["timeouts"] = {"request": route.timeout}
    namespace, _, gateway = route.gateway.rpartition("/")
    parent = {"name": gateway, "namespace": namespace, "sectionName": route.section}
    spec = {"parentRefs": [without_empty(parent)], "hostnames": route.hostnames, "rules": [rule]}
    return without_empty(spec)


def _weights(name: str, route: Route, canary_percent: int | None) -> Mapping[str, int | None]:
    if canary_percent is not None:
        return {name: 100 - canary_percent, f"{name}{CANARY_SUFFIX}": canary_percent}
    if route.weights and name not in route.weights:
        raise InvalidInput(
            f"route.weights: {name!r}, which the route belongs to, has no weight.",
            hint="Give it one; 0 sends it nothing.",
        )
    return route.weights or {name: None}
