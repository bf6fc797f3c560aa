"""What may be asked of Yatai's operators; what they drop or misread is refused.

What yatai-deployment 1.1.4 and 1.1.21 do with the fields was read in their
`controllers/bentodeployment_controller.go`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator
from typing_extensions import TypedDict

from kfp_bento.runtime.deployments.options.core import (
    EnvVar,
    LiteralEnv,
    Namespace,
    OptionalName,
    SecretNames,
)
from kfp_bento.runtime.deployments.options.network_policy import (
    NetworkPolicy,
    check_who_has_to_get_in,
)
from kfp_bento.runtime.deployments.options.options import Options, Settings
from kfp_bento.runtime.deployments.options.quantities import Quantity, Resources
from kfp_bento.runtime.deployments.targets.kserve.annotations import READ_ELSEWHERE
from kfp_bento.runtime.deployments.targets.pod_settings import (
    MISPLACED,
    POD_ANNOTATIONS,
    PodMetadata,
    Replicas,
    UserAnnotations,
    UserLabels,
    refuse_envs,
    without_keys,
)
from kfp_bento.runtime.deployments.targets.yatai.portable_subset import (
    CRD_GENERATIONS,
    ExtraPodSpec,
    Ingress,
    MonitorExporter,
    newer_fields,
)
from kfp_bento.runtime.errors import InvalidInput
from kfp_bento.runtime.validation import Refused, between, otherwise

INSTALLS: Mapping[str, str] = dict.fromkeys(
    ("resources.yatai.ai", "serving.yatai.ai"),
    "Install the CRDs and operators yatai-image-builder (Bento) and yatai-deployment "
    "(BentoDeployment), or use mode 'render'. "
    "The target workload needs nothing but Kubernetes.",
)
# Read from spec.annotations by yatai-deployment; in metadata it never looks at them.
CONTROL_ANNOTATIONS = frozenset(
    f"yatai.ai/{name}"
    for name in (
        "deployment-strategy",
        "run-container-as-root",
        "enable-container-privileged",
        "enable-container-ptrace",
        "enable-host-ipc",
        "enable-host-network",
        "enable-host-pid",
        "proxy-sidecar-resources-limits-cpu",
        "proxy-sidecar-resources-limits-memory",
        "proxy-sidecar-resources-requests-cpu",
        "proxy-sidecar-resources-requests-memory",
    )
)
POWERS = frozenset(
    name for name in CONTROL_ANNOTATIONS if "/enable-" in name or name.endswith("-as-root")
)
_STRATEGIES = ("RollingUpdate", "Recreate", "RampedSlowRollout", "BestEffortControlledRollout")
_RESERVED_ENVS: Mapping[str, str] = {
    "PORT": "moves the port away from 3000, where the operator's proxies and probes expect it",
    "YATAI_": "is set by the operator itself",
}
# The operator's own containers in every pod.
OWN_CONTAINERS = ("main", "proxy", "metrics-transformer", "monitor-exporter")


class _Utilization(TypedDict):
    type: Literal["Utilization"]
    averageUtilization: Annotated[int, between(1)]


class _AverageValue(TypedDict):
    type: Literal["AverageValue"]
    averageValue: Quantity


class _MetricSource(TypedDict):
    name: Literal["cpu", "memory"]
    target: _Utilization | _AverageValue


class _Metric(TypedDict):
    type: Literal["Resource"]
    resource: _MetricSource


_PortableMetric = Annotated[
    _Metric,
    otherwise(
        "only Resource metrics of cpu and memory work on every version",
        "Write {'type': 'Resource', 'resource': {'name': 'cpu', 'target': "
        "{'type': 'Utilization', 'averageUtilization': 80}}}.",
    ),
]


class Autoscaling(Replicas):
    """How many pods there are; one replica where nothing is said."""

    refused: ClassVar[Mapping[str, tuple[str, str]]] = {
        "behavior": (
            ": the CRD takes it, but the operator never copies it to the HorizontalPodAutoscaler",
            "Leave it out; the cluster's default scaling behaviour applies.",
        )
    }

    min_replicas: Annotated[int, between(1, why="the operator cannot scale to zero")] = Field(
        default=1, alias="minReplicas"
    )
    metrics: list[_PortableMetric] = []

    def block(self) -> dict[str, Any]:
        """Give the block of the CRD; empty where nothing was asked."""
        if not self.model_fields_set:
            return {}
        block: dict[str, Any] = {"minReplicas": self.min_replicas, "maxReplicas": self.highest}
        return {**block, "metrics": self.metrics} if self.metrics else block


def _literal(envs: list[EnvVar]) -> list[EnvVar]:
    for index, entry in enumerate(envs):
        name = entry["name"]
        if "valueFrom" in entry:
            raise Refused(
                f": the operator drops it and would set {name} to an empty value",
                "Only literal values reach the pod. For credentials give the pods a "
                "service account (service_account=...) or let the service read them at start.",
                f"[{index}].valueFrom",
            )
        if "value" not in entry:
            raise Refused(": it is missing", "Give the text.", f"[{index}].value")
    refuse_envs(envs, _RESERVED_ENVS)
    return envs


def check_switches(annotations: dict[str, str]) -> dict[str, str]:
    """Refuse switches that steer nothing, and what only pods are asked for."""
    for key, value in annotations.items():
        if key.startswith("yatai.ai/") and key not in CONTROL_ANNOTATIONS:
            raise Refused(
                ": the operator of a BentoDeployment knows no such switch",
                f"Known: {', '.join(sorted(CONTROL_ANNOTATIONS))}.",
                f"[{key}]",
            )
        if key == "yatai.ai/deployment-strategy" and value not in _STRATEGIES:
            raise Refused(
                f": {value!r} is no strategy", f"One of {', '.join(_STRATEGIES)}.", f"[{key}]"
            )
    return annotations


def _only_switches(annotations: dict[str, str]) -> dict[str, str]:
    for key in annotations:
        if not key.startswith("yatai.ai/"):
            raise Refused(
                ": nothing reads it in this place",
                "For the runner's pods use extra_pod_metadata.",
                f"[{key}]",
            )
    return annotations


def _beside_the_operators(spec: ExtraPodSpec) -> ExtraPodSpec:
    for index, sidecar in enumerate(spec.get("containers", [])):
        if sidecar["name"] in OWN_CONTAINERS:
            raise Refused(
                f": {sidecar['name']!r} is a container of the operator; sidecars are appended "
                "and never merged",
                "Choose another name.",
                f".containers[{index}].name",
            )
    return spec


def _wanted(ingress: Ingress) -> Ingress:
    ignored = sorted(ingress.keys() - {"enabled"})
    if ignored and not ingress.get("enabled"):
        raise Refused(
            ": without ingress.enabled the operator makes no Ingress",
            "Set ingress.enabled to true, or leave the rest out.",
            f".{ignored[0]}",
        )
    return ingress


LiteralEnvs = Annotated[LiteralEnv, AfterValidator(_literal)]
OperatorAnnotations = Annotated[UserAnnotations, AfterValidator(check_switches)]
Switches = Annotated[OperatorAnnotations, AfterValidator(_only_switches)]
Sidecars = Annotated[ExtraPodSpec, AfterValidator(_beside_the_operators)]
ON_OBJECTS = without_keys(MISPLACED, {**POD_ANNOTATIONS, **READ_ELSEWHERE})


class RunnerOverride(Settings):
    """What one runner of an old-style bento has of its own."""

    name: str
    resources: Resources = Resources()
    autoscaling: Autoscaling = Autoscaling()
    envs: LiteralEnvs = []
    annotations: Switches = {}
    extra_pod_metadata: PodMetadata = {}
    extra_pod_spec: Sidecars = {}


class BentoDeploymentOptions(Options):
    """How an image becomes a BentoDeployment.

    Attributes:
        name: Name of the BentoDeployment and its Service: DNS-1035, at most 50 characters;
            derived from the bento's name when empty.
        namespace: Namespace of both resources; the operator must watch it.
        resources: `requests` and `limits` of the API server's container: `cpu`, `memory`, `gpu`
            (limits only), `custom`.
        autoscaling: `minReplicas`, `maxReplicas`, `metrics`; one replica when None.
        envs: Literal environment variables, as a mapping or a list of name and value.
        runners: Overrides for runners that the bento has, each with its `name` and any of
            `resources`, `autoscaling`, `envs`, `annotations`, `extra_pod_metadata`,
            `extra_pod_spec`; only bentos of BentoML 1.1 and before have runners.
        image_pull_secrets: Names of registry Secrets in the namespace.
        labels: Labels for both resources and the pods, never for Service selectors.
        annotations: Annotations for both resources; `yatai.ai/...` switches steer the
            operator and go to the spec, where alone it reads them.
        service_account: ServiceAccount of the pods.
        ingress: `enabled`, `annotations`, `labels`, `tls` ({"secretName": ...}). The operator's
            Ingress carries a snippet that ingress-nginx refuses by default since 1.9.
        extra_pod_metadata: `labels` and `annotations` of the pods.
        extra_pod_spec: `schedulerName`, `nodeSelector`, `affinity`, `tolerations`,
            `topologySpreadConstraints`, `containers` (sidecars), `serviceAccountName`.
        monitor_exporter: `enabled`, `output`, `options`; `structureOptions` and `mounts` with a
            `crd_generation` that has them.
        network_policy: Who may talk with the pods: `ingress` lists who gets in besides the pods of
            the same namespace: the name of a namespace, or a peer as a NetworkPolicy has it;
            `egress` is none, dns, or a list of peers (each with `ports`, or dns) that the pods may
            call; they may call everybody where it is not said. No policy when empty.
        crd_generation: kubeflow-1.7, kubeflow-1.9 or newest; only fields that all have when empty.
    """

    refused: ClassVar[Mapping[str, tuple[str, str]]] = {
        "api_token_secret": (
            ": the operator drops envs[].valueFrom, so that the variable would be empty and the "
            "service would answer anybody",
            "Leave it out, or use another target.",
        )
    }
    # Options that only newer CRDs have a field for.
    newer: ClassVar[tuple[str, ...]] = (
        "monitor_exporter.structureOptions",
        "monitor_exporter.mounts",
    )

    name: str = ""
    namespace: Namespace = "default"
    resources: Resources = Resources()
    autoscaling: Autoscaling = Autoscaling()
    envs: LiteralEnvs = []
    runners: list[RunnerOverride] = []
    image_pull_secrets: SecretNames = []
    labels: UserLabels = {}
    annotations: Annotated[OperatorAnnotations, ON_OBJECTS] = {}
    service_account: OptionalName = ""
    ingress: Annotated[Ingress, AfterValidator(_wanted)] = {}
    extra_pod_metadata: PodMetadata = {}
    extra_pod_spec: Sidecars = {}
    monitor_exporter: MonitorExporter | None = None
    network_policy: NetworkPolicy | None = None
    crd_generation: Literal["", "kubeflow-1.7", "kubeflow-1.9", "newest"] = ""

    @property
    def newer_crds(self) -> bool:
        """Whether the cluster has CRDs with fields that the oldest lack."""
        return self.crd_generation in CRD_GENERATIONS[1:]

    @model_validator(mode="after")
    def _check(self) -> Self:
        for place in () if self.newer_crds else newer_fields(self.given(), self.newer):
            raise InvalidInput(
                f"{place[1:]} is no field that every version has.",
                hint="Set crd_generation='kubeflow-1.9' or newer where the cluster has it.",
            )
        account = self.extra_pod_spec.get("serviceAccountName", self.service_account)
        if self.service_account not in ("", account):
            raise InvalidInput(
                f"service_account: {self.service_account!r} is not "
                f"extra_pod_spec.serviceAccountName {account!r}.",
                hint="Give one of the two.",
            )
        if self.ingress.get("enabled"):
            check_who_has_to_get_in(self.network_policy, "ingress", "the Ingress's controller")
        return self
