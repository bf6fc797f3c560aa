"""What may be asked of Yatai's image builder, and of what then serves."""

from __future__ import annotations

import re
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from kfp_bento.runtime.deployments.options.core import Env, EnvFrom
from kfp_bento.runtime.deployments.options.names import label_name_problem, split_url
from kfp_bento.runtime.deployments.options.options import Settings
from kfp_bento.runtime.deployments.options.quantities import PodResources
from kfp_bento.runtime.deployments.targets.pod_settings import (
    PodMetadata,
    UserAnnotations,
    without_keys,
)
from kfp_bento.runtime.deployments.targets.yatai.portable_subset import BuilderPodSpec
from kfp_bento.runtime.deployments.targets.yatai.settings import (
    ON_OBJECTS,
    BentoDeploymentOptions,
    check_switches,
)
from kfp_bento.runtime.errors import InvalidInput
from kfp_bento.runtime.storage import BUCKETS, LONGEST_URL
from kfp_bento.runtime.validation import Refused, between, optional, valid

# Read by yatai-image-builder from a BentoRequest's metadata.
BUILD_ANNOTATIONS = (
    "yatai.ai/aws-access-key-secret-name",
    "yatai.ai/force-build-image",
)
_OVERRULED = "yatai.ai/docker-registry-insecure"
_FORCED = "yatai.ai/force-build-image"
UNSERVABLE_BUILDS = ("yatai.ai/image-stored-in-s3", "yatai.ai/yatai-image-builder-separate-models")

SHORTEST_URL = 60
_SCHEMES = ("http", "https", "s3")
# The builder hands the URL to a shell.
_PLAIN_URL = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!&()*+,;=%-]+")
_TAG = re.compile(r"[a-z0-9][a-z0-9_.-]*:[a-z0-9][a-z0-9_.-]*", re.IGNORECASE)


def _without_query(url: str) -> str:
    return url.partition("?")[0]


def _archive(url: str) -> str:
    """Give a URL that every builder can download, and that its shell reads as one word."""
    parts = split_url("archive_url", url)
    if parts.scheme not in _SCHEMES or not parts.netloc or not parts.path.strip("/"):
        raise Refused(
            f": {_without_query(url)!r} is no archive that every builder can download",
            "Give an https://, http:// or s3:// URL of a tar archive of the bento.",
        )
    if parts.username or parts.password:
        raise Refused(
            ": it holds a user name or a password, which everybody can read there",
            "Use a presigned URL, or s3:// with download_env_from.",
        )
    _refuse_zip(parts.path)
    if not _PLAIN_URL.fullmatch(url):
        raise Refused(
            f": {_without_query(url)!r} has a character that the builder's shell would read as its "
            "own",
            "Percent-encode it.",
        )
    return url


def _in_a_bucket(address: str) -> str:
    """Give an address of an object that can be presigned, and that tar can unpack."""
    if not address:
        return address
    scheme, _, key = address.partition("://")
    if scheme not in BUCKETS or not key.partition("/")[2] or key.endswith("/"):
        raise Refused(
            f": {_without_query(address)!r} is no archive in a bucket",
            "Give s3://bucket/key or minio://bucket/key; for any other address archive_url.",
        )
    _refuse_zip(key)
    return address


def _refuse_zip(path: str) -> None:
    if path.endswith(".zip"):
        raise Refused(
            ": the builder unpacks with tar, which cannot read zip", "Export the bento as .tar.gz."
        )


def _tag_problem(tag: str) -> str:
    return "" if _TAG.fullmatch(tag) else "is no tag"


def _build_switches(annotations: dict[str, str]) -> dict[str, str]:
    if _OVERRULED in annotations:
        raise Refused(
            ": the field ociRegistryInsecure, which is always there, overrules it",
            "Use registry_insecure, with a registry_secret.",
            f"[{_OVERRULED}]",
        )
    check_switches({key: annotations[key] for key in annotations if key not in BUILD_ANNOTATIONS})
    return annotations


_Annotations = Annotated[
    UserAnnotations,
    without_keys(
        ": the image would lack its models; only BentoCloud runs such",
        dict.fromkeys(UNSERVABLE_BUILDS, "Leave it out."),
    ),
    AfterValidator(_build_switches),
    ON_OBJECTS,
]
ArchiveUrl = Annotated[str, AfterValidator(_archive)]
ModelTag = Annotated[str, valid(_tag_problem, "Write name:version.")]


class RequestedModel(Settings):
    """A model that the archive lacks; without a URL the builder asks a Yatai server."""

    tag: ModelTag
    url: ArchiveUrl = Field(default="", validate_default=True)
    size: str = ""


class BentoRequestOptions(BentoDeploymentOptions):
    """How a cluster builds and serves a bento: all of a BentoDeployment, and the build.

    Attributes:
        labels: Labels for the BentoDeployment and the pods, never for Service selectors; none for
            the BentoRequest, whose builder would begin a running build anew when one changes.
        annotations: Annotations for the BentoDeployment; `yatai.ai/...` switches steer operator
            and builder, and are where these read them.
        archive_url: Where the builder gets the bento: http, https or s3, a tar archive (plain,
            gzip, xz or bzip2) with bento.yaml at its top.
        archive: Instead of archive_url, where the archive is in a bucket: s3://bucket/key or
            minio://bucket/key. Whoever applies the release presigns it, so that no signature is in
            its options, records or files; only the BentoRequest has it.
        archive_seconds: How long the presigned URL of `archive` is good for, 60 to 604800.
        models: Models that the archive lacks: `tag` and `url` (and `size` with a
            `crd_generation` that has it).
        build_timeout: As in "30m" or in seconds; the builder's own default when empty. It ends the
            wait (BuildTimeout); the build itself is ended by 3.0.42 only.
        registry_secret: Secret with `.dockerconfigjson` that may push; the image is then needed.
        registry_insecure: Push and look for the image by plain http. With a registry_secret only:
            without one the builder's own DOCKER_REGISTRY_SECURE holds.
        download_env_from: Secrets and ConfigMaps of the downloader, as `envFrom` has them; a
            plain string names a Secret.
        builder_resources: Requests and limits of the build container.
        builder_envs: Variables of the build containers, `valueFrom` included.
        builder_pod_metadata: `labels` and `annotations` of the build's pods; Istio's sidecar is
            off unless said otherwise, since a build with it never ends.
        builder_pod_spec: Where the build's pods run; `priorityClassName` from "kubeflow-1.9" on.
    """

    refused = {
        **BentoDeploymentOptions.refused,
        "build_args": (
            ": every image builder hands them on with quotes around them, so that none has the "
            "name of an ARG in the Dockerfile",
            "Leave it out: set what the build needs in the bento (bento build --env), or in Secret "
            "yatai-image-builder-build-args of the builder's namespace.",
        ),
    }
    newer = (*BentoDeploymentOptions.newer, "models.size", "builder_pod_spec.priorityClassName")

    annotations: _Annotations = {}
    archive_url: ArchiveUrl = ""
    archive: Annotated[str, AfterValidator(_in_a_bucket)] = ""
    archive_seconds: Annotated[int, between(SHORTEST_URL, LONGEST_URL)] = 3600
    models: list[RequestedModel] = []
    build_timeout: str = ""
    registry_secret: Annotated[
        str,
        valid(
            optional(label_name_problem),
            "The builder names a volume after it: copy the Secret to a name without dots.",
        ),
    ] = ""
    registry_insecure: bool = False
    download_env_from: EnvFrom = []
    builder_resources: PodResources = PodResources()
    builder_envs: Env = []
    builder_pod_metadata: PodMetadata = {}
    builder_pod_spec: BuilderPodSpec = {}

    @model_validator(mode="after")
    def _check_build(self) -> Self:
        if self.archive and self.archive_url:
            raise InvalidInput(
                "archive: archive_url says already where the builder gets the bento.",
                hint="Give one of the two.",
            )
        if self.image_pull_secrets:
            raise InvalidInput(
                "image_pull_secrets: the builder writes the Bento, and gives it the registry "
                "Secret of the request only.",
                hint="Set registry_secret, or let the pods' service account pull.",
            )
        if self.registry_insecure and not self.registry_secret:
            raise InvalidInput(
                "registry_insecure: without a registry_secret the builder goes by its own setting "
                "(DOCKER_REGISTRY_SECURE), and would ignore it.",
                hint="Set registry_secret, or have the builder's setting changed.",
            )
        if _FORCED in self.annotations and not self.newer_crds:
            raise InvalidInput(
                f"annotations[{_FORCED}]: image builder 1.1.3 knows no such, and would ignore it.",
                hint="Set crd_generation='kubeflow-1.9' or newer where the cluster has it.",
            )
        return self
