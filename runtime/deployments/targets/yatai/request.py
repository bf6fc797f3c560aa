"""Yatai's other way: the cluster's own image builder makes the image out of an archive.

A BentoRequest asks yatai-image-builder for the image; it then writes the Bento, under the same
name and owned by the request, and the BentoDeployment that names it starts. So a Bento is never
rendered here: the builder would overwrite it. Behaviour was read in versions 1.1.3, 1.2.28 and
3.0.42 (`bentorequest_controller.go`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.deployments.kube.objects import Manifest
from kfp_bento.runtime.deployments.options.names import destination_problem
from kfp_bento.runtime.deployments.options.options import without_empty
from kfp_bento.runtime.deployments.options.quantities import pod_resources
from kfp_bento.runtime.deployments.targets.marks import ARCHIVE
from kfp_bento.runtime.deployments.targets.target import CONTROLLED, POLICY, Target
from kfp_bento.runtime.deployments.targets.yatai.attempts import with_attempt
from kfp_bento.runtime.deployments.targets.yatai.built_image import built_image
from kfp_bento.runtime.deployments.targets.yatai.deployment import (
    common_metadata,
    runner_entries,
    serving_manifest,
    serving_policy,
)
from kfp_bento.runtime.deployments.targets.yatai.kinds import (
    BENTO,
    BENTO_DEPLOYMENT_KIND,
    BENTO_REQUEST_KIND,
)
from kfp_bento.runtime.deployments.targets.yatai.names import bento_resource_name
from kfp_bento.runtime.deployments.targets.yatai.portable_subset import GENERATION, portable
from kfp_bento.runtime.deployments.targets.yatai.request_options import (
    BUILD_ANNOTATIONS,
    BentoRequestOptions,
)
from kfp_bento.runtime.deployments.targets.yatai.settings import INSTALLS, POWERS
from kfp_bento.runtime.deployments.targets.yatai.sharing import (
    bento_of_request,
    is_settled,
    serves_as_request,
    wake_operator,
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


def bento_request_manifests(
    image: str, bento: BentoFacts, options: BentoRequestOptions
) -> tuple[Manifest, ...]:
    """Give the BentoRequest of a bento and the BentoDeployment that will serve it.

    Args:
        image: Where the builder pushes to; without a tag it gets the bento's version, and "" is
            the name that the builder's registry settings give.
        bento: The bento in the archive: tag, BentoML version and runners are its own.
        options: The build and the deployment.

    Raises:
        InvalidInput: An option that cannot be honoured; the message names the field.
    """
    building = {
        key: options.annotations[key] for key in BUILD_ANNOTATIONS if key in options.annotations
    }
    plain = {key: text for key, text in options.annotations.items() if key not in building}
    shared, control = common_metadata(bento, options.model_copy(update={"annotations": plain}))
    if options.archive:
        building[ARCHIVE] = options.archive
    if options.crd_generation:
        building[GENERATION] = options.crd_generation
    if not options.archive_url and not options.archive:
        raise InvalidInput(
            "archive_url: it is missing, and no archive is what the builder would download.",
            hint="Give an https://, http:// or s3:// URL of a tar archive of the bento, or as "
            "archive its address in a bucket.",
        )
    spec = _request_spec(_tagged(image, bento), bento, options)
    # A builder knows a build by labels and annotations too, and begins it anew when one changes:
    # what does not concern the build is on the BentoDeployment alone.
    metadata = {"namespace": options.namespace, **without_empty({"annotations": building})}
    request = {
        "apiVersion": "resources.yatai.ai/v1alpha1",
        "kind": "BentoRequest",
        "metadata": {**metadata, "name": bento_resource_name(bento.tag)},
        "spec": spec,
    }
    made_of = {key: spec.get(key) for key in ("bentoTag", "downloadUrl", "image", "runners")}
    # A presigned URL is another one each day, for the same archive.
    made_of["downloadUrl"] = str(made_of["downloadUrl"]).partition("?")[0]
    serving = serving_manifest(bento, options, shared, control, made_of)
    return portable(request, serving, *serving_policy(serving, shared, options))


def _request_spec(image: str, bento: BentoFacts, options: BentoRequestOptions) -> dict[str, Any]:
    _check_destination(image, bento, options)
    metadata = options.builder_pod_metadata
    annotations = {"sidecar.istio.io/inject": "false", **metadata.get("annotations", {})}
    resources = pod_resources("builder_resources", options.builder_resources, {})
    spec = {
        "bentoTag": bento.tag,
        "downloadUrl": options.archive or options.archive_url,
        "image": image,
        "context": {"bentomlVersion": bento.bentoml_version} if bento.bentoml_version else {},
        "runners": runner_entries(bento),
        "models": [
            without_empty({"tag": one.tag, "downloadUrl": one.url, "size": one.size})
            for one in options.models
        ],
        "imageBuildTimeout": _nanoseconds(options.build_timeout),
        "imageBuilderExtraPodMetadata": without_empty({**metadata, "annotations": annotations}),
        "imageBuilderExtraPodSpec": options.builder_pod_spec,
        "imageBuilderExtraContainerEnv": options.builder_envs,
        "imageBuilderContainerResources": resources,
        "dockerConfigJsonSecretName": options.registry_secret,
        "downloaderContainerEnvFrom": options.download_env_from,
    }
    # Said even where it is false: with a registry Secret the builder would assume http.
    return {**without_empty(spec), "ociRegistryInsecure": options.registry_insecure}


def _tagged(image: str, bento: BentoFacts) -> str:
    """Give a repository the bento's version as tag: a tag that is there is never built again."""
    has_tag = ":" in image.rpartition("/")[2] or "@" in image
    return image if has_tag or not image else f"{image}:{bento.version}"


def _check_destination(image: str, bento: BentoFacts, options: BentoRequestOptions) -> None:
    if image and (problem := destination_problem(image)):
        raise InvalidInput(
            f"image: {image!r} {problem}.",
            hint=f"Name what is to be built, for example registry/{bento.name}:{bento.version}.",
        )
    if options.registry_secret and not image:
        raise InvalidInput(
            "image: with a registry_secret the builder knows no registry of its own.",
            hint=f"Name it, for example registry/{bento.name}:{bento.version}.",
        )


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
    if not 60 <= seconds <= _LONGEST_BUILD:
        raise InvalidInput(
            f"build_timeout: {seconds} is not between 60 and {_LONGEST_BUILD} seconds.",
            hint="Choose a number in between.",
        )
    return seconds * 10**9


BENTO_REQUEST = Target(
    kind=KIND,
    options_type=BentoRequestOptions,
    renderer=bento_request_manifests,
    kinds=(BENTO_DEPLOYMENT_KIND, BENTO_REQUEST_KIND, POLICY),
    address=service_url,
    watcher=watched_bento_deployment,
    names=names_of,
    unlabelled={BENTO: bento_of, BENTO_REQUEST_KIND: bento_of},
    told_by=BENTO_REQUEST_KIND,
    builder=built_image,
    completer=with_attempt,
    leftovers=(BENTO,),
    live_shapes=LIVE_SHAPES,
    owned=CONTROLLED,
    stale_owned=stale_runners,
    is_in_use=is_named_by,
    shared={BENTO_REQUEST_KIND: serves_as_request},
    written=bento_of_request,
    starts_anew=is_settled,
    hasty=(BENTO_DEPLOYMENT_KIND, BENTO_REQUEST_KIND),
    waker=(BENTO, wake_operator),
    installs=INSTALLS,
    powers=POWERS,
)
