"""The fields that every published generation of Yatai's CRDs has, and a strict check by them.

Yatai's API server prunes what it does not know, so a field that only one generation has
would vanish without a word on another. The description below is therefore the
intersection of yatai-deployment 1.1.4 and 1.1.21 and yatai-image-builder 1.1.3, 1.2.28 and
3.0.42, reduced to the fields that the controllers really read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from kfp_bento.runtime.deployments.kube.cluster import Manifest
from kfp_bento.runtime.deployments.kube.shapes import (
    Fields,
    Items,
    Pairs,
    Shape,
    Value,
    shape_problems,
)
from kfp_bento.runtime.deployments.options.core_shapes import (
    ANNOTATIONS,
    CONTAINER,
    COUNT,
    ENV,
    ENV_FROM,
    LABELS,
    NAME,
    RESOURCE_REQUIREMENTS,
    SCHEDULING,
    TEXT,
    TEXTS,
    TRUTH,
    VALUE_FROM,
)
from kfp_bento.runtime.deployments.options.names import (
    deployment_name_problem,
    destination_problem,
    image_problem,
    label_value_problem,
    namespace_problem,
    resource_name_problem,
    volume_name_problem,
)
from kfp_bento.runtime.errors import DeploymentError

CRD_GENERATIONS = ("kubeflow-1.7", "kubeflow-1.9", "newest")
"""yatai-deployment 1.1.4 and image builder 1.1.3; 1.1.21 and 1.2.28; 1.1.21 and 3.0.42."""

GENERATION = "kfp-bento/crd-generation"
"""Annotation of manifests that are not portable: the generation that they were rendered for."""

_SIDE = Fields({"cpu": TEXT, "memory": TEXT, "gpu": TEXT, "custom": Pairs()})
_RESOURCES = Fields({"requests": _SIDE, "limits": _SIDE}, frozenset({"requests", "limits"}))
_METRIC = Fields(
    {
        "type": TEXT,
        "resource": Fields(
            {
                "name": TEXT,
                "target": Fields(
                    {"type": TEXT, "averageUtilization": COUNT, "averageValue": TEXT},
                    frozenset({"type"}),
                ),
            },
            frozenset({"name", "target"}),
        ),
    },
    frozenset({"type", "resource"}),
)
_AUTOSCALING = Fields(
    {"minReplicas": COUNT, "maxReplicas": COUNT, "metrics": Items(_METRIC)},
    frozenset({"minReplicas", "maxReplicas"}),
)
_ENVS = Items(Fields({"name": TEXT, "value": TEXT}, frozenset({"name", "value"})))
POD_METADATA = Fields({"labels": LABELS, "annotations": ANNOTATIONS})
EXTRA_POD_SPEC = Fields({**SCHEDULING, "containers": Items(CONTAINER), "serviceAccountName": NAME})
_INGRESS = Fields(
    {
        "enabled": TRUTH,
        "annotations": ANNOTATIONS,
        "labels": LABELS,
        "tls": Fields({"secretName": NAME}, frozenset({"secretName"})),
    },
    frozenset({"enabled"}),
)
MONITOR_EXPORTER = Fields(
    {"enabled": TRUTH, "output": TEXT, "options": Pairs()}, frozenset({"enabled", "output"})
)
_VOLUME_SOURCES: dict[str, Shape] = {
    "secret": Fields({"secretName": NAME, "optional": TRUTH}, frozenset({"secretName"})),
    "configMap": Fields({"name": NAME, "optional": TRUTH}, frozenset({"name"})),
    "emptyDir": Fields({"medium": TEXT, "sizeLimit": TEXT}),
    "persistentVolumeClaim": Fields(
        {"claimName": NAME, "readOnly": TRUTH}, frozenset({"claimName"})
    ),
}
_NEWER_MONITOR_EXPORTER: dict[str, Shape] = {
    "structureOptions": Items(
        Fields({"name": TEXT, "value": TEXT, "valueFrom": VALUE_FROM}, frozenset({"name"}))
    ),
    "mounts": Items(
        Fields({"path": TEXT, "readOnly": TRUTH, **_VOLUME_SOURCES}, frozenset({"path"}))
    ),
}
_RUNNER = Fields(
    {
        "name": Value(str, label_value_problem),
        "runnableType": TEXT,
        "modelTags": TEXTS,
    },
    frozenset({"name"}),
)
_CONTEXT = Fields({"bentomlVersion": TEXT})
BUILDER_POD_SPEC = Fields({**SCHEDULING, "serviceAccountName": NAME})
_REQUESTED_MODEL = Fields({"tag": TEXT, "downloadUrl": TEXT}, frozenset({"tag"}))


def _object(
    api_version: str, kind: str, name_problem: Callable[[str], str], spec: Shape | None
) -> Fields:
    metadata = Fields(
        {
            "name": Value(str, name_problem),
            "namespace": Value(str, namespace_problem),
            "labels": LABELS,
            "annotations": ANNOTATIONS,
        },
        frozenset({"name", "namespace"}),
    )
    shape: dict[str, Shape] = {
        "apiVersion": Value(
            str, lambda text: "" if text == api_version else f"is not {api_version}"
        ),
        "kind": Value(str, lambda text: "" if text == kind else f"is not {kind}"),
        "metadata": metadata,
        **({"spec": spec} if spec else {}),
    }
    return Fields(shape, frozenset(shape))


_BENTO = Fields(
    {
        "tag": TEXT,
        "image": Value(str, image_problem),
        "context": _CONTEXT,
        "runners": Items(_RUNNER),
        "imagePullSecrets": Items(Fields({"name": NAME}, frozenset({"name"}))),
    },
    frozenset({"tag", "image"}),
)
_BENTO_REQUEST = Fields(
    {
        "bentoTag": TEXT,
        "downloadUrl": TEXT,
        "image": Value(str, destination_problem),
        "context": _CONTEXT,
        "runners": Items(_RUNNER),
        "models": Items(_REQUESTED_MODEL),
        "imageBuildTimeout": COUNT,
        "imageBuilderExtraPodMetadata": POD_METADATA,
        "imageBuilderExtraPodSpec": BUILDER_POD_SPEC,
        "imageBuilderExtraContainerEnv": ENV,
        "imageBuilderContainerResources": RESOURCE_REQUIREMENTS,
        "dockerConfigJsonSecretName": Value(str, volume_name_problem),
        "ociRegistryInsecure": TRUTH,
        "downloaderContainerEnvFrom": ENV_FROM,
    },
    # Without a URL the builder asks a Yatai server, which nobody has.
    frozenset({"bentoTag", "downloadUrl", "ociRegistryInsecure"}),
)
_RUNNER_OVERRIDE = Fields(
    {
        "name": TEXT,
        "resources": _RESOURCES,
        "autoscaling": _AUTOSCALING,
        "envs": _ENVS,
        "annotations": ANNOTATIONS,
        "extraPodMetadata": POD_METADATA,
        "extraPodSpec": EXTRA_POD_SPEC,
    },
    frozenset({"name", "resources"}),
)
_BENTO_DEPLOYMENT = Fields(
    {
        "bento": NAME,
        "resources": _RESOURCES,
        "autoscaling": _AUTOSCALING,
        "envs": _ENVS,
        "annotations": ANNOTATIONS,
        "ingress": _INGRESS,
        "monitorExporter": MONITOR_EXPORTER,
        "extraPodMetadata": POD_METADATA,
        "extraPodSpec": EXTRA_POD_SPEC,
        "runners": Items(_RUNNER_OVERRIDE),
    },
    frozenset({"bento", "resources", "ingress"}),
)
_RESOURCES_GROUP, _SERVING_GROUP = "resources.yatai.ai/v1alpha1", "serving.yatai.ai/v2alpha1"


@cache
def crd_subset(generation: str = "") -> Mapping[tuple[str, str], Fields]:
    """Give the fields that may be rendered: for one generation of the CRDs, or for all of them.

    Args:
        generation: One of `CRD_GENERATIONS`; "" for the fields that all of them have.
    """
    bento_request, bento_deployment = _BENTO_REQUEST, _BENTO_DEPLOYMENT
    if generation in ("kubeflow-1.9", "newest"):
        bento_request = bento_request.with_fields(
            {
                "buildArgs": TEXTS,
                "serviceName": TEXT,
                "models": Items(_REQUESTED_MODEL.with_fields({"size": TEXT})),
                "imageBuilderExtraPodSpec": BUILDER_POD_SPEC.with_fields(
                    {"priorityClassName": NAME}
                ),
            }
        )
        bento_deployment = bento_deployment.with_fields(
            {"monitorExporter": MONITOR_EXPORTER.with_fields(_NEWER_MONITOR_EXPORTER)}
        )
    kinds = (
        (_RESOURCES_GROUP, "Bento", resource_name_problem, _BENTO),
        (_RESOURCES_GROUP, "BentoRequest", resource_name_problem, bento_request),
        (_SERVING_GROUP, "BentoDeployment", deployment_name_problem, bento_deployment),
    )
    return {
        (group, kind): _object(group, kind, problem, spec) for group, kind, problem, spec in kinds
    }


def portable(*manifests: Manifest) -> tuple[Manifest, ...]:
    """Give manifests of Yatai's kinds that every generation takes whole; others pass unseen.

    Raises:
        DeploymentError: One sentence per field that some generation would drop.
    """
    if problems := manifest_problems(manifests):
        raise DeploymentError(
            "The manifests are not portable: " + "; ".join(problems) + ".",
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
        kind = (str(manifest.get("apiVersion")), str(manifest.get("kind")))
        metadata = manifest.get("metadata")
        name = metadata.get("name") if isinstance(metadata, Mapping) else None
        annotations = (metadata if isinstance(metadata, Mapping) else {}).get("annotations") or {}
        if shape := crd_subset(str(annotations.get(GENERATION, ""))).get(kind):
            found += [
                f"{kind[1]} {name}: {problem}" for problem in shape_problems(manifest, shape, "")
            ]
    return found
