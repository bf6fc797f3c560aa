"""Plain Kubernetes: a Deployment and its Service, which need no operator.

With it, as asked: a HorizontalPodAutoscaler, a PodDisruptionBudget, a ServiceMonitor, and a
Gateway API HTTPRoute whose weights split requests between two images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.deployments.kube.cluster import Manifest
from kfp_bento.runtime.deployments.kube.shapes import settled
from kfp_bento.runtime.deployments.options.names import (
    deployment_name,
    deployment_name_problem,
    host_problem,
    kebab,
    namespace_problem,
    resource_name_problem,
)
from kfp_bento.runtime.deployments.options.options import (
    Object,
    choice,
    listing,
    mapping,
    text,
    whole_number,
    without_empty,
)
from kfp_bento.runtime.deployments.options.pod_settings import (
    NO_OPERATOR,
    POD_ANNOTATIONS,
    label_settings,
    metadata_annotations,
    pod_metadata,
)
from kfp_bento.runtime.deployments.options.pods import (
    POD_SECURITY,
    PORT,
    PodOptions,
    bento_container,
    check_image,
    check_place,
    check_token,
    pod_spec,
)
from kfp_bento.runtime.deployments.options.provenance import check_tag, pod_revision, provenance
from kfp_bento.runtime.deployments.options.quantities import CONTROLLER_DEFAULTS, pod_resources
from kfp_bento.runtime.deployments.targets.network_policy import (
    check_who_has_to_get_in,
    policy_manifests,
)
from kfp_bento.runtime.deployments.targets.readiness import POD_REVISION
from kfp_bento.runtime.deployments.targets.target import (
    AUTOSCALER,
    BUDGET,
    DEPLOYMENT,
    MONITOR,
    POLICY,
    ROUTE,
    SERVICE,
    Target,
)
from kfp_bento.runtime.deployments.targets.workload.shapes import (
    AUTOSCALER_METRICS,
    BEHAVIOR,
    BUDGET_SHAPE,
    CANARY,
    CANARY_SUFFIX,
    CONTAINER,
    LIFECYCLE,
    RESERVED_LABELS,
    SCRAPED,
    SERVICE_MONITOR,
    SERVICE_PORT,
    STRATEGIES,
    path_problem,
    pods_of,
    selector_of,
)
from kfp_bento.runtime.deployments.targets.workload.watch import watched_workload, workload_url
from kfp_bento.runtime.errors import InvalidInput

if TYPE_CHECKING:
    from kfp_bento.runtime.deployments.options.bento_facts import BentoFacts

KIND = "workload"

_METRICS = ("annotations", "service-monitor", "none")


@dataclass(frozen=True, kw_only=True)
class WorkloadOptions(PodOptions):
    """How an image becomes a Deployment.

    Attributes:
        autoscaling: `minReplicas`, `maxReplicas`, `metrics` and `behavior` as autoscaling/v2 has
            them; one replica when None, no autoscaler where both are equal.
        strategy: RollingUpdate (no pod goes before its successor is ready) or Recreate.
        disruption_budget: `minAvailable` or `maxUnavailable`; where two or more replicas are
            promised one may be away, otherwise there is no budget.
        metrics: annotations (prometheus.io/...), service-monitor or none.
        service_monitor: `labels` by which a Prometheus finds it, `interval`.
        route: An HTTPRoute: `gateway` ("name" or "namespace/name"), and optionally `section`,
            `hostnames`, `path`, `timeout` ("30s") and `weights` (service name to percent, for
            releases of their own that share the route).
        canary_percent: Share of requests that `image` gets; the rest stays with `stable_image`.
        stable_image: The image that serves now, by digest.
        canary_replicas: Pods of the canary, which no autoscaler touches.
        progress_seconds: Longest standstill of a rollout; more than `startup_seconds`.
    """

    strategy: str = "RollingUpdate"
    disruption_budget: Object | None = None
    metrics: str = "annotations"
    service_monitor: Object | None = None
    route: Object | None = None
    canary_percent: int | None = None
    stable_image: str = ""
    canary_replicas: int = 1
    progress_seconds: int = 600


@dataclass(frozen=True)
class _Scaling:
    """How many pods: from, to, by which metrics."""

    lowest: int
    highest: int
    metrics: list[dict[str, Any]]
    behavior: dict[str, Any]


def workload_manifests(
    image: str, bento: BentoFacts, options: WorkloadOptions
) -> tuple[Manifest, ...]:
    """Give the Deployment of an image, its Service and what else was asked for.

    Raises:
        InvalidInput: An option that cannot be honoured; the message names the field.
    """
    check_image("image", image)
    check_place(options)
    check_tag(bento)
    check_token(options, bento)
    _check_canary(image, options)
    if options.route:
        check_who_has_to_get_in(options.network_policy, "route", "the Gateway")
    if options.metrics == "service-monitor":
        check_who_has_to_get_in(options.network_policy, "metrics='service-monitor'", "Prometheus")
    choice("strategy", options.strategy, STRATEGIES)
    choice("metrics", options.metrics, _METRICS)
    name = deployment_name(bento.name, options.name)
    resources = pod_resources("resources", options.resources, CONTROLLER_DEFAULTS)
    scaling = _scaling(options, resources)
    canary = options.canary_percent is not None
    stable = options.stable_image if canary else image
    # What the stable pods are made of must not change when a canary comes or goes.
    facts = {} if canary else _facts(bento)
    manifests = [
        _deployment(name, "server", stable, options, resources, scaling, facts),
        _service(name, name, "server", options, facts),
        *_autoscaler(name, options, scaling, facts),
        *_budget(name, options, scaling, facts),
        *_service_monitor(name, options, facts),
    ]
    if canary:
        one = _Scaling(options.canary_replicas, options.canary_replicas, [], {})
        beside = f"{name}{CANARY_SUFFIX}"
        manifests += [
            _deployment(name, CANARY, image, options, resources, one, _facts(bento)),
            _service(beside, name, CANARY, options, _facts(bento)),
        ]
    manifests += policy_manifests(
        _metadata(name, name, "server", options, facts),
        pods_of(name),
        options.network_policy,
        (PORT,),
    )
    return (*manifests, *_route(name, options, facts))


def _check_canary(image: str, options: WorkloadOptions) -> None:
    if options.canary_percent is None:
        if options.stable_image:
            raise InvalidInput(
                "stable_image: without canary_percent it would serve nothing.",
                hint="Set canary_percent, or leave stable_image out.",
            )
        return
    whole_number("canary_percent", options.canary_percent, 0, 100)
    whole_number("canary_replicas", options.canary_replicas, 1)
    if not options.route:
        raise InvalidInput(
            "canary_percent: only an HTTPRoute can split requests by percent.",
            hint="Set route={'gateway': ...}.",
        )
    if not options.stable_image:
        raise InvalidInput(
            "stable_image: a canary needs the image that gets the other requests.",
            hint="Give the image that serves now, by digest.",
        )
    check_image("stable_image", options.stable_image)
    if options.stable_image == image:
        raise InvalidInput(
            "stable_image: it is the canary's own image.", hint="Give the one that serves now."
        )


def _facts(bento: BentoFacts) -> dict[str, Any]:
    return {
        "labels": {
            "app.kubernetes.io/name": kebab(bento.name)[:63].strip("-") or "bento",
            "app.kubernetes.io/version": bento.version,
        },
        "annotations": provenance(bento),
    }


def _metadata(
    name: str,
    release: str,
    component: str,
    options: WorkloadOptions,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    own = metadata_annotations(
        "annotations", options.annotations, {**POD_ANNOTATIONS, **NO_OPERATOR}
    )
    metadata = {
        "name": name,
        "namespace": options.namespace,
        "labels": {
            **label_settings("labels", options.labels, RESERVED_LABELS),
            **facts.get("labels", {}),
            **selector_of(release, component),
        },
        "annotations": {**own, **facts.get("annotations", {})},
    }
    return without_empty(metadata)


def _deployment(
    release: str,
    component: str,
    image: str,
    options: WorkloadOptions,
    resources: Mapping[str, Any],
    scaling: _Scaling,
    facts: Mapping[str, Any],
) -> Manifest:
    if options.progress_seconds <= options.startup_seconds:
        raise InvalidInput(
            f"progress_seconds: {options.progress_seconds} gives a rollout up before its first "
            f"pod had its startup_seconds of {options.startup_seconds}.",
            hint="Set it higher than startup_seconds.",
        )
    rolling = {"maxSurge": 1, "maxUnavailable": 0}
    strategy: dict[str, Any] = {"type": options.strategy}
    if options.strategy == "RollingUpdate":
        strategy["rollingUpdate"] = rolling
    selector = selector_of(release, component)
    spec: dict[str, Any] = {
        "selector": {"matchLabels": selector},
        "strategy": strategy,
        "progressDeadlineSeconds": options.progress_seconds,
        "revisionHistoryLimit": 3,
        "template": _template(image, options, resources, scaling, selector),
    }
    if scaling.lowest == scaling.highest:
        # Where an autoscaler owns the number, naming it would take it back at each apply.
        spec["replicas"] = scaling.lowest
    name = release if component == "server" else f"{release}{CANARY_SUFFIX}"
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(name, release, component, options, facts),
        "spec": spec,
    }


def _template(
    image: str,
    options: WorkloadOptions,
    resources: Mapping[str, Any],
    scaling: _Scaling,
    selector: Mapping[str, str],
) -> dict[str, Any]:
    container = bento_container(CONTAINER, image, options, resources=resources, port_name="http")
    container["lifecycle"] = dict(LIFECYCLE)
    spec = {**pod_spec(container, options, selector), "securityContext": dict(POD_SECURITY)}
    if scaling.lowest > 1 and not options.topology_spread:
        spec["topologySpreadConstraints"] = [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": dict(selector)},
            }
        ]
    extra = pod_metadata("extra_pod_metadata", options.extra_pod_metadata, RESERVED_LABELS)
    labels = {
        **label_settings("labels", options.labels, RESERVED_LABELS),
        **extra.get("labels", {}),
        **selector,
    }
    annotations = {**_scrape(options), **extra.get("annotations", {})}
    revision = pod_revision(spec, labels, annotations)
    return {
        "metadata": {"labels": labels, "annotations": {**annotations, POD_REVISION: revision}},
        "spec": spec,
    }


def _scrape(options: WorkloadOptions) -> dict[str, str]:
    if options.metrics != "annotations":
        return {}
    return dict(zip(SCRAPED, ("true", str(PORT), "/metrics"), strict=True))


def _service(
    name: str, release: str, component: str, options: WorkloadOptions, facts: Mapping[str, Any]
) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(name, release, component, options, facts),
        "spec": {
            "type": "ClusterIP",
            "selector": selector_of(release, component),
            "ports": [dict(SERVICE_PORT)],
        },
    }


def _scaling(options: WorkloadOptions, resources: Mapping[str, Any]) -> _Scaling:
    field = "autoscaling"
    given = mapping(
        field, options.autoscaling or {}, ("minReplicas", "maxReplicas", "metrics", "behavior")
    )
    lowest = _replicas(f"{field}.minReplicas", given.get("minReplicas", 1))
    highest = _replicas(f"{field}.maxReplicas", given.get("maxReplicas", lowest))
    if highest < lowest:
        raise InvalidInput(
            f"{field}.maxReplicas: {highest} is below minReplicas {lowest}.",
            hint="Set maxReplicas to at least minReplicas.",
        )
    metrics = settled(f"{field}.metrics", given.get("metrics") or [], AUTOSCALER_METRICS)
    behavior = settled(f"{field}.behavior", given.get("behavior") or {}, BEHAVIOR)
    if lowest == highest:
        for key in ("metrics", "behavior"):
            if given.get(key):
                raise InvalidInput(
                    f"{field}.{key}: with minReplicas = maxReplicas there is no autoscaler.",
                    hint="Set maxReplicas higher, or leave it out.",
                )
        return _Scaling(lowest, highest, [], {})
    if not metrics:
        target = {"type": "Utilization", "averageUtilization": 80}
        metrics = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
    for index, metric in enumerate(metrics):
        _check_metric(f"{field}.metrics[{index}]", metric, resources)
    return _Scaling(lowest, highest, metrics, behavior)


def _replicas(field: str, value: Any) -> int:
    number = whole_number(field, value)
    if number < 1:
        raise InvalidInput(
            f"{field}: {number} is below 1; a HorizontalPodAutoscaler cannot scale to zero unless "
            "the cluster has the alpha feature HPAScaleToZero.",
            hint="Set it to 1 or more.",
        )
    return number


def _check_metric(field: str, metric: Mapping[str, Any], resources: Mapping[str, Any]) -> None:
    kind = str(metric["type"])
    key = kind[0].lower() + kind[1:]
    if set(metric) != {"type", key}:
        raise InvalidInput(
            f"{field}: a metric of type {kind} has the field {key!r} and no other.",
            hint="Write {'type': 'Resource', 'resource': {...}}.",
        )
    source = metric[key]
    target = source["target"]
    wanted = {"Utilization": "averageUtilization", "AverageValue": "averageValue", "Value": "value"}
    if set(target) != {"type", wanted[target["type"]]}:
        raise InvalidInput(
            f"{field}.{key}.target: {target['type']} goes with {wanted[target['type']]}.",
            hint="Give the type and that value.",
        )
    if target["type"] != "Utilization":
        return
    if key not in ("resource", "containerResource"):
        raise InvalidInput(
            f"{field}.{key}.target.type: only cpu and memory have a utilization.",
            hint="Use AverageValue or Value.",
        )
    name = source["name"]
    if not any(name in resources.get(side, {}) for side in ("requests", "limits")):
        raise InvalidInput(
            f"{field}.{key}: a utilization of {name} is a share of resources.requests.{name}, "
            "which is missing; the autoscaler would never act.",
            hint=f"Set resources.requests.{name}.",
        )


def _autoscaler(
    name: str, options: WorkloadOptions, scaling: _Scaling, facts: Mapping[str, Any]
) -> list[Manifest]:
    if scaling.lowest == scaling.highest:
        return []
    spec = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
        "minReplicas": scaling.lowest,
        "maxReplicas": scaling.highest,
        "metrics": scaling.metrics,
        "behavior": scaling.behavior,
    }
    return [
        {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": _metadata(name, name, "server", options, facts),
            "spec": without_empty(spec),
        }
    ]


def _budget(
    name: str, options: WorkloadOptions, scaling: _Scaling, facts: Mapping[str, Any]
) -> list[Manifest]:
    field = "disruption_budget"
    budget: dict[str, Any] = settled(field, options.disruption_budget or {}, BUDGET_SHAPE)
    if not budget:
        if scaling.lowest < 2:
            return []
        budget = {"maxUnavailable": 1}
    if len(budget) != 1:
        raise InvalidInput(
            f"{field}: minAvailable and maxUnavailable exclude each other.", hint="Give one."
        )
    ((key, value),) = budget.items()
    stuck = {"minAvailable": ("100%", scaling.lowest), "maxUnavailable": ("0%", 0)}[key]
    if value in stuck or (key == "minAvailable" and _exceeds(value, scaling.lowest)):
        raise InvalidInput(
            f"{field}.{key}: {value} lets no pod of {scaling.lowest} go; no node could ever be "
            "drained.",
            hint="Allow at least one pod to be away.",
        )
    return [
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": _metadata(name, name, "server", options, facts),
            "spec": {**budget, "selector": {"matchLabels": selector_of(name, "server")}},
        }
    ]


def _exceeds(value: int | str, replicas: int) -> bool:
    return isinstance(value, int) and value > replicas


def _service_monitor(
    name: str, options: WorkloadOptions, facts: Mapping[str, Any]
) -> list[Manifest]:
    if options.metrics != "service-monitor":
        if options.service_monitor:
            raise InvalidInput(
                f"service_monitor: with metrics={options.metrics!r} there is none.",
                hint="Set metrics to 'service-monitor'.",
            )
        return []
    given = settled("service_monitor", options.service_monitor or {}, SERVICE_MONITOR)
    metadata = _metadata(name, name, "server", options, facts)
    labels = label_settings("service_monitor.labels", given.get("labels"), RESERVED_LABELS)
    endpoint = {"port": "http", "path": "/metrics", "interval": given.get("interval", "")}
    return [
        {
            "apiVersion": "monitoring.coreos.com/v1",
            "kind": "ServiceMonitor",
            "metadata": {**metadata, "labels": {**labels, **metadata["labels"]}},
            "spec": {
                # The canary's Service too: Prometheus tells them apart by the Service's name.
                "selector": {"matchLabels": pods_of(name)},
                "endpoints": [without_empty(endpoint)],
            },
        }
    ]


def _route(name: str, options: WorkloadOptions, facts: Mapping[str, Any]) -> list[Manifest]:
    if not options.route:
        return []
    known = ("gateway", "section", "hostnames", "path", "timeout", "weights")
    given = mapping("route", options.route, known)
    rule: dict[str, Any] = {
        "matches": [{"path": {"type": "PathPrefix", "value": _path(given.get("path", "/"))}}],
        "backendRefs": [
            {"name": service, "port": PORT, **({} if weight is None else {"weight": weight})}
            for service, weight in _weights(name, options, given).items()
        ],
    }
    if given.get("timeout"):
        rule["timeouts"] = {"request": text("route.timeout", given["timeout"])}
    spec = {
        "parentRefs": [_parent(given)],
        "hostnames": _hostnames(given.get("hostnames") or []),
        "rules": [rule],
    }
    return [
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": _metadata(name, name, "server", options, facts),
            "spec": without_empty(spec),
        }
    ]


def _weights(
    name: str, options: WorkloadOptions, given: Mapping[str, Any]
) -> dict[str, int | None]:
    weights = mapping("route.weights", given.get("weights") or {})
    if options.canary_percent is not None:
        if weights:
            raise InvalidInput(
                "route.weights: canary_percent decides the weights.", hint="Give one of the two."
            )
        share = options.canary_percent
        return {name: 100 - share, f"{name}{CANARY_SUFFIX}": share}
    if not weights:
        return {name: None}
    for service in weights:
        if problem := deployment_name_problem(service):
            raise InvalidInput(
                f"route.weights: {service!r} {problem}.", hint="Give names of releases."
            )
    if name not in weights:
        raise InvalidInput(
            f"route.weights: {name!r}, which the route belongs to, has no weight.",
            hint="Give it one; 0 sends it nothing.",
        )
    shares: dict[str, int | None] = {
        service: whole_number(f"route.weights[{service}]", weight, 0, 100)
        for service, weight in weights.items()
    }
    total = sum(share or 0 for share in shares.values())
    if total != 100:
        raise InvalidInput(
            f"route.weights: they sum to {total} and not to 100.", hint="Write percents."
        )
    return shares


def _parent(given: Mapping[str, Any]) -> dict[str, str]:
    gateway = given.get("gateway")
    if not isinstance(gateway, str) or not gateway:
        raise InvalidInput(
            "route.gateway: it is missing; a route without a Gateway serves nothing.",
            hint="Write 'name' or 'namespace/name'.",
        )
    namespace, _, name = gateway.rpartition("/")
    problem = resource_name_problem(name) or (namespace_problem(namespace) if namespace else "")
    if problem:
        raise InvalidInput(
            f"route.gateway: {gateway!r} {problem}.", hint="Write 'name' or 'namespace/name'."
        )
    section = text("route.section", given.get("section", ""))
    return without_empty({"name": name, "namespace": namespace, "sectionName": section})


def _hostnames(given: Any) -> list[str]:
    hosts = listing("route.hostnames", given)
    for index, host in enumerate(hosts):
        if problem := host_problem(text(f"route.hostnames[{index}]", host)):
            raise InvalidInput(
                f"route.hostnames[{index}]: {host!r} {problem}.", hint="Write wine.example.com."
            )
    return hosts


def _path(given: Any) -> str:
    path = text("route.path", given)
    if problem := path_problem(path):
        raise InvalidInput(f"route.path: {path!r} {problem}.", hint="Write '/' or '/wine'.")
    return path


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
)
