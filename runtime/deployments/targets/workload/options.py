"""What may be asked of a plain Deployment and what stands around it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Required, Self

from pydantic import AfterValidator, Field, model_validator
from typing_extensions import TypedDict

from kfp_bento.runtime.deployments.options.core import LabelSelector, OptionalImage
from kfp_bento.runtime.deployments.options.names import (
    deployment_name_problem,
    host_problem,
    label_name_problem,
    resource_name_problem,
)
from kfp_bento.runtime.deployments.options.network_policy import check_who_has_to_get_in
from kfp_bento.runtime.deployments.options.options import IntOrText, Settings
from kfp_bento.runtime.deployments.targets.pod_settings import (
    NO_OPERATOR,
    POD_ANNOTATIONS,
    PodOptions,
    Replicas,
    UserLabels,
    without_labels,
)
from kfp_bento.runtime.errors import InvalidInput
from kfp_bento.runtime.validation import Refused, between, optional, valid

CANARY_SUFFIX = "-canary"
LONGEST_NAME = 63 - len(CANARY_SUFFIX)
RESERVED_LABELS = ("app.kubernetes.io/", "pod-template-hash", "yatai.ai/")

Percent = Annotated[int, between(0, 100)]


class _Target(TypedDict, total=False):
    type: Required[Literal["Utilization", "AverageValue", "Value"]]
    averageUtilization: int
    averageValue: IntOrText
    value: IntOrText


class _MetricName(TypedDict, total=False):
    name: Required[str]
    selector: LabelSelector


class _Described(TypedDict, total=False):
    apiVersion: str
    kind: Required[str]
    name: Required[str]


class MetricSource(TypedDict, total=False):
    """What a metric measures: each type has some of these fields, all of them required."""

    name: Literal["cpu", "memory"]
    container: str
    metric: _MetricName
    describedObject: _Described
    target: Required[_Target]


class Metric(TypedDict, total=False):
    """An autoscaling/v2 MetricSpec."""

    type: Required[Literal["Resource", "ContainerResource", "Pods", "Object", "External"]]
    resource: MetricSource
    containerResource: MetricSource
    pods: MetricSource
    external: MetricSource
    object: MetricSource


_SOURCES = {
    "Resource": {"name", "target"},
    "ContainerResource": {"name", "container", "target"},
    "Pods": {"metric", "target"},
    "External": {"metric", "target"},
    "Object": {"metric", "target", "describedObject"},
}
_VALUES = {"Utilization": "averageUtilization", "AverageValue": "averageValue", "Value": "value"}


def source_of(metric: Mapping[str, Any]) -> tuple[str, MetricSource]:
    """Give the field that says what a metric measures, and what stands there."""
    key = metric["type"][0].lower() + metric["type"][1:]
    return key, metric[key]


def _consistent(metric: Metric) -> Metric:
    kind = metric["type"]
    key = kind[0].lower() + kind[1:]
    if set(metric) != {"type", key}:
        raise Refused(
            f": a metric of type {kind} has the field {key!r} and no other",
            "Write {'type': 'Resource', 'resource': {...}}.",
        )
    source = source_of(metric)[1]
    if set(source) != _SOURCES[kind]:
        fields = ", ".join(sorted(_SOURCES[kind]))
        raise Refused(f": it has the fields {fields} and no other", "Write all of them.", f".{key}")
    target = source["target"]
    if set(target) != {"type", _VALUES[target["type"]]}:
        raise Refused(
            f": {target['type']} goes with {_VALUES[target['type']]}",
            "Give the type and that value.",
            f".{key}.target",
        )
    if target["type"] == "Utilization" and "name" not in source:
        raise Refused(
            ": only cpu and memory have a utilization",
            "Use AverageValue or Value.",
            f".{key}.target.type",
        )
    return metric


class _Policy(TypedDict):
    type: Literal["Pods", "Percent"]
    value: int
    periodSeconds: int


class _Rules(TypedDict, total=False):
    stabilizationWindowSeconds: int
    selectPolicy: Literal["Max", "Min", "Disabled"]
    policies: list[_Policy]


class _Behavior(TypedDict, total=False):
    scaleUp: _Rules
    scaleDown: _Rules


_TO_ZERO = (
    "a HorizontalPodAutoscaler cannot scale to zero unless the cluster has the alpha feature "
    "HPAScaleToZero"
)


class Autoscaling(Replicas):
    """What a HorizontalPodAutoscaler is made of."""

    min_replicas: Annotated[int, between(1, why=_TO_ZERO)] = Field(default=1, alias="minReplicas")
    metrics: list[Annotated[Metric, AfterValidator(_consistent)]] = []
    behavior: _Behavior = {}

    @property
    def fixed(self) -> bool:
        """Whether there is one number of pods, and no autoscaler."""
        return self.min_replicas == self.highest

    @model_validator(mode="after")
    def _check_use(self) -> Self:
        for key in ("metrics", "behavior"):
            if self.fixed and getattr(self, key):
                raise Refused(
                    ": with minReplicas = maxReplicas there is no autoscaler",
                    "Set maxReplicas higher, or leave it out.",
                    f".{key}",
                )
        return self


class DisruptionBudget(Settings):
    """How many pods may be away, or have to stay."""

    min_available: IntOrText | None = Field(default=None, alias="minAvailable")
    max_unavailable: IntOrText | None = Field(default=None, alias="maxUnavailable")


class ServiceMonitor(Settings):
    """By which labels a Prometheus finds it, and how often it asks."""

    labels: Annotated[UserLabels, without_labels(*RESERVED_LABELS)] = {}
    interval: str = ""


def _gateway_problem(gateway: str) -> str:
    namespace, _, name = gateway.rpartition("/")
    return resource_name_problem(name) or optional(label_name_problem)(namespace)


def path_problem(path: str) -> str:
    """Say why a route cannot serve this path; empty when it can."""
    good = path.startswith("/") and "//" not in path and "?" not in path and "#" not in path
    return "" if good else "is no path"


_ReleaseName = Annotated[str, valid(deployment_name_problem, "Give names of releases.")]


class Route(Settings):
    """An HTTPRoute of the Gateway API."""

    gateway: Annotated[str, valid(_gateway_problem, "Write 'name' or 'namespace/name'.")]
    section: str = ""
    hostnames: list[Annotated[str, valid(host_problem, "Write wine.example.com.")]] = []
    path: Annotated[str, valid(path_problem, "Write '/' or '/wine'.")] = "/"
    timeout: str = ""
    weights: dict[_ReleaseName, Percent] = {}

    @model_validator(mode="after")
    def _check_sum(self) -> Self:
        total = sum(self.weights.values())
        if self.weights and total != 100:
            raise Refused(f": they sum to {total} and not to 100", "Write percents.", ".weights")
        return self


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

    reserved_labels = RESERVED_LABELS

    autoscaling: Autoscaling = Autoscaling()
    strategy: Literal["RollingUpdate", "Recreate"] = "RollingUpdate"
    disruption_budget: DisruptionBudget = DisruptionBudget()
    metrics: Literal["annotations", "service-monitor", "none"] = "annotations"
    service_monitor: ServiceMonitor | None = None
    route: Route | None = None
    canary_percent: Percent | None = None
    stable_image: OptionalImage = ""
    canary_replicas: Annotated[int, between(1)] = 1
    progress_seconds: int = 600

    def misplaced(self) -> Mapping[str, str]:
        """Give the annotations that nothing reads on the target's objects."""
        return {**POD_ANNOTATIONS, **NO_OPERATOR}

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.progress_seconds <= self.startup_seconds:
            raise InvalidInput(
                f"progress_seconds: {self.progress_seconds} gives a rollout up before its first "
                f"pod had its startup_seconds of {self.startup_seconds}.",
                hint="Set it higher than startup_seconds.",
            )
        monitored = self.metrics == "service-monitor"
        if self.service_monitor and not monitored:
            raise InvalidInput(
                f"service_monitor: with metrics={self.metrics!r} there is none.",
                hint="Set metrics to 'service-monitor'.",
            )
        if self.route:
            check_who_has_to_get_in(self.network_policy, "route", "the Gateway")
        if monitored:
            check_who_has_to_get_in(self.network_policy, "metrics='service-monitor'", "Prometheus")
        return self

    @model_validator(mode="after")
    def _check_budget(self) -> Self:
        budget = self.disruption_budget
        if budget.min_available is not None and budget.max_unavailable is not None:
            raise InvalidInput(
                "disruption_budget: minAvailable and maxUnavailable exclude each other.",
                hint="Give one.",
            )
        kept, lowest = budget.min_available, self.autoscaling.min_replicas
        all_kept = kept >= lowest if isinstance(kept, int) else kept == "100%"
        if all_kept or budget.max_unavailable in (0, "0%"):
            ((key, value),) = budget.given().items()
            raise InvalidInput(
                f"disruption_budget.{key}: {value} lets no pod of {lowest} go; no node could ever "
                "be drained.",
                hint="Allow at least one pod to be away.",
            )
        return self
