"""The end of a run, told in one page: models, image, release, checks, and the alias."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kfp_bento.runtime.reports.check_view import checked
from kfp_bento.runtime.reports.files import write_json, write_text
from kfp_bento.runtime.reports.page import shown_models, templates
from kfp_bento.runtime.reports.story import Story
from kfp_bento.runtime.reports.summaries import promotion_summary

if TYPE_CHECKING:
    from kfp_bento.runtime.checks import ReleaseReports
    from kfp_bento.runtime.models import ModelVersion
    from kfp_bento.runtime.promotion import Promotion


def write_promotion(
    promotion: Promotion,
    models: Sequence[ModelVersion],
    found: ReleaseReports,
    *,
    approval: ReleaseReports | None,
    record: str,
    summary: str,
    page: str,
) -> None:
    """Write what a promoting step leaves.

    Args:
        promotion: What became of the alias.
        models: The models that were promoted.
        found: The reports of their release.
        approval: The word of a person, where one was asked.
        record: Gets the promotion as JSON.
        summary: Gets it as Markdown.
        page: Gets `promotion_page`.

    Raises:
        KfpBentoError: A file cannot be written.
    """
    write_json(promotion.to_dict(), Path(record))
    write_text(promotion_summary(promotion), Path(summary))
    write_text(promotion_page(promotion, models, found, approval), Path(page))


def promotion_page(
    promotion: Promotion,
    models: Sequence[ModelVersion],
    found: ReleaseReports,
    approval: ReleaseReports | None = None,
) -> str:
    """Tell how a release and its alias came to be what they are, as one HTML page.

    It loads nothing and runs no script, like the report of a local run, and the same arguments give
    the same page.
    """
    promoted = promotion.to_dict()
    story = Story(
        {
            "models": [model.to_dict() for model in models],
            "checks": [report.to_dict() for report in found.reports],
            "promoted": promoted,
        }
    )
    return str(
        templates()
        .get_template("promoted.html")
        .render(
            run=story,
            verdict=story.verdict,
            release=found.release,
            promoted=promoted,
            approval=" ".join(one.summary for one in approval.reports) if approval else "",
            models=shown_models(story),
            checked=[checked(check) for check in story.checks],
            loose_rows=None,
            image={},
        )
    )
