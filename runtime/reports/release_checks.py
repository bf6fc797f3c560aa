"""The checks of a release, as a step leaves them: the document, the page, Markdown and metrics."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.reports.check_view import checked
from kfp_bento.runtime.reports.files import write_text
from kfp_bento.runtime.reports.markdown import code, document, facts, literal
from kfp_bento.runtime.reports.metrics import check_metrics
from kfp_bento.runtime.reports.page import templates
from kfp_bento.runtime.reports.summaries import check_summary

if TYPE_CHECKING:
    from kfp_bento.runtime.checks import ReleaseReports
    from kfp_bento.runtime.deployments import ReleaseFacts, Settlement


def write_checks(
    found: ReleaseReports,
    artifact: Any,
    *,
    page: str,
    summary: str,
    metrics: MutableMapping[str, Any],
) -> None:
    """Write what a checking step leaves, whether the checks passed or not.

    Args:
        found: The reports.
        artifact: Its `path` gets them as one sealed document, its `metadata` what a later step
            needs to believe it.
        page: Gets `checks_page`.
        summary: Gets the reports as Markdown.
        metrics: Gets the measures of all checks, and whether all passed.

    Raises:
        KfpBentoError: A file cannot be written.
    """
    artifact.metadata.update(record=found.save(Path(artifact.path)), passed=found.passed)
    write_text(checks_page(found), Path(page))
    write_text(checks_summary(found), Path(summary))
    for report in found.reports:
        metrics.update(check_metrics(report))
    metrics["passed"] = float(found.passed)


def write_approval(found: ReleaseReports, artifact: Any, *, summary: str) -> None:
    """Write what a step leaves that waited for an approval.

    Args:
        found: The one report of it.
        artifact: Its `path` gets it, sealed; its `metadata` what promote_model needs to believe it.
        summary: Gets it as Markdown.

    Raises:
        KfpBentoError: A file cannot be written.
    """
    artifact.metadata.update(record=found.save(Path(artifact.path)), passed=found.passed)
    write_text(document(*map(check_summary, found.reports)), Path(summary))


def checks_page(found: ReleaseReports) -> str:
    """Give the checks of a release as one HTML page that needs nothing but itself."""
    outcome = "done" if found.passed else "failed"
    return str(
        templates()
        .get_template("release_checks.html")
        .render(
            reports=found,
            release=found.release,
            run=SimpleNamespace(outcome=lambda _: outcome),
            checked=[checked(report.to_dict()) for report in found.reports],
            loose_rows=None,
        )
    )


def checks_summary(found: ReleaseReports) -> str:
    """Give the checks of a release as Markdown, with what became of it."""
    verdict = "all checks passed" if found.passed else "REFUSED"
    return document(
        f"# Release {literal(found.release.name)}: {verdict}",
        literal(found.settled),
        *(check_summary(report).replace("# ", "## ", 1) for report in found.reports),
    )


def settled_summary(release: ReleaseFacts, settled: Settlement) -> str:
    """Give what became of a release on trial as Markdown."""
    named = {
        "Target": code(release.target),
        "Namespace": code(release.namespace),
        "Revision": code(settled.revision or release.revision),
        "Image": code(release.image),
        "Answers at": code(release.url),
    }
    title = f"# Release {literal(release.name)}: {literal(settled.outcome)}"
    return document(title, literal(settled.message), facts(named))


def run_settled_summary(done: Sequence[str]) -> str:
    """Give what a run had left and what was done about it as Markdown."""
    lines = "\n".join(f"- {literal(text)}" for text in done)
    return document("# The end of the run", lines or "Nothing was left to settle.")
