"""The parts of Kubernetes objects that users may write themselves (core/v1, meta/v1).

Only fields that Kubernetes 1.25 had already: the CRDs embed older copies of these types.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Required

from pydantic import AfterValidator, BeforeValidator
from typing_extensions import TypedDict

from kfp_bento.runtime.deployments.options.names import (
    image_problem,
    label_name_problem,
    label_value_problem,
    metadata_key_problem,
    resource_name_problem,
)
from kfp_bento.runtime.deployments.options.options import IntOrText, Text
from kfp_bento.runtime.validation import Refused, between, optional, valid

Name = Annotated[str, valid(resource_name_problem, "Give the object's name.")]
SecretNames = Annotated[list[Name], AfterValidator(lambda names: list(dict.fromkeys(names)))]
OptionalName = Annotated[str, valid(optional(resource_name_problem), "Give the object's name.")]
Namespace = Annotated[str, valid(label_name_problem, "For example 'serving'.")]
_BY_DIGEST = "Give repository@sha256:..., as build_image returns it."
Image = Annotated[str, valid(image_problem, _BY_DIGEST)]
OptionalImage = Annotated[str, valid(optional(image_problem), _BY_DIGEST)]
_Key = Annotated[str, valid(metadata_key_problem, "For example team/owner.")]
_LabelValue = Annotated[Text, valid(label_value_problem, "Longer texts fit in annotations.")]
Labels = dict[_Key, _LabelValue]
Annotations = dict[_Key, Text]


class _Requirement(TypedDict, total=False):
    key: Required[str]
    operator: Required[str]
    values: list[str]


class LabelSelector(TypedDict, total=False):
    """A meta/v1 LabelSelector."""

    matchLabels: Labels
    matchExpressions: list[_Requirement]


class _NodeTerm(TypedDict, total=False):
    matchExpressions: list[_Requirement]
    matchFields: list[_Requirement]


class _WeightedNodeTerm(TypedDict):
    weight: int
    preference: _NodeTerm


class _NodeTerms(TypedDict):
    nodeSelectorTerms: list[_NodeTerm]


class _NodeAffinity(TypedDict, total=False):
    requiredDuringSchedulingIgnoredDuringExecution: _NodeTerms
    preferredDuringSchedulingIgnoredDuringExecution: list[_WeightedNodeTerm]


class _PodTerm(TypedDict, total=False):
    labelSelector: LabelSelector
    namespaceSelector: LabelSelector
    namespaces: list[str]
    topologyKey: Required[str]


class _WeightedPodTerm(TypedDict):
    weight: int
    podAffinityTerm: _PodTerm


class _PodAffinity(TypedDict, total=False):
    requiredDuringSchedulingIgnoredDuringExecution: list[_PodTerm]
    preferredDuringSchedulingIgnoredDuringExecution: list[_WeightedPodTerm]


class Affinity(TypedDict, total=False):
    """A core/v1 Affinity."""

    nodeAffinity: _NodeAffinity
    podAffinity: _PodAffinity
    podAntiAffinity: _PodAffinity


class _Toleration(TypedDict, total=False):
    key: str
    operator: Literal["Exists", "Equal"]
    value: str
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]
    tolerationSeconds: int


def _bearable(toleration: _Toleration) -> _Toleration:
    if "tolerationSeconds" in toleration and toleration.get("effect") != "NoExecute":
        raise Refused(
            ": it goes with the effect NoExecute only",
            "Set effect to NoExecute, or leave it out.",
            ".tolerationSeconds",
        )
    exists = toleration.get("operator") == "Exists"
    if exists and toleration.get("value"):
        raise Refused(": the operator Exists takes none", "Use the operator Equal.", ".value")
    if not exists and not toleration.get("key"):
        raise Refused(": only the operator Exists goes without one", "Name the taint.", ".key")
    return toleration


Tolerations = list[Annotated[_Toleration, AfterValidator(_bearable)]]


class _SpreadConstraint(TypedDict, total=False):
    maxSkew: Required[Annotated[int, between(1)]]
    topologyKey: Required[str]
    whenUnsatisfiable: Required[Literal["DoNotSchedule", "ScheduleAnyway"]]
    labelSelector: LabelSelector


def _spread_once(constraints: list[_SpreadConstraint]) -> list[_SpreadConstraint]:
    seen = set()
    for index, constraint in enumerate(constraints):
        pair = constraint["topologyKey"], constraint["whenUnsatisfiable"]
        if pair in seen:
            raise Refused(
                ": topologyKey and whenUnsatisfiable are given before",
                "Keep one of them.",
                f"[{index}]",
            )
        seen.add(pair)
    return constraints


TopologySpread = Annotated[list[_SpreadConstraint], AfterValidator(_spread_once)]


def with_selectors(spread: list[Any], pods: Mapping[str, str]) -> list[dict[str, Any]]:
    """Give constraints that all have a selector: without one they count no pod.

    Args:
        spread: The constraints.
        pods: Labels of the pods to spread.
    """
    return [{"labelSelector": {"matchLabels": dict(pods)}, **constraint} for constraint in spread]


class _KeyRef(TypedDict, total=False):
    name: Required[Name]
    key: Required[str]
    optional: bool


class _FieldRef(TypedDict, total=False):
    fieldPath: Required[str]
    apiVersion: str


class _ResourceFieldRef(TypedDict, total=False):
    resource: Required[str]
    containerName: str
    divisor: IntOrText


class ValueFrom(TypedDict, total=False):
    """The source of a variable (core/v1 EnvVarSource)."""

    secretKeyRef: _KeyRef
    configMapKeyRef: _KeyRef
    fieldRef: _FieldRef
    resourceFieldRef: _ResourceFieldRef


_ENV_NAME = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")


def _name_problem(name: str) -> str:
    return "" if _ENV_NAME.fullmatch(name) else "cannot name an environment variable"


def _number_as_text(value: Any) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if number else value


class EnvVar(TypedDict, total=False):
    """A variable of a container: with a value, or with a source."""

    name: Required[Annotated[str, valid(_name_problem, "Use letters, digits and '_'.")]]
    value: Annotated[Text, BeforeValidator(_number_as_text)]
    valueFrom: ValueFrom


def _env_list(given: Any) -> Any:
    if isinstance(given, dict):
        return [{"name": name, "value": value} for name, value in given.items()]
    return given


def _each_once(envs: list[EnvVar]) -> list[EnvVar]:
    seen = set()
    for index, entry in enumerate(envs):
        if entry["name"] in seen:
            raise Refused(f": {entry['name']} is given twice", "Keep one of them.", f"[{index}]")
        seen.add(entry["name"])
    return envs


def _one_source(entry: EnvVar) -> EnvVar:
    if "valueFrom" not in entry and "value" not in entry:
        raise Refused(": it is missing", "Give the text, or a valueFrom.", ".value")
    if "valueFrom" in entry and ("value" in entry or len(entry["valueFrom"]) != 1):
        raise Refused(
            ": a variable has one value or one source",
            "Write {'secretKeyRef': {'name': ..., 'key': ...}} and no value.",
            ".valueFrom",
        )
    return entry


_AS_LIST = BeforeValidator(_env_list, json_schema_input_type=dict[str, Any] | list[EnvVar])
Env = Annotated[
    list[Annotated[EnvVar, AfterValidator(_one_source)]], AfterValidator(_each_once), _AS_LIST
]
"""Variables with values or sources, which may be given as a mapping of values."""

LiteralEnv = Annotated[list[EnvVar], AfterValidator(_each_once), _AS_LIST]
"""The same for whoever says itself what goes with a variable."""


class _WholeRef(TypedDict, total=False):
    name: Required[Name]
    optional: bool


class EnvSource(TypedDict, total=False):
    """Variables out of a whole Secret or ConfigMap (core/v1 EnvFromSource)."""

    secretRef: _WholeRef
    configMapRef: _WholeRef
    prefix: str


def _secret(given: Any) -> Any:
    return {"secretRef": {"name": given}} if isinstance(given, str) else given


def _one_object(source: EnvSource) -> EnvSource:
    if ("secretRef" in source) == ("configMapRef" in source):
        raise Refused(
            ": a source is one Secret or one ConfigMap", "Write {'secretRef': {'name': ...}}."
        )
    return source


EnvFrom = list[Annotated[EnvSource, BeforeValidator(_secret), AfterValidator(_one_object)]]
"""Whole Secrets and ConfigMaps; a plain string names a Secret."""


class ResourceRequirements(TypedDict, total=False):
    """A core/v1 ResourceRequirements, as other containers than ours have it."""

    requests: dict[str, Text]
    limits: dict[str, Text]


class _HttpGet(TypedDict, total=False):
    path: str
    port: Required[IntOrText]
    scheme: str
    host: str


class _TcpSocket(TypedDict, total=False):
    port: Required[IntOrText]
    host: str


class _Exec(TypedDict, total=False):
    command: list[str]


class _Probe(TypedDict, total=False):
    httpGet: _HttpGet
    tcpSocket: _TcpSocket
    exec: _Exec
    initialDelaySeconds: int
    timeoutSeconds: int
    periodSeconds: int
    successThreshold: int
    failureThreshold: int


Protocol = Literal["TCP", "UDP", "SCTP"]


class _ContainerPort(TypedDict, total=False):
    name: str
    containerPort: Required[int]
    protocol: Protocol


class _Capabilities(TypedDict, total=False):
    add: list[str]
    drop: list[str]


class _SeccompProfile(TypedDict, total=False):
    type: Required[str]
    localhostProfile: str


class _SecurityContext(TypedDict, total=False):
    runAsUser: int
    runAsGroup: int
    runAsNonRoot: bool
    readOnlyRootFilesystem: bool
    allowPrivilegeEscalation: bool
    privileged: bool
    capabilities: _Capabilities
    seccompProfile: _SeccompProfile


class Container(TypedDict, total=False):
    """A container that users bring."""

    name: Required[Annotated[str, valid(label_name_problem, "Choose another name.")]]
    image: Required[str]
    command: list[str]
    args: list[str]
    workingDir: str
    env: list[EnvVar]
    envFrom: list[EnvSource]
    ports: list[_ContainerPort]
    resources: ResourceRequirements
    livenessProbe: _Probe
    readinessProbe: _Probe
    startupProbe: _Probe
    imagePullPolicy: Literal["Always", "IfNotPresent", "Never"]
    securityContext: _SecurityContext


class Scheduling(TypedDict, total=False):
    """Where pods run."""

    schedulerName: str
    nodeSelector: Labels
    affinity: Affinity
    tolerations: Tolerations
    topologySpreadConstraints: TopologySpread
