"""Yatai's other way: the cluster's own image builder makes the image out of an archive.

A BentoRequest asks yatai-image-builder for the image; it then writes the Bento, under the same
name and owned by the request, and the BentoDeployment that names it starts. So a Bento is never
rendered here: the builder would overwrite it. Behaviour was read in versions 1.1.3, 1.2.28 and
3.0.42 (`bentorequest_controller.go`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.deployments.kube.cluster import Manifest
from kfp_bento.runtime.deployments.kube.shapes import Fields, Shape, settled
from kfp_bento.runtime.deployments.options.core_shapes import ENV_FROM, RESOURCE_REQUIREMENTS
from kfp_bento.runtime.deployments.options.names import (
    bento_resource_name,
    destination_problem,
    volume_name_problem,
)
from kfp_bento.runtime.deployments.options.options import (
    Listing,
    Object,
    ObjectOrListing,
    listing,
    mapping,
    text,
    whole_number,
    without_empty,
)
from kfp_bento.runtime.deployments.options.pod_settings import (
    container_env,
    pod_metadata,
    split_build_annotations,
)
from kfp_bento.runtime.deployments.options.quantities import pod_resources
from kfp_bento.runtime.deployments.targets.target import (
    BENTO,
    BENTO_DEPLOYMENT_KIND,
    BENTO_REQUEST_KIND,
    CONTROLLED,
    POLICY,
    Target,
)
from kfp_bento.runtime.deployments.targets.yatai.built_image import built_image
from kfp_bento.runtime.deployments.targets.yatai.deployment import (
    BentoDeploymentOptions,
    common_metadata,
    runner_entries,
    serving_manifest,
    serving_policy,
)
from kfp_bento.runtime.deployments.targets.yatai.portable_subset import crd_subset, portable
from kfp_bento.runtime.deployments.targets.yatai.shapes import (
    check_archive_url,
    check_build_args,
    check_model_tag,
    check_pod_placement,
)
from kfp_bento.runtime.deployments.targets.yatai.watch import (
    LIVE_SHAPES,
    bento_of,
    is_named_by,
    names_of,
    service_url,
    stale_runners,
    watched_bento_deployment,
)
from kfp_bento.runtime.errors import InvalidInput

if TYPE_CHECKING:
    from kfp_bento.runtime.deployments.options.bento_facts import BentoFacts

KIND = "bento-request"

_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
_LONGEST_BUILD = 24 * 3600


@dataclass(frozen=True, kw_only=True)
class BentoRequestOptions(BentoDeploymentOptions):
    """How a cluster builds and serves a bento: all of a BentoDeployment, and the build.

    Attributes:
        archive_url: Where the builder gets the bento: http, https or s3, a tar archive (plain,
            gzip, xz or bzip2) with bento.yaml at its top.
        models: Models that the archive lacks: `tag` and `url` (and `size` with a
            `crd_generation` that has it).
        build_args: Arguments of the image build, KEY=VALUE or a mapping; "kubeflow-1.9" on.
        build_timeout: As in "30m" or in seconds; the builder's own default when empty.
        registry_secret: Secret with `.dockerconfigjson` that may push; the image is then needed.
        registry_insecure: Push and look for the image by plain http.
        download_env_from: Secrets and ConfigMaps of the downloader, as `envFrom` has them; a
            plain string names a Secret.
        builder_resources: Requests and limits of the build container.
        builder_envs: Variables of the build containers, `valueFrom` included.
        builder_pod_metadata: `labels` and `annotations` of the build's pods; Istio's sidecar is
            off unless said otherwise, since a build with it never ends.
        builder_pod_spec: Where the build's pods run; `priorityClassName` from "kubeflow-1.9" on.
    """

    archive_url: str = ""
    models: Listing | None = None
    build_args: ObjectOrListing | None = None
    build_timeout: str = ""
    registry_secret: str = ""
    registry_insecure: bool = False
    download_env_from: Listing | None = None
    builder_resources: Object | None = None
    builder_envs: ObjectOrListing | None = None
    builder_pod_metadata: Object | None = None
    builder_pod_spec: Object | None = None


def bento_request_manifests(
    image: str, bento: BentoFacts, options: BentoRequestOptions
) -> tuple[Manifest, ...]:
    """Give the BentoRequest of a bento and the BentoDeployment that will serve it.

    Args:
        image: Where the builder pushes to, by tag; "" for the name that its registry
            settings give.
        bento: The bento in the archive: tag, BentoML version and runners are its own.
        options: The build and the deployment.

    Raises:
        InvalidInput: An option that cannot be honoured; the message names the field.
    """
    plain, building = split_build_annotations("annotations", options.annotations)
    shared, control = common_metadata(bento, options.replaced(annotations=plain))
    metadata = {**shared, "annotations": {**shared["annotations"], **building}}
    spec = _request_spec(image, bento, options)
    request = {
        "apiVersion": "resources.yatai.ai/v1alpha1",
        "kind": "BentoRequest",
        "metadata": {**metadata, "name": bento_resource_name(bento.tag)},
        "spec": spec,
    }
    if options.image_pull_secrets:
        raise InvalidInput(
            "image_pull_secrets: the builder writes the Bento, and gives it the registry Secret "
            "of the request only.",
            hint="Set registry_secret, or let the pods' service account pull.",
        )
    made_of = {key: spec.get(key) for key in ("bentoTag", "downloadUrl", "image", "runners")}
    # A presigned URL is another one each day, for the same archive.
    made_of["downloadUrl"] = str(made_of["downloadUrl"]).partition("?")[0]
    serving = serving_manifest(bento, options, shared, control, made_of)
    return portable(request, serving, *serving_policy(serving, shared, options))


def _request_spec(image: str, bento: BentoFacts, options: BentoRequestOptions) -> dict[str, Any]:
    _check_destination(image, bento, options)
    shape = _spec_shape(options)
    metadata = pod_metadata("builder_pod_metadata", options.builder_pod_metadata)
    annotations = {"sidecar.istio.io/inject": "false", **metadata.get("annotations", {})}
    placement = settled(
        "builder_pod_spec",
        options.builder_pod_spec or {},
        shape.fields["imageBuilderExtraPodSpec"],
        "priorityClassName needs crd_generation='kubeflow-1.9' or newer; volumes and "
        "security contexts are not among the builder's fields.",
    )
    check_pod_placement("builder_pod_spec", placement)
    spec = {
        "bentoTag": bento.tag,
        "downloadUrl": check_archive_url("archive_url", options.archive_url),
        "image": image,
        "context": {"bentomlVersion": bento.bentoml_version} if bento.bentoml_version else {},
        "runners": runner_entries(bento),
        "models": _models(options, shape),
        "buildArgs": _build_args(options),
        "imageBuildTimeout": _nanoseconds(options.build_timeout),
        "imageBuilderExtraPodMetadata": {**metadata, "annotations": annotations},
        "imageBuilderExtraPodSpec": placement,
        "imageBuilderExtraContainerEnv": container_env("builder_envs", options.builder_envs, {}),
        "imageBuilderContainerResources": _builder_resources(options),
        "dockerConfigJsonSecretName": options.registry_secret,
        "downloaderContainerEnvFrom": _download_env(options),
    }
    # Said even where it is false: with a registry Secret the builder would assume http.
    return {**without_empty(spec), "ociRegistryInsecure": options.registry_insecure}


def _check_destination(image: str, bento: BentoFacts, options: BentoRequestOptions) -> None:
    if image and (problem := destination_problem(image)):
        raise InvalidInput(
            f"image: {image!r} {problem}.",
            hint=f"Name what is to be built, for example registry/{bento.name}:{bento.version}.",
        )
    if options.registry_secret:
        if problem := volume_name_problem(options.registry_secret):
            raise InvalidInput(
                f"registry_secret: {options.registry_secret!r} {problem}; the builder names a "
                "volume after it.",
                hint="Copy the Secret to a name without dots.",
            )
        if not image:
            raise InvalidInput(
                "image: with a registry_secret the builder knows no registry of its own.",
                hint=f"Name it, for example registry/{bento.name}:{bento.version}.",
            )


def _models(options: BentoRequestOptions, shape: Fields) -> list[dict[str, Any]]:
    models = []
    for index, given in enumerate(options.models or ()):
        field = f"models[{index}]"
        mapping(field, given, ("tag", "url", "size"))
        tag = check_model_tag(f"{field}.tag", text(f"{field}.tag", given.get("tag")))
        # Without a URL the builder asks a Yatai server and otherwise skips the model.
        model = {
            "tag": tag,
            "downloadUrl": check_archive_url(
                f"{field}.url", text(f"{field}.url", given.get("url") or "")
            ),
        }
        if given.get("size"):
            model["size"] = text(f"{field}.size", given["size"])
        models.append(model)
    hint = "size needs crd_generation='kubeflow-1.9' or newer."
    settled("models", models, shape.fields["models"], hint)
    return models


def _build_args(options: BentoRequestOptions) -> list[str]:
    given = options.build_args or []
    if isinstance(given, Mapping):
        given = [f"{name}={value}" for name, value in given.items()]
    if given and options.crd_generation not in ("kubeflow-1.9", "newest"):
        raise InvalidInput(
            "build_args: image builder 1.1.3 has no such field, and would ignore it.",
            hint="Set crd_generation='kubeflow-1.9' or newer where the cluster has it.",
        )
    return check_build_args("build_args", given)


def _nanoseconds(given: str) -> int | None:
    """Go's time.Duration as the CRD stores it: an integer of nanoseconds."""
    if not given:
        return None
    match = _DURATION.fullmatch(given)
    if given.isdigit():
        seconds = int(given)
    elif match is None:
        raise InvalidInput(
            f"build_timeout: {given!r} is no duration.", hint="Write 30m, 1h30m or seconds."
        )
    else:
        hours, minutes, rest = (int(part or 0) for part in match.groups())
        seconds = hours * 3600 + minutes * 60 + rest
    return whole_number("build_timeout", seconds, 60, _LONGEST_BUILD) * 10**9


def _builder_resources(options: BentoRequestOptions) -> dict[str, Any]:
    none: Mapping[str, Mapping[str, str]] = {"requests": {}, "limits": {}}
    resources = pod_resources("builder_resources", options.builder_resources, none)
    settled("builder_resources", resources, RESOURCE_REQUIREMENTS)
    return dict(resources)


def _download_env(options: BentoRequestOptions) -> list[Any]:
    given = [
        {"secretRef": {"name": one}} if isinstance(one, str) else one
        for one in listing("download_env_from", options.download_env_from or [])
    ]
    sources: list[Any] = settled("download_env_from", given, ENV_FROM)
    return sources


def _spec_shape(options: BentoRequestOptions) -> Fields:
    kinds: Mapping[tuple[str, str], Fields] = crd_subset(options.crd_generation)
    spec: Shape = kinds[("resources.yatai.ai/v1alpha1", "BentoRequest")].fields["spec"]
    assert isinstance(spec, Fields)  # noqa: S101 - a fact about our own table
    return spec


BENTO_REQUEST = Target(
    kind=KIND,
    options_type=BentoRequestOptions,
    renderer=bento_request_manifests,
    kinds=(BENTO_DEPLOYMENT_KIND, BENTO_REQUEST_KIND, POLICY),
    address=service_url,
    watcher=watched_bento_deployment,
    names=names_of,
    unlabelled={BENTO: bento_of},
    told_by=BENTO_REQUEST_KIND,
    builder=built_image,
    leftovers=(BENTO,),
    live_shapes=LIVE_SHAPES,
    owned=CONTROLLED,
    stale_owned=stale_runners,
    is_in_use=is_named_by,
)
