"""What the targets of Yatai's operators take, and what their objects have in common."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from kfp_bento.runtime.deployments.options.names import split_url
from kfp_bento.runtime.deployments.options.pod_settings import (
    check_scheduling,
)
from kfp_bento.runtime.errors import InvalidInput

# The operator's own containers in every pod.
OWN_CONTAINERS = ("main", "proxy", "metrics-transformer", "monitor-exporter")

_SCHEMES = ("http", "https", "s3")
# The builder hands the URL to a shell.
_PLAIN_URL = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!&()*+,;=%-]+")
_BUILD_ARG = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=.*", re.DOTALL)
_TAG = re.compile(r"[a-z0-9][a-z0-9_.-]*:[a-z0-9][a-z0-9_.-]*", re.IGNORECASE)


def pods_of(name: str) -> dict[str, str]:
    """Give the label of all pods that the operator makes of a BentoDeployment."""
    return {"yatai.ai/bento-deployment": name}


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
