"""Which image the cluster itself built and serves."""

from __future__ import annotations

import re
from collections.abc import Sequence

from kfp_bento.runtime.deployments.kube.cluster import ClusterConnection
from kfp_bento.runtime.deployments.kube.live_shapes import CORE_SHAPES, check_live
from kfp_bento.runtime.deployments.kube.objects import Manifest, ObjectRef
from kfp_bento.runtime.deployments.options.names import label_value_problem
from kfp_bento.runtime.deployments.targets.readiness import (
    WatchedDeployment,
    is_run_for,
    pod_images,
)
from kfp_bento.runtime.deployments.targets.yatai.kinds import BENTO, BENTO_REQUEST_KIND
from kfp_bento.runtime.deployments.targets.yatai.watch import (
    LIVE_SHAPES,
    bento_deployment_of,
    bento_of,
    pods_label,
)
from kfp_bento.runtime.programs import cleaned

_SHAPES = {**CORE_SHAPES, **LIVE_SHAPES}
_POD = ("v1", "Pod")
_MAIN = WatchedDeployment("", container="main")
_DIGEST = re.compile(r"(?<=@)sha256:[0-9a-f]{64}$")


def built_image(cluster: ClusterConnection, objects: Sequence[Manifest]) -> str:
    """Give the image of a BentoRequest by the digest that its pods run.

    A builder pushes by tag and tells no digest; the nodes know it, once pods run.

    Args:
        cluster: Where the release is.
        objects: Its objects, rendered or live.

    Returns:
        `repository@sha256:...`; the builder's own reference while no pod runs, or pods differ;
        empty where there is no request, or no Bento yet.
    """
    serving = bento_deployment_of(objects)
    metadata = serving["metadata"]
    place = ObjectRef(BENTO.api_version, BENTO.name, metadata["namespace"], bento_of(serving))
    requests = [one for one in objects if one["kind"] == BENTO_REQUEST_KIND.name]
    if place.name not in [one["metadata"]["name"] for one in requests]:
        return ""
    bento = cluster.get(place)
    if bento is None:
        return ""
    check_live(bento, _SHAPES)
    image = cleaned(str(bento["spec"].get("image") or ""))
    version = str(bento["spec"].get("tag") or "").partition(":")[2]
    if label_value_problem(version):
        return image
    labels = f"{pods_label(metadata['name'])},yatai.ai/bento-version={version}"
    pods = cluster.select(*_POD, place.namespace, labels=labels)
    for pod in pods:
        check_live(pod, _SHAPES)
    # Pods of this version may be left that another image of it has replaced.
    told = [pod_images(_MAIN, pod) for pod in pods if not pod["metadata"].get("deletionTimestamp")]
    found = [_DIGEST.search(runs) for asked, runs in told if is_run_for(image, asked)]
    digests = {one[0] for one in found if one}
    return f"{_repository(image)}@{digests.pop()}" if len(digests) == 1 else image


def _repository(image: str) -> str:
    """Cut tag and digest off; a port before the first slash is no tag."""
    name = image.partition("@")[0]
    last = name.rpartition("/")[2]
    return name[: len(name) - len(last)] + last.partition(":")[0]
