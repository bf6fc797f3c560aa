"""A release on trial, checked and kept or left in one go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.checks import CheckReport, ReleaseReports, check_release
from kfp_bento.runtime.errors import PromotionRefused
from kfp_bento.runtime.promotion.promotion import Promotion, confirm_checked, promote_release

if TYPE_CHECKING:
    from kfp_bento.runtime.deployments import ReleaseFacts, Waiting
    from kfp_bento.runtime.models import ModelVersion
    from kfp_bento.runtime.proof import Golden

PROMOTION = "promotion"
"""The name of the report that says why a release whose checks passed was refused."""


@dataclass(frozen=True)
class Released:
    """What became of a release.

    Attributes:
        models: The models that it serves.
        found: The reports of its checks; the last one says why the promotion was refused.
        promotion: What became of the alias; None where the release was refused.
    """

    models: tuple[ModelVersion, ...]
    found: ReleaseReports
    promotion: Promotion | None = None

    @property
    def passed(self) -> bool:
        """Whether it was kept as the good one."""
        return self.promotion is not None


def check_and_promote(
    release: ReleaseFacts,
    golden: Golden,
    models: Sequence[ModelVersion],
    alias: str = "",
    *,
    gates: Mapping[str, Mapping[str, Any]] | None = None,
    required: Sequence[str] = (),
    ready_seconds: float = 120.0,
    tracking_uri: str = "",
    by: str = "",
    why: str = "",
    waiting: Waiting | None = None,
) -> Released:
    """Check a release on trial, then keep it and move the alias; or bring the last good one back.

    Args:
        release: The release, as its deployment gave it.
        golden: The golden answers of its bento.
        models: Its models; none for a service of one's own.
        alias: The alias to move; "" moves none and keeps the release alone.
        gates: See `check_release`.
        required: See `promote_release`.
        ready_seconds: See `check_release`.
        tracking_uri: See `promote_release`.
        by: See `promote_release`.
        why: See `promote_release`.
        waiting: How long the last good release may take to serve.

    Returns:
        What was found and done; a refusal is a report in it, and no error.

    Raises:
        InvalidInput: A gate or its options, or the alias, cannot be used.
        CheckError: A check could not run.
        PromotionError: The registry did not do as asked.
        DeploymentError: The cluster did not.
    """
    found = check_release(
        release, golden, gates=gates, ready_seconds=ready_seconds, waiting=waiting
    )
    if not found.passed:
        return Released(tuple(models), found)
    told: dict[str, Any] = {"tracking_uri": tracking_uri, "by": by, "why": why}
    try:
        if not alias:
            kept = confirm_checked(found, required, waiting=waiting)
            return Released(tuple(models), found, Promotion("", (), kept.message))
        promoted = promote_release(models, found, alias, required=required, waiting=waiting, **told)
        return Released(tuple(models), found, promoted)
    except PromotionRefused as refusal:
        return Released(tuple(models), _refused(found, refusal))


def _refused(found: ReleaseReports, refusal: PromotionRefused) -> ReleaseReports:
    """Give reports that say why the release was not kept; it has been left already."""
    release = found.release
    report = CheckReport(
        name=PROMOTION,
        passed=False,
        summary=refusal.message,
        measures={},
        evidence=({"hint": refusal.hint},),
        model_digests=found.reports[-1].model_digests,
        url=release.url,
        image=release.image,
        release=release.title,
    )
    return replace(found, reports=(*found.reports, report))
