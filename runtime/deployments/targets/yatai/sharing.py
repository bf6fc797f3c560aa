"""What several releases of a namespace have in common, and what the image builder writes over.

A Bento has the name of its tag, and a BentoRequest the name of the Bento that its builder writes,
so that releases of one bento name the same ones.
"""

from __future__ import annotations

from typing import Any

from kfp_bento.runtime.deployments.kube.cluster import ClusterConnection
from kfp_bento.runtime.deployments.kube.live_shapes import check_live
from kfp_bento.runtime.deployments.kube.objects import Manifest, ObjectRef
from kfp_bento.runtime.deployments.targets.readiness import conditions_of
from kfp_bento.runtime.deployments.targets.target import Kind
from kfp_bento.runtime.deployments.targets.yatai.kinds import BENTO, BENTO_REQUEST_KIND
from kfp_bento.runtime.deployments.targets.yatai.watch import LIVE_SHAPES

WOKEN = "kfp-bento/woken"
_WAKER = "kfp-bento-record"
_MADE_OF = ("bentoTag", "image", "runners", "models")


def serves_as_bento(wanted: Manifest, live: Manifest) -> bool:
    """Say whether a live Bento is the one that is wanted."""
    return bool(wanted["spec"] == live["spec"])


def serves_as_request(wanted: Manifest, live: Manifest) -> bool:
    """Say whether a live BentoRequest asks for the image that is wanted."""
    return _made_of(wanted) == _made_of(live)


def _made_of(request: Manifest) -> list[Any]:
    spec = request["spec"]
    # A presigned URL is another one each day, for the same archive.
    archive = str(spec.get("downloadUrl") or "").partition("?")[0]
    return [archive, *(spec.get(key) or None for key in _MADE_OF)]


def request_of(manifest: Manifest) -> ObjectRef | None:
    """Give the BentoRequest whose builder writes a Bento over."""
    return _namesake(manifest, BENTO, BENTO_REQUEST_KIND)


def bento_of_request(manifest: Manifest) -> ObjectRef | None:
    """Give the Bento that a builder writes for a BentoRequest."""
    return _namesake(manifest, BENTO_REQUEST_KIND, BENTO)


def _namesake(manifest: Manifest, kind: Kind, other: Kind) -> ObjectRef | None:
    if manifest["kind"] != kind.name:
        return None
    metadata = manifest["metadata"]
    return ObjectRef(other.api_version, other.name, metadata["namespace"], metadata["name"])


def is_settled(cluster: ClusterConnection, wanted: Manifest, live: Manifest) -> bool:
    """Say whether a builder would not look at a BentoRequest again that has to be looked at.

    yatai-image-builder 3.0.42 skips what was available once, whatever it asks for by now, and
    1.1.3 writes the name of another image into the Bento without building it. So a request that
    is available and asks for another image, or whose Bento is gone or another, is made anew.
    """
    place = bento_of_request(wanted)
    available = (conditions_of(live).get("BentoAvailable") or {}).get("status")
    if place is None or available != "True":
        return False
    asked = live["spec"].get("image")
    if wanted["spec"].get("image") != asked:
        return True
    bento = cluster.get(place)
    return bento is None or bool(asked and bento["spec"].get("image") != asked)


def wake_operator(cluster: ClusterConnection, live: Manifest) -> None:
    """Make yatai-deployment look at a BentoDeployment again that it has failed with.

    It does not try again by itself, and is woken by any change of the Bento. An annotation there
    is neither handed on to pods nor part of what a build is known by.
    """
    check_live(live, LIVE_SHAPES)
    if (conditions_of(live).get("Available") or {}).get("status") != "False":
        return
    metadata = live["metadata"]
    name = live["spec"]["bento"]
    place = ObjectRef(BENTO.api_version, BENTO.name, metadata["namespace"], name)
    if cluster.get(place) is not None:
        change = {"metadata": {"annotations": {WOKEN: metadata["resourceVersion"]}}}
        cluster.merge(place, change, manager=_WAKER)
