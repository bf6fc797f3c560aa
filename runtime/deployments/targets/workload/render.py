"""Plain Kubernetes: a Deployment and its Service, which need no operator.

With it, as asked: a HorizontalPodAutoscaler, a PodDisruptionBudget, a ServiceMonitor, and a
Gateway API HTTPRoute whose weights split requests between two images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.deployments.kube.objects import Manifest
from kfp_bento.runtime.deployments.options.names import deployment_name, kebab
from kfp_bento.runtime.deployments.options.network_policy import policy_manifests
from kfp_bento.runtime.deployments.options.options import without_empty
from kfp_bento.runtime.deployments.options.provenance import check_tag, pod_revision, provenance
from kfp_bento.runtime.deployments.options.quantities import DEFAULT_RESOURCES, pod_resources
from kfp_bento.runtime.deployments.targets.pods import (
    LIFECYCLE,
    POD_SECURITY,
    PORT,
    bento_container,
    check_image,
    check_token,
    pod_spec,
)
from kfp_bento.runtime.deployments.targets.readiness import POD_REVISION
from kfp_bento.runtime.deployments.targets.target import (
    AUTOSCALER,
    BUDGET,
    DEPLOYMENT,
    POLICY,
    SERVICE,
    Canary,
    Kind,
    Target,
)
from kfp_bento.runtime.deployments.targets.workload.autoscaling import autoscaler_spec, budget_spec
from kfp_bento.runtime.deployments.targets.workload.kinds import MONITOR, ROUTE
from kfp_bento.runtime.deployments.targets.workload.options import (
    CANARY_SUFFIX,
    LONGEST_NAME,
    WorkloadOptions,
)
from kfp_bento.runtime.deployments.targets.workload.route import route_spec
from kfp_bento.runtime.deployments.targets.workload.watch import (
    canary_url,
    watched_workload,
    workload_url,
)
from kfp_bento.runtime.errors import InvalidInput

if TYPE_CHECKING:
    from kfp_bento.runtime.deployments.options.bento_facts import BentoFacts

KIND = "workload"
CONTAINER = "bento"
# Of two Deployments in one release, the second is the canary.
COMPONENT_LABEL, CANARY = "app.kubernetes.io/component", "canary"

_SCRAPED = ("prometheus.io/scrape", "prometheus.io/port", "prometheus.io/path")
_PORTS = [{"name": "http", "port": PORT, "protocol": "TCP", "targetPort": "http"}]


@dataclass(frozen=True)
class _Server:
    """What serves one image of a release: all of it, or beside it a canary."""

    release: str
    component: str
    options: WorkloadOptions
    facts: Mapping[str, Any]

    @property
    def name(self) -> str:
        return self.release if self.component == "server" else f"{self.release}{CANARY_SUFFIX}"

    @property
    def selector(self) -> dict[str, str]:
        """What never changes: a Deployment's selector is immutable."""
        return {COMPONENT_LABEL: self.component, **_pods_of(self.release)}

    def object(self, kind: Kind, spec: Mapping[str, Any]) -> Manifest:
        """Give an object with the metadata that all have."""
        options, facts = self.options, self.facts
        metadata = {
            "name": self.name,
            "namespace": options.namespace,
            "labels": {**options.labels, **facts.get("labels", {}), **self.selector},
            "annotations": {**options.annotations, **facts.get("annotations", {})},
        }
        return {
            "apiVersion": kind.api_version,
            "kind": kind.name,
            "metadata": without_empty(metadata),
            "spec": dict(spec),
        }


def workload_manifests(
    image: str, bento: BentoFacts, options: WorkloadOptions
) -> tuple[Manifest, ...]:
    """Give the Deployment of an image, its Service and what else was asked for.

    Raises:
        InvalidInput: An option that cannot be honoured; the message names the field.
    """
    check_image("image", image)
    check_tag(bento)
    check_token(options, bento)
    _check_canary(image, options)
    name = deployment_name(bento.name, options.name, LONGEST_NAME)
    resources = pod_resources("resources", options.resources, DEFAULT_RESOURCES)
    canary = options.canary_percent is not None
    scaling = options.autoscaling
    # What the stable pods are made of must not change when a canary comes or goes.
    server = _Server(name, "server", options, {} if canary else _facts(bento))
    manifests = [
        _deployment(server, options.stable_image or image, resources, scaling.min_replicas),
        _service(server),
    ]
    if not scaling.fixed:
        manifests.append(server.object(AUTOSCALER, autoscaler_spec(name, scaling, resources)))
    if budget := budget_spec(options, server.selector):
        manifests.append(server.object(BUDGET, budget))
    if options.metrics == "service-monitor":
        manifests.append(_service_monitor(server))
    if canary:
        beside = _Server(name, CANARY, options, _facts(bento))
        manifests += [
            _deployment(beside, image, resources, options.canary_replicas),
            _service(beside),
        ]
    metadata = manifests[0]["metadata"]
    manifests += policy_manifests(metadata, _pods_of(name), options.network_policy, (PORT,))
    if options.route:
        manifests.append(
            server.object(ROUTE, route_spec(name, options.route, options.canary_percent))
        )
    return tuple(manifests)


def _pods_of(release: str) -> dict[str, str]:
    """Give the labels of all pods of a release, its canary's too."""
    return {"app.kubernetes.io/instance": release, "app.kubernetes.io/managed-by": "kfp-bento"}


def _check_canary(image: str, options: WorkloadOptions) -> None:
    if options.canary_percent is None:
        if options.stable_image:
            raise InvalidInput(
                "stable_image: without canary_percent it would serve nothing.",
                hint="Set canary_percent, or leave stable_image out.",
            )
    elif options.route is None:
        raise InvalidInput(
            "canary_percent: only an HTTPRoute can split requests by percent.",
            hint="Set route={'gateway': ...}.",
        )
    elif options.stable_image in ("", image):
        raise InvalidInput(
            "stable_image: a canary needs the image that gets the other requests, and not its own.",
            hint="Give the image that serves now, by digest.",
        )
    elif options.route.weights:
        raise InvalidInput(
            "route.weights: canary_percent decides the weights.", hint="Give one of the two."
        )


def _facts(bento: BentoFacts) -> dict[str, Any]:
    return {
        "labels": {
            "app.kubernetes.io/name": kebab(bento.name)[:63].strip("-") or "bento",
            "app.kubernetes.io/version": bento.version,
        },
        "annotations": provenance(bento),
    }


def _deployment(
    server: _Server, image: str, resources: Mapping[str, Any], replicas: int
) -> Manifest:
    options = server.options
    strategy: dict[str, Any] = {"type": options.strategy}
    if options.strategy == "RollingUpdate":
        strategy["rollingUpdate"] = {"maxSurge": 1, "maxUnavailable": 0}
    spec: dict[str, Any] = {
        "selector": {"matchLabels": server.selector},
        "strategy": strategy,
        "progressDeadlineSeconds": options.progress_seconds,
        "revisionHistoryLimit": 3,
        "template": _template(server, image, resources, replicas),
    }
    if server.component == CANARY or options.autoscaling.fixed:
        # Where an autoscaler owns the number, naming it would take it back at each apply.
        spec["replicas"] = replicas
    return server.object(DEPLOYMENT, spec)


def _template(
    server: _Server, image: str, resources: Mapping[str, Any], replicas: int
) -> dict[str, Any]:
    options, selector = server.options, server.selector
    container = bento_container(CONTAINER, image, options, resources=resources, port_name="http")
    container["lifecycle"] = dict(LIFECYCLE)
    spec = {**pod_spec(container, options, selector), "securityContext": dict(POD_SECURITY)}
    if replicas > 1 and not options.topology_spread:
        spec["topologySpreadConstraints"] = [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": selector},
            }
        ]
    extra = options.extra_pod_metadata
    labels = {**options.labels, **extra.get("labels", {}), **selector}
    scraped = options.metrics == "annotations"
    scrape = zip(_SCRAPED, ("true", str(PORT), "/metrics"), strict=True) if scraped else ()
    annotations = {**dict(scrape), **extra.get("annotations", {})}
    revision = pod_revision(spec, labels, annotations)
    return {
        "metadata": {"labels": labels, "annotations": {**annotations, POD_REVISION: revision}},
        "spec": spec,
    }


def _service(server: _Server) -> Manifest:
    spec = {
        "type": "ClusterIP",
        "selector": server.selector,
        "ports": [dict(port) for port in _PORTS],
    }
    return server.object(SERVICE, spec)


def _service_monitor(server: _Server) -> Manifest:
    given = server.options.service_monitor
    interval = given.interval if given else ""
    spec = {
        # The canary's Service too: Prometheus tells them apart by the Service's name.
        "selector": {"matchLabels": _pods_of(server.release)},
        "endpoints": [without_empty({"port": "http", "path": "/metrics", "interval": interval})],
    }
    monitor = server.object(MONITOR, spec)
    metadata = monitor["metadata"]
    labels = {**(given.labels if given else {}), **metadata["labels"]}
    return {**monitor, "metadata": {**metadata, "labels": labels}}


def _names(release: str, live: Manifest) -> tuple[str, ...]:
    twice = live["kind"] in (DEPLOYMENT.name, SERVICE.name)
    return (release, f"{release}{CANARY_SUFFIX}") if twice else (release,)


WORKLOAD = Target(
    kind=KIND,
    options_type=WorkloadOptions,
    renderer=workload_manifests,
    kinds=(DEPLOYMENT, SERVICE, AUTOSCALER, BUDGET, MONITOR, ROUTE, POLICY),
    address=workload_url,
    watcher=watched_workload,
    names=_names,
    traffic=(ROUTE,),
    installs={
        "gateway.networking.k8s.io": "Install the Gateway API, or leave the route out.",
        "monitoring.coreos.com": "Install the Prometheus operator, or use annotations instead.",
    },
    canary=Canary(
        lambda percent, stable: {"canary_percent": percent, "stable_image": stable}, canary_url
    ),
)
