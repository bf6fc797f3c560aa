"""What a release writes on its objects: labels on all, and annotations with its facts on one."""

from __future__ import annotations

from kfp_bento.runtime.deployments.kube.objects import Manifest

RELEASE_LABEL = "kfp-bento/release"
KIND_LABEL = "kfp-bento/kind"
IMAGE, BENTO, REVISION = "kfp-bento/image", "kfp-bento/bento", "kfp-bento/revision"
LAST_GOOD, PREVIOUS_GOOD = "kfp-bento/last-good", "kfp-bento/previous-good"
ARCHIVE = "kfp-bento/archive"
ROLLED_BACK = "kfp-bento/rolled-back"
TRIAL, RUN, NEW = "kfp-bento/trial", "kfp-bento/run", "kfp-bento/new"
PROMOTION = "kfp-bento/promotion"
CONTRACT, TRIAL_CONTRACT = "kfp-bento/contract", "kfp-bento/trial-contract"


def annotations_of(manifest: Manifest | None) -> dict[str, str]:
    """Give the annotations of an object; none where there is no object."""
    return dict(((manifest or {}).get("metadata") or {}).get("annotations") or {})


def revision_on(live: Manifest | None) -> str:
    """Give the revision that an object carries; empty when it has none."""
    return annotations_of(live).get(REVISION, "")
