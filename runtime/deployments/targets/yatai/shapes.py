"""Shapes of all that the targets of Yatai's operators render."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kfp_bento.runtime.deployments.kube.shapes import Also, Known, Shape, shape_problems
from kfp_bento.runtime.deployments.options.core import Env
from kfp_bento.runtime.deployments.options.names import bento_resource_name
from kfp_bento.runtime.deployments.options.pod_settings import (
    NOT_FOR_YATAI,
    POD_ANNOTATIONS,
    PodMetadata,
)
from kfp_bento.runtime.deployments.options.provenance import PROVENANCE
from kfp_bento.runtime.deployments.targets.pod_shapes import (
    annotations_shape,
    checked,
    label_settings,
    labels_shape,
    pod_annotations_shape,
    policy_shape,
)
from kfp_bento.runtime.deployments.targets.target import first_of_kind
from kfp_bento.runtime.deployments.targets.yatai.portable_subset import (
    CRD_GENERATIONS,
    GENERATION,
    manifest_problems,
)
from kfp_bento.runtime.deployments.targets.yatai.request_options import (
    BUILD_ANNOTATIONS,
    UNSERVABLE_BUILDS,
    ArchiveUrl,
    BuildArguments,
    ModelTag,
)
from kfp_bento.runtime.deployments.targets.yatai.settings import (
    LiteralEnvs,
    Sidecars,
    Switches,
)
from kfp_bento.runtime.errors import InvalidInput

_MISPLACED: Mapping[str, str] = {
    "yatai.ai/": "The operator reads its switches from the spec.",
    **POD_ANNOTATIONS,
    **NOT_FOR_YATAI,
}


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
        (kind, bento): Also(Known({}), _portable(check)),
        ("BentoDeployment", name): Also(Known({}), _portable(check_serving)),
        ("NetworkPolicy", name): policy_shape(metadata, pods_of(name)),
    }


def _portable(
    check: Callable[[str, Mapping[str, Any]], None],
) -> Callable[[str, Mapping[str, Any]], None]:
    def both(field: str, manifest: Mapping[str, Any]) -> None:
        for problem in manifest_problems([manifest]):
            raise InvalidInput(f"{problem}.")
        check(field, manifest)

    return both


def _check_metadata(field: str, metadata: Mapping[str, Any], own: Sequence[str] = ()) -> None:
    label_settings(f"{field}.labels", metadata.get("labels", {}))
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
    checked(f"{place}.downloadUrl", ArchiveUrl, spec["downloadUrl"])
    for index, model in enumerate(spec.get("models", ())):
        checked(f"{place}.models[{index}].tag", ModelTag, model["tag"])
        checked(f"{place}.models[{index}].downloadUrl", ArchiveUrl, model.get("downloadUrl", ""))
    checked(f"{place}.buildArgs", BuildArguments, spec.get("buildArgs", []))
    envs = "imageBuilderExtraContainerEnv"
    checked(f"{place}.{envs}", Env, spec.get(envs, []))
    extra = "imageBuilderExtraPodMetadata"
    checked(f"{place}.{extra}", PodMetadata, spec.get(extra, {}))


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
    checked(f"{field}.annotations", Switches, part.get("annotations", {}))
    checked(f"{field}.envs", LiteralEnvs, part.get("envs", []))
    extra = part.get("extraPodMetadata", {})
    label_settings(f"{field}.extraPodMetadata.labels", extra.get("labels", {}))
    _refuse(pod_annotations_shape(), extra.get("annotations", {}), f"{field}.extraPodMetadata")
    checked(f"{field}.extraPodSpec", Sidecars, part.get("extraPodSpec", {}))


def _refuse(shape: Shape, annotations: Mapping[str, str], field: str) -> None:
    for problem in shape_problems(annotations, shape, f"{field}.annotations"):
        raise InvalidInput(f"{problem}.")
