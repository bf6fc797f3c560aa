"""The archive of a bento, handed to an image builder that has no credentials for its bucket.

Nothing but the URL itself reaches the builder's downloader in every version, and whoever may read
the BentoRequest can use it. So it is signed where a release is applied, for a time, and is neither
in the release nor in anything that is kept of it.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from kfp_bento.runtime.bentos import require_exported
from kfp_bento.runtime.deployments.kube.cluster import ClusterConnection
from kfp_bento.runtime.deployments.kube.live_shapes import check_live
from kfp_bento.runtime.deployments.kube.objects import Manifest, ObjectRef
from kfp_bento.runtime.deployments.targets.readiness import conditions_of
from kfp_bento.runtime.deployments.targets.yatai.kinds import BENTO_REQUEST_KIND
from kfp_bento.runtime.deployments.targets.yatai.request_options import BentoRequestOptions
from kfp_bento.runtime.deployments.targets.yatai.watch import LIVE_SHAPES
from kfp_bento.runtime.storage import open_place

if TYPE_CHECKING:
    from kfp_bento.runtime.deployments.targets.release import Release

_DATE = "%Y%m%dT%H%M%SZ"
_SECONDS = re.compile(r"[0-9]{1,7}")


def with_presigned_archive(
    cluster: ClusterConnection, release: Release, restoring: bool
) -> tuple[Manifest, ...]:
    """Give the manifests of a release with a URL by which the builder can get its archive.

    Args:
        cluster: Where the release may be already; what is signed there and still good stays,
            since another URL makes the builder begin anew.
        release: What was rendered.
        restoring: Whether it was built before; then the image is there, and the archive need
            not be.

    Raises:
        BentoError: The archive is of another bento.
        StorageError: The archive is not there, or there are no credentials to sign with.
    """
    options = BentoRequestOptions.of(release.target.kind, release.options)
    if not options.archive:
        return release.manifests
    if release.bento and not restoring:
        require_exported(options.archive, release.bento.tag, release.bento.digest)
    url = open_place(options.archive).presigned(seconds=options.archive_seconds)
    return tuple(
        _downloading(cluster, one, url, options.archive_seconds)
        if one["kind"] == BENTO_REQUEST_KIND.name
        else one
        for one in release.manifests
    )


def _downloading(
    cluster: ClusterConnection, request: Manifest, url: str, seconds: int
) -> dict[str, Any]:
    live = cluster.get(ObjectRef.of(request))
    if live is not None:
        check_live(live, LIVE_SHAPES)
        said = str(live["spec"].get("downloadUrl") or "")
        # Anybody may have written another one there: only its signature is taken over.
        if said.partition("?")[0] == url.partition("?")[0] and _may_stay(live, said, seconds):
            url = said
    return {**request, "spec": {**request["spec"], "downloadUrl": url}}


def _may_stay(live: Manifest, url: str, seconds: int) -> bool:
    """Say whether the builder needs no other URL: it has built, or has half the time left."""
    available = (conditions_of(live).get("BentoAvailable") or {}).get("status")
    if available in ("True", "False"):
        return bool(available == "True")  # after a failure another URL makes it try again
    return _end_of(url) >= datetime.now(UTC) + timedelta(seconds=seconds / 2)


def _end_of(url: str) -> datetime:
    """Give the end of a signature; long ago where the URL says none."""
    told = {key: values[0] for key, values in parse_qs(urlsplit(url).query).items()}
    try:
        since = datetime.strptime(told.get("X-Amz-Date", ""), _DATE).replace(tzinfo=UTC)
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)
    valid = told.get("X-Amz-Expires", "")
    return since + timedelta(seconds=int(valid) if _SECONDS.fullmatch(valid) else 0)
