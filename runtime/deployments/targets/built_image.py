"""Which image the cluster itself built and serves."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from kfp_bento.runtime.deployments.kube.cluster import ClusterConnection, ObjectRef
from kfp_bento.runtime.deployments.options.names import label_value_problem
from kfp_bento.runtime.deployments.targets.target import BENTO, first_of_kind
from kfp_bento.runtime.deployments.targets.targets import read_live, watched_release
from kfp_bento.runtime.programs import cleaned

_POD = ("v1", "Pod")
_DIGEST = re.compile(r"(?<=@)sha256:[0-9a-f]{64}$")


def served_image(cluster: ClusterConnection, manifests: Sequence[Mapping[str, Any]]) -> str:
    """Give the image of a BentoRequest by the digest that its pods run.

    A builder pushes by tag and tells no digest; the nodes know it, once pods run.

    Returns:
        `repository@sha256:...`; the builder's own reference while no pod runs, or pods differ;
        empty where the cluster builds nothing.
    """
    serving = first_of_kind(manifests, "BentoDeployment") or {"spec": {}}
    named = [one for one in manifests if one["metadata"]["name"] == serving["spec"].get("bento")]
    request = first_of_kind(named, "BentoRequest")
    if request is None:
        return ""
    metadata = request["metadata"]
    place = ObjectRef(BENTO.api_version, BENTO.name, metadata["namespace"], metadata["name"])
    bento = read_live(cluster.get(place))
    if bento is None:
        return ""
    image = cleaned(str(bento["spec"].get("image") or ""))
    watched = watched_release(manifests)
    version = str(bento["spec"].get("tag") or "").partition(":")[2]
    if label_value_problem(version):
        return image
    labels = f"{watched.pods},yatai.ai/bento-version={version}"
    pods = [read_live(pod) for pod in cluster.select(*_POD, place.namespace, labels=labels)]
    found = (
        _DIGEST.search(status.get("imageID") or "")
        for pod in pods
        for status in (pod.get("status") or {}).get("containerStatuses") or []
        if status["name"] == "main"
    )
    digests = {one[0] for one in found if one}
    return f"{_repository(image)}@{digests.pop()}" if len(digests) == 1 else image


def _repository(image: str) -> str:
    """Cut tag and digest off; a port before the first slash is no tag."""
    name = image.partition("@")[0]
    last = name.rpartition("/")[2]
    return name[: len(name) - len(last)] + last.partition(":")[0]
