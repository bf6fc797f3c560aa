"""A build that has failed is tried again when the same release is applied again.

No builder does so by itself: what it knows a build by is the spec of the BentoRequest, and in
later versions its marks. So the number of the attempt is in the spec, at a place that changes
nothing else: an annotation of the build's pods. Every version then ends the build before and begins
another.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.deployments.kube.cluster import ClusterConnection
from kfp_bento.runtime.deployments.kube.live_shapes import check_live
from kfp_bento.runtime.deployments.kube.objects import Manifest, ObjectRef
from kfp_bento.runtime.deployments.targets.readiness import conditions_of
from kfp_bento.runtime.deployments.targets.yatai.kinds import BENTO_REQUEST_KIND
from kfp_bento.runtime.deployments.targets.yatai.presigned_archive import with_presigned_archive
from kfp_bento.runtime.deployments.targets.yatai.watch import (
    LIVE_SHAPES,
    has_failed_to_build,
    seconds_to_build,
)

if TYPE_CHECKING:
    from kfp_bento.runtime.deployments.targets.release import Release

ATTEMPT = "kfp-bento/attempt"
_NUMBER = re.compile(r"[0-9]{1,6}")


def with_attempt(
    cluster: ClusterConnection, release: Release, restoring: bool
) -> tuple[Manifest, ...]:
    """Give the manifests of a release with a signed archive, and the attempt that is made.

    Args:
        cluster: Where the release may be already; a build that goes on or is done keeps its
            number.
        release: What was rendered.
        restoring: Whether it was built before.

    Raises:
        KfpBentoError: As for `with_presigned_archive`.
    """
    return tuple(
        _numbered(cluster, one) if one["kind"] == BENTO_REQUEST_KIND.name else one
        for one in with_presigned_archive(cluster, release, restoring)
    )


def _numbered(cluster: ClusterConnection, request: Manifest) -> Manifest:
    live = cluster.get(ObjectRef.of(request))
    if live is None:
        return request
    check_live(live, LIVE_SHAPES)
    told = (live["spec"].get("imageBuilderExtraPodMetadata") or {}).get("annotations") or {}
    said = str(told.get(ATTEMPT, ""))
    number = int(said) if _NUMBER.fullmatch(said) else 0
    if has_failed_to_build(live) or _is_overdue(live):
        number += 1
    if not number:
        return request
    extra: dict[str, Any] = dict(request["spec"].get("imageBuilderExtraPodMetadata") or {})
    extra["annotations"] = {**extra.get("annotations", {}), ATTEMPT: str(number)}
    return {**request, "spec": {**request["spec"], "imageBuilderExtraPodMetadata": extra}}


def _is_overdue(live: Manifest) -> bool:
    """Say whether a build goes on for longer than it may; its builder may not end it."""
    building = conditions_of(live).get("ImageBuilding") or {}
    seconds = seconds_to_build(live)
    if building.get("status") != "True" or not seconds:
        return False
    try:
        since = datetime.fromisoformat(str(building.get("lastTransitionTime") or ""))
    except ValueError:
        return False
    since = since if since.tzinfo else since.replace(tzinfo=UTC)
    return since + timedelta(seconds=seconds) < datetime.now(UTC)
