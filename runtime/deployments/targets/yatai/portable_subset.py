"""The fields of Yatai's CRDs that may be rendered, and a strict check by them.

Yatai's API server prunes what it does not know, so a field that only one generation has would
vanish without a word on another. What follows is the intersection of yatai-deployment 1.1.4 and
1.1.21 and yatai-image-builder 1.1.3, 1.2.28 and 3.0.42, reduced to the fields that the controllers
really read; `NEWER_FIELDS` are those that the oldest of them lack.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Required

from pydantic import BaseModel, Field, ValidationError
from typing_extensions import TypedDict

from kfp_bento.runtime.deployments.kube.objects import Manifest
from kfp_bento.runtime.deployments.options.core import (
    Annotations,
    Container,
    EnvFrom,
    EnvVar,
    Labels,
    Name,
    Namespace,
    ResourceRequirements,
    Scheduling,
    ValueFrom,
)
from kfp_bento.runtime.deployments.options.names import (
    deployment_name_problem,
    destination_problem,
    image_problem,
    label_name_problem,
    label_value_problem,
)
from kfp_bento.runtime.deployments.options.options import Settings
from kfp_bento.runtime.deployments.targets.yatai.kinds import (
    BENTO,
    BENTO_DEPLOYMENT_KIND,
    BENTO_REQUEST_KIND,
)
from kfp_bento.runtime.errors import DeploymentError
from kfp_bento.runtime.validation import problems, valid

CRD_GENERATIONS = ("kubeflow-1.7", "kubeflow-1.9", "newest")
"""yatai-deployment 1.1.4 and image builder 1.1.3; 1.1.21 and 1.2.28; 1.1.21 and 3.0.42."""

GENERATION = "kfp-bento/crd-generation"
"""Annotation of manifests that are not portable: the generation that they were rendered for."""

LONGEST_NAME = 50
"""Of a BentoDeployment: with `-runner-<i>` behind it, it is a label of at most 63 characters."""

NEWER_FIELDS: Mapping[str, tuple[str, ...]] = {
    "BentoRequest": (
        "spec.buildArgs",
        "spec.serviceName",
        "spec.models.size",
        "spec.imageBuilderExtraPodSpec.priorityClassName",
    ),
    "BentoDeployment": ("spec.monitorExporter.structureOptions", "spec.monitorExporter.mounts"),
}
"""Fields that "kubeflow-1.7" lacks, by kind."""


class _Side(TypedDict, total=False):
    cpu: str
    memory: str
    gpu: str
    custom: dict[str, str]


class _Resources(TypedDict):
    requests: _Side
    limits: _Side


class _MetricTarget(TypedDict, total=False):
    type: Required[str]
    averageUtilization: int
    averageValue: str


class _MetricSource(TypedDict):
    name: str
    target: _MetricTarget


class _Metric(TypedDict):
    type: str
    resource: _MetricSource


class _Autoscaling(TypedDict, total=False):
    minReplicas: Required[int]
    maxReplicas: Required[int]
    metrics: list[_Metric]


class _Env(TypedDict):
    name: str
    value: str


class _PodMetadata(TypedDict, total=False):
    labels: Labels
    annotations: Annotations


class ExtraPodSpec(Scheduling, total=False):
    """What the CRDs know of pods; volumes and security contexts are not among it."""

    containers: list[Container]
    serviceAccountName: Name


class BuilderPodSpec(Scheduling, total=False):
    """What the CRDs know of the pods of a build."""

    serviceAccountName: Name
    priorityClassName: Name


class _TlsSecret(TypedDict):
    secretName: Name


class Ingress(TypedDict, total=False):
    """The operator's Ingress."""

    enabled: bool
    annotations: Annotations
    labels: Labels
    tls: _TlsSecret


class _StructureOption(TypedDict, total=False):
    name: Required[str]
    value: str
    valueFrom: ValueFrom


class _MountedSecret(TypedDict, total=False):
    secretName: Required[Name]
    optional: bool


class _MountedConfigMap(TypedDict, total=False):
    name: Required[Name]
    optional: bool


class _EmptyDir(TypedDict, total=False):
    medium: str
    sizeLimit: str


class _Claim(TypedDict, total=False):
    claimName: Required[Name]
    readOnly: bool


class _Mount(TypedDict, total=False):
    path: Required[str]
    readOnly: bool
    secret: _MountedSecret
    configMap: _MountedConfigMap
    emptyDir: _EmptyDir
    persistentVolumeClaim: _Claim


class MonitorExporter(TypedDict, total=False):
    """The operator's sidecar that exports what was predicted."""

    enabled: bool
    output: Required[str]
    options: dict[str, str]
    structureOptions: list[_StructureOption]
    mounts: list[_Mount]


class _Runner(TypedDict, total=False):
    name: Required[Annotated[str, valid(label_value_problem, "")]]
    runnableType: str
    modelTags: list[str]


class _Context(TypedDict, total=False):
    bentomlVersion: str


class _NamedSecret(TypedDict):
    name: Name


class _BentoSpec(TypedDict, total=False):
    tag: Required[str]
    image: Required[Annotated[str, valid(image_problem, "")]]
    context: _Context
    runners: list[_Runner]
    imagePullSecrets: list[_NamedSecret]


class _Model(TypedDict, total=False):
    tag: Required[str]
    downloadUrl: str
    size: str


class _BentoRequestSpec(TypedDict, total=False):
    bentoTag: Required[str]
    # Without it the builder asks a Yatai server, which nobody has.
    downloadUrl: Required[str]
    image: Annotated[str, valid(destination_problem, "")]
    context: _Context
    runners: list[_Runner]
    models: list[_Model]
    serviceName: str
    buildArgs: list[str]
    imageBuildTimeout: int
    imageBuilderExtraPodMetadata: _PodMetadata
    imageBuilderExtraPodSpec: BuilderPodSpec
    imageBuilderExtraContainerEnv: list[EnvVar]
    imageBuilderContainerResources: ResourceRequirements
    dockerConfigJsonSecretName: Annotated[str, valid(label_name_problem, "")]
    ociRegistryInsecure: Required[bool]
    downloaderContainerEnvFrom: EnvFrom


class _Served(TypedDict, total=False):
    resources: Required[_Resources]
    autoscaling: _Autoscaling
    envs: list[_Env]
    annotations: Annotations
    extraPodMetadata: _PodMetadata
    extraPodSpec: ExtraPodSpec


class _RunnerOverride(_Served, total=False):
    name: Required[str]


class _BentoDeploymentSpec(_Served, total=False):
    bento: Required[Name]
    ingress: Required[Ingress]
    monitorExporter: MonitorExporter
    runners: list[_RunnerOverride]


class _Metadata(TypedDict, total=False):
    name: Required[Name]
    namespace: Required[Namespace]
    labels: Labels
    annotations: Annotations


class _Manifest(BaseModel):
    model_config = Settings.model_config

    api_version: str = Field(alias="apiVersion")
    kind: str
    metadata: _Metadata


class _Bento(_Manifest):
    spec: _BentoSpec


class _BentoRequest(_Manifest):
    spec: _BentoRequestSpec


class _BentoDeployment(_Manifest):
    spec: _BentoDeploymentSpec


PORTABLE_SUBSET: Mapping[tuple[str, str], type[BaseModel]] = {
    (kind.api_version, kind.name): model
    for kind, model in (
        (BENTO, _Bento),
        (BENTO_REQUEST_KIND, _BentoRequest),
        (BENTO_DEPLOYMENT_KIND, _BentoDeployment),
    )
}
"""What may be said of Yatai's kinds, by API version and kind."""


def portable(*manifests: Manifest) -> tuple[Manifest, ...]:
    """Give manifests of Yatai's kinds that every generation takes whole; others pass unseen.

    Raises:
        DeploymentError: One sentence per field that some generation would drop.
    """
    if told := manifest_problems(manifests):
        raise DeploymentError(
            "The manifests are not portable: " + "; ".join(told) + ".",
            hint="Leave out the options that they come from.",
        )
    return manifests


def manifest_problems(manifests: Sequence[Mapping[str, Any]]) -> list[str]:
    """Check manifests of Yatai's kinds against the portable subset; unknown fields are problems.

    Returns:
        One sentence per problem, each beginning with kind, name and path. Empty: all is well.
    """
    found = []
    for manifest in manifests:
        kind = str(manifest.get("kind"))
        metadata = manifest.get("metadata")
        name = metadata.get("name") if isinstance(metadata, Mapping) else None
        if model := PORTABLE_SUBSET.get((str(manifest.get("apiVersion")), kind)):
            found += [f"{kind} {name}: {problem}" for problem in _problems(model, manifest)]
    return found


def newer_fields(value: Any, paths: Iterable[str], at: str = "") -> Iterator[str]:
    """Give the places in a value where something stands that only newer CRDs have.

    Args:
        value: A manifest, or options.
        paths: Keys with dots between them, through lists too.
        at: The place of the value.
    """
    for path in paths:
        key, _, rest = path.partition(".")
        if isinstance(value, list):
            for index, item in enumerate(value):
                yield from newer_fields(item, [path], f"{at}[{index}]")
        elif isinstance(value, Mapping) and key in value:
            place = f"{at}.{key}"
            yield from newer_fields(value[key], [rest], place) if rest else [place]


def _problems(model: type[BaseModel], manifest: Mapping[str, Any]) -> Iterator[str]:
    try:
        model.model_validate(manifest)
    except ValidationError as error:
        yield from (f".{one.sentence}" for one in problems(model, error))
        return
    metadata = manifest["metadata"]
    served = manifest["kind"] == BENTO_DEPLOYMENT_KIND.name
    if served and (problem := deployment_name_problem(metadata["name"], LONGEST_NAME)):
        yield f".metadata.name: {metadata['name']!r} {problem}"
    if metadata.get("annotations", {}).get(GENERATION) not in CRD_GENERATIONS[1:]:
        for place in newer_fields(manifest, NEWER_FIELDS.get(manifest["kind"], ())):
            yield f"{place} is no field that every version has"
