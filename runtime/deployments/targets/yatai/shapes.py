"""Shapes of all that the targets of Yatai's operators render."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kfp_bento.runtime.deployments.kube.shapes import Also, Shape, shape_problems
from kfp_bento.runtime.deployments.options.names import bento_resource_name, split_url
from kfp_bento.runtime.deployments.options.pod_settings import (
    BUILD_ANNOTATIONS,
    NOT_FOR_YATAI,
    POD_ANNOTATIONS,
    UNSERVABLE_BUILDS,
    check_scheduling,
    container_env,
    control_settings,
    env_settings,
    label_settings,
    pod_metadata,
)
from kfp_bento.runtime.deployments.options.provenance import PROVENANCE
from kfp_bento.runtime.deployments.targets.network_policy import policy_shape
from kfp_bento.runtime.deployments.targets.pod_shapes import (
    annotations_shape,
    labels_shape,
    pod_annotations_shape,
)
from kfp_bento.runtime.deployments.targets.target import first_of_kind
from kfp_bento.runtime.deployments.targets.yatai.portable_subset import (
    CRD_GENERATIONS,
    GENERATION,
    crd_subset,
)
from kfp_bento.runtime.errors import InvalidInput

# The operator's own containers in every pod.
OWN_CONTAINERS = ("main", "proxy", "metrics-transformer", "monitor-exporter")

_SCHEMES = ("http", "https", "s3")
# The builder hands the URL to a shell.
_PLAIN_URL = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!&()*+,;=%-]+")
_BUILD_ARG = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=.*", re.DOTALL)
_TAG = re.compile(r"[a-z0-9][a-z0-9_.-]*:[a-z0-9][a-z0-9_.-]*", re.IGNORECASE)
_MISPLACED: Mapping[str, str] = {
    "yatai.ai/": "The operator reads its switches from the spec.",
    **POD_ANNOTATIONS,
    **NOT_FOR_YATAI,
}
_RESOURCES = "resources.yatai.ai/v1alpha1"


def bento_deployment_shapes(
    name: str, manifests: Sequence[Mapping[str, Any]]
) -> dict[tuple[str, str], Shape]:
    """Give the shape of each object that may be rendered for a release, by kind and name."""
    return _shapes(name, manifests, "Bento", "tag", _check_bento)


def bento_request_shapes(
    name: str, manifests: Sequence[Mapping[str, Any]]
) -> dict[tuple[str, str], Shape]:
    """Give the shape of each object that may be rendered for a release, by kind and name."""
    return _shapes(name, manifests, "BentoRequest", "bentoTag", _check_request)


def pods_of(name: str) -> dict[str, str]:
    """Give the label of all pods that the operator makes of a BentoDeployment."""
    return {"yatai.ai/bento-deployment": name}


def _shapes(
    name: str,
    manifests: Sequence[Mapping[str, Any]],
    kind: str,
    tag_field: str,
    check: Callable[[str, Mapping[str, Any]], None],
) -> dict[tuple[str, str], Shape]:
    made = first_of_kind(manifests, kind) or {}
    spec = made.get("spec") or {}
    tag = spec.get(tag_field) if isinstance(spec, Mapping) else None
    bento = bento_resource_name(tag) if isinstance(tag, str) else ""
    annotations = (made.get("metadata") or {}).get("annotations") or {}
    generation = str(annotations.get(GENERATION, ""))
    subset = crd_subset(generation)
    runners = spec.get("runners") if isinstance(spec, Mapping) else None
    # Its own shape is checked elsewhere, maybe later.
    listed = runners if isinstance(runners, list) else []
    names = [one.get("name") for one in listed if isinstance(one, Mapping)]

    def check_serving(field: str, manifest: Mapping[str, Any]) -> None:
        if manifest["spec"]["bento"] != bento:
            raise InvalidInput(f"{field}.spec.bento is not {bento!r}.")
        _check_serving(field, manifest, names)

    metadata: dict[str, Shape] = {
        "labels": labels_shape(("yatai.ai/",), {}),
        "annotations": annotations_shape(_MISPLACED, (*PROVENANCE, GENERATION)),
    }
    return {
        (kind, bento): Also(subset[_RESOURCES, kind], check),
        ("BentoDeployment", name): Also(
            subset["serving.yatai.ai/v2alpha1", "BentoDeployment"], check_serving
        ),
        ("NetworkPolicy", name): policy_shape(metadata, pods_of(name)),
    }


def _check_metadata(field: str, metadata: Mapping[str, Any], own: Sequence[str] = ()) -> None:
    label_settings(f"{field}.labels", metadata.get("labels"))
    annotations = metadata.get("annotations", {})
    generation = annotations.get(GENERATION)
    if generation is not None and generation not in CRD_GENERATIONS:
        raise InvalidInput(f"{field}.annotations[{GENERATION}] is no generation.")
    for key in UNSERVABLE_BUILDS:
        if key in annotations:
            raise InvalidInput(f"{field}.annotations[{key}]: the image would lack its models.")
    _refuse(annotations_shape(_MISPLACED, (*PROVENANCE, GENERATION, *own)), annotations, field)


def _check_bento(field: str, manifest: Mapping[str, Any]) -> None:
    _check_metadata(f"{field}.metadata", manifest["metadata"])


def _check_request(field: str, manifest: Mapping[str, Any]) -> None:
    _check_metadata(f"{field}.metadata", manifest["metadata"], BUILD_ANNOTATIONS)
    spec, place = manifest["spec"], f"{field}.spec"
    check_archive_url(f"{place}.downloadUrl", spec["downloadUrl"])
    for index, model in enumerate(spec.get("models", ())):
        check_model_tag(f"{place}.models[{index}].tag", model["tag"])
        check_archive_url(f"{place}.models[{index}].downloadUrl", model.get("downloadUrl", ""))
    check_build_args(f"{place}.buildArgs", spec.get("buildArgs", []))
    container_env(
        f"{place}.imageBuilderExtraContainerEnv", spec.get("imageBuilderExtraContainerEnv"), {}
    )
    pod_metadata(f"{place}.imageBuilderExtraPodMetadata", spec.get("imageBuilderExtraPodMetadata"))
    check_pod_placement(
        f"{place}.imageBuilderExtraPodSpec", spec.get("imageBuilderExtraPodSpec", {})
    )


def _check_serving(field: str, manifest: Mapping[str, Any], runners: Sequence[Any]) -> None:
    _check_metadata(f"{field}.metadata", manifest["metadata"])
    spec = manifest["spec"]
    _check_pods(f"{field}.spec", spec)
    for index, runner in enumerate(spec.get("runners", ())):
        place = f"{field}.spec.runners[{index}]"
        if runner["name"] not in runners:
            raise InvalidInput(f"{place}.name: {runner['name']!r} is no runner of the bento.")
        _check_pods(place, runner)


def _check_pods(field: str, part: Mapping[str, Any]) -> None:
    control_settings(f"{field}.annotations", part.get("annotations"))
    env_settings(f"{field}.envs", part.get("envs"))
    extra = part.get("extraPodMetadata", {})
    label_settings(f"{field}.extraPodMetadata.labels", extra.get("labels"))
    _refuse(pod_annotations_shape(), extra.get("annotations", {}), f"{field}.extraPodMetadata")
    check_sidecars(f"{field}.extraPodSpec", part.get("extraPodSpec", {}))
    check_pod_placement(f"{field}.extraPodSpec", part.get("extraPodSpec", {}))


def _refuse(shape: Shape, annotations: Mapping[str, str], field: str) -> None:
    for problem in shape_problems(annotations, shape, f"{field}.annotations"):
        raise InvalidInput(f"{problem}.")


def check_sidecars(field: str, spec: Mapping[str, Any]) -> None:
    """Refuse containers in an extra pod spec that take the place of the operator's own.

    Raises:
        InvalidInput: A sidecar with the name of one of them.
    """
    for index, sidecar in enumerate(spec.get("containers", [])):
        if sidecar["name"] in OWN_CONTAINERS:
            raise InvalidInput(
                f"{field}.containers[{index}].name: {sidecar['name']!r} is a container of the "
                "operator; sidecars are appended and never merged.",
                hint="Choose another name.",
            )


def check_pod_placement(field: str, spec: Mapping[str, Any]) -> None:
    """Refuse placements in an extra pod spec that no pod can have.

    Raises:
        InvalidInput: A toleration or a spread that Kubernetes would refuse.
    """
    check_scheduling(
        spec.get("tolerations", []),
        spec.get("topologySpreadConstraints", []),
        f"{field}.tolerations",
        f"{field}.topologySpreadConstraints",
    )


def check_model_tag(field: str, tag: str) -> str:
    """Give the tag of a model.

    Raises:
        InvalidInput: It is not of the form name:version.
    """
    if not _TAG.fullmatch(tag):
        raise InvalidInput(f"{field}: {tag!r} is no tag.", hint="Write name:version.")
    return tag


def check_build_args(field: str, given: Sequence[Any]) -> list[str]:
    """Give arguments of an image build.

    Raises:
        InvalidInput: One that is not of the form KEY=VALUE.
    """
    for index, argument in enumerate(given):
        if not isinstance(argument, str) or not _BUILD_ARG.fullmatch(argument):
            raise InvalidInput(
                f"{field}[{index}]: {argument!r} is not of the form KEY=VALUE.",
                hint="Write one string per argument.",
            )
    return list(given)


def check_archive_url(field: str, url: str) -> str:
    """Give the URL of an archive that every builder can download, and its shell reads as one word.

    Raises:
        InvalidInput: It is no such URL.
    """
    parts = split_url(field, url)
    if not url or parts.scheme not in _SCHEMES or not parts.netloc or not parts.path.strip("/"):
        raise InvalidInput(
            f"{field}: {_without_query(url)!r} is no archive that every builder can download.",
            hint="Give an https://, http:// or s3:// URL of a tar archive of the bento.",
        )
    if parts.username or parts.password:
        raise InvalidInput(
            f"{field}: it holds a user name or a password, which everybody can read there.",
            hint="Use a presigned URL, or s3:// with download_env_from.",
        )
    if parts.path.endswith(".zip"):
        raise InvalidInput(
            f"{field}: the builder unpacks with tar, which cannot read zip.",
            hint="Export the bento as .tar.gz.",
        )
    if not _PLAIN_URL.fullmatch(url):
        raise InvalidInput(
            f"{field}: {_without_query(url)!r} has a character that the builder's shell would "
            "read as its own.",
            hint="Percent-encode it.",
        )
    return url


def _without_query(url: str) -> str:
    return url.partition("?")[0]
