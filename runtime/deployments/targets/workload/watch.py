"""How a plain Deployment is seen while it is rolled out, with the Gateway's part of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kfp_bento.runtime.deployments.kube.objects import ObjectRef
from kfp_bento.runtime.deployments.targets.readiness import (
    Observation,
    Problem,
    Watched,
    WatchedDeployment,
    pod_revision_of,
)
from kfp_bento.runtime.deployments.targets.workload.options import CANARY_SUFFIX

# Seconds that a Gateway may need to see the backends of a route.
_REFUSED = 3.0


def workload_url(
    manifests: Sequence[Mapping[str, Any]], live: Mapping[str, Any] | None = None
) -> str:
    """Give the URL of the release's own Service inside the cluster; empty without one."""
    del live
    return _service_url(manifests, _primary_of(manifests)["metadata"]["name"])


def canary_url(manifests: Sequence[Mapping[str, Any]]) -> str:
    """Give the URL of the canary's own Service inside the cluster; empty without a canary."""
    return _service_url(manifests, _primary_of(manifests)["metadata"]["name"] + CANARY_SUFFIX)


def _service_url(manifests: Sequence[Mapping[str, Any]], name: str) -> str:
    for manifest in manifests:
        metadata = manifest["metadata"]
        if manifest["kind"] == "Service" and metadata["name"] == name:
            port = manifest["spec"]["ports"][0]["port"]
            return f"http://{metadata['name']}.{metadata['namespace']}.svc:{port}"
    return ""


def watched_workload(manifests: Sequence[Mapping[str, Any]]) -> Watched:
    """Describe the Deployments among the manifests; a canary is a second one."""
    primary = _primary_of(manifests)
    others = [one for one in manifests if one["kind"] == "Deployment" and one != primary]
    deployments = [primary, *others]
    selectors = [dict(entry["spec"]["selector"]["matchLabels"]) for entry in deployments]
    shared = {
        key: value
        for key, value in selectors[0].items()
        if all(selector.get(key) == value for selector in selectors)
    }
    lowest = {
        one["spec"]["scaleTargetRef"]["name"]: int(one["spec"].get("minReplicas") or 1)
        for one in manifests
        if one["kind"] == "HorizontalPodAutoscaler"
    }
    routes = [manifest for manifest in manifests if manifest["kind"] == "HTTPRoute"]
    return Watched(
        ObjectRef.of(deployments[0]),
        deployments=tuple(_deployment(entry, lowest) for entry in deployments),
        pods=",".join(f"{key}={value}" for key, value in sorted(shared.items())),
        routes=tuple(ObjectRef.of(route) for route in routes),
        url=workload_url(manifests),
        problems=_problems,
    )


def _primary_of(manifests: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    return next(one for one in manifests if one["kind"] == "Deployment")


def _deployment(entry: Mapping[str, Any], lowest: Mapping[str, int]) -> WatchedDeployment:
    name = entry["metadata"]["name"]
    template = entry["spec"]["template"]
    container = template["spec"]["containers"][0]
    return WatchedDeployment(
        name,
        image=container["image"],
        container=container["name"],
        template=pod_revision_of(template.get("metadata")),
        minimum=lowest.get(name, int(entry["spec"].get("replicas", 1))),
    )


def _problems(watched: Watched, look: Observation) -> Iterator[Problem]:
    for route in look.snapshot.routes:
        name = route["metadata"]["name"]
        parents = (route.get("status") or {}).get("parents") or []
        if not parents:
            yield Problem(
                "NotWatched",
                f"No Gateway controller has taken HTTPRoute {name}: the Gateway that it names is "
                "not there, or lets no route of this namespace in",
                look.unwatched_seconds,
            )
        for parent in parents:
            yield from _refusals(name, int(route["metadata"].get("generation") or 0), parent)


def _refusals(name: str, generation: int, parent: Mapping[str, Any]) -> Iterator[Problem]:
    for one in parent.get("conditions") or []:
        refused = one.get("type") in ("Accepted", "ResolvedRefs") and one.get("status") == "False"
        if refused and int(one.get("observedGeneration") or 0) >= generation:
            reason = str(one.get("reason") or one["type"])
            told = one.get("message") or "no message"
            yield Problem(reason, f"The Gateway refuses HTTPRoute {name}: {told}", _REFUSED)
