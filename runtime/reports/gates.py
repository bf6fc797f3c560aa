"""The gates on metrics and drift as people read them: Markdown, pages, and what Kubeflow draws."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.reports import gate_charts
from kfp_bento.runtime.reports.files import write_text
from kfp_bento.runtime.reports.markdown import code, document, facts, literal, table
from kfp_bento.runtime.reports.metrics import check_metrics
from kfp_bento.runtime.reports.page import templates
from kfp_bento.runtime.reports.wording import shorten_digests

if TYPE_CHECKING:
    from pathlib import Path

    from kfp_bento.runtime.checks import CheckReport, MetricsOutcome

_MOST_COLUMNS = 100
_NO_METRIC = ("rows", "unanswered")


@dataclass(frozen=True)
class MetricRow:
    """One metric: the candidate's value, the champion's, the difference, and its limits.

    `share` and `champion_share` are lengths of bars in percent of the greater of both, or of 1
    where metrics go up to 1.
    """

    name: str
    value: str
    champion: str
    delta: str
    share: float
    champion_share: float
    limits: Sequence[str]
    failed: bool


@dataclass(frozen=True)
class DriftRow:
    """One column: what was measured, why it has drifted, and its two histograms."""

    name: str
    kind: str
    measures: Mapping[str, str]
    reason: str
    then: Sequence[gate_charts.Block]
    now: Sequence[gate_charts.Block]
    first: str
    last: str


def write_metrics_check(
    outcome: MetricsOutcome,
    *,
    report: Path,
    kept: Path,
    summary: Path,
    page: Path,
    metrics: MutableMapping[str, Any],
    classification: MutableMapping[str, Any],
) -> None:
    """Write what the gate on metrics leaves, whether it passed or not.

    Args:
        outcome: The report, and the metrics.
        report: Gets the report as JSON.
        kept: Gets the metrics with the digest of the data, for later comparisons.
        summary: Gets Markdown.
        page: Gets `metrics_page`.
        metrics: Gets the measures.
        classification: Gets confusion matrix and ROC curve in the form of Kubeflow's
            `system.ClassificationMetrics`; nothing for a regression.

    Raises:
        KfpBentoError: A file cannot be written.
    """
    outcome.report.save(report)
    outcome.metrics.save(kept)
    write_text(metrics_summary(outcome.report), summary)
    write_text(metrics_page(outcome.report), page)
    metrics.update(check_metrics(outcome.report))
    classification.update(classification_metadata(outcome.report))


def write_drift_check(
    found: CheckReport,
    *,
    report: Path,
    summary: Path,
    page: Path,
    metrics: MutableMapping[str, Any],
) -> None:
    """Write what the gate on drift leaves, whether it passed or not.

    Args:
        found: The report.
        report: Gets it as JSON.
        summary: Gets Markdown.
        page: Gets `drift_page`.
        metrics: Gets the measures.

    Raises:
        KfpBentoError: A file cannot be written.
    """
    found.save(report)
    write_text(drift_summary(found), summary)
    write_text(drift_page(found), page)
    metrics.update(check_metrics(found))


def classification_metadata(report: CheckReport) -> dict[str, Any]:
    """Give confusion matrix and ROC curve as Kubeflow Pipelines keeps them (kfp/dsl/types)."""
    found: dict[str, Any] = {}
    matrix = _evidence(report, "confusion")
    if matrix:
        found["confusionMatrix"] = {
            "annotationSpecs": [{"displayName": name} for name in matrix["classes"]],
            "rows": [{"row": row} for row in matrix["confusion"]],
        }
    curves = (_evidence(report, "roc") or {}).get("roc", ())
    if len(curves) == 1:
        found["confidenceMetrics"] = [
            {"confidenceThreshold": limit, "recall": tpr, "falsePositiveRate": fpr}
            for fpr, tpr, limit in curves[0]["points"]
        ]
    return found


def metrics_summary(report: CheckReport) -> str:
    """Give the gate on metrics as Markdown: metrics beside the champion's, limits, classes."""
    rows = _metric_rows(report)
    per_class = (_evidence(report, "per_class") or {}).get("per_class", ())
    return document(
        f"# Metrics: {'passed' if report.passed else 'FAILED'}",
        literal(report.summary),
        table(
            ("Metric", "Candidate", "Champion", "Difference", "Limit", ""),
            (
                (
                    literal(one.name),
                    *(one.value, one.champion, one.delta),
                    literal("; ".join(one.limits)),
                    "" if not one.limits else "**no**" if one.failed else "yes",
                )
                for one in rows
            ),
            right=frozenset({1, 2, 3}),
        ),
        _failures(report),
        table(
            ("Class", "Precision", "Recall", "F1", "Rows"),
            (
                (
                    literal(str(one["class"])),
                    *(f"{one[name]:.4f}" for name in ("precision", "recall", "f1")),
                    f"{one['rows']:,}",
                )
                for one in per_class
            ),
            right=frozenset({1, 2, 3, 4}),
        ),
        facts(_about(report)),
    )


def drift_summary(report: CheckReport) -> str:
    """Give the gate on drift as Markdown: the columns, those that drifted first."""
    rows = _drift_rows(report)
    return document(
        f"# Drift: {'none to speak of' if report.passed else 'FOUND'}",
        literal(report.summary),
        table(
            ("Column", "Kind", "PSI", "Missing", "Drifted"),
            (
                (
                    literal(one.name),
                    literal(one.kind),
                    one.measures.get("PSI", ""),
                    one.measures.get("missing", ""),
                    literal(one.reason) or "no",
                )
                for one in rows[:_MOST_COLUMNS]
            ),
            right=frozenset({2, 3}),
        ),
        f"{len(rows) - _MOST_COLUMNS:,} more are not shown." if len(rows) > _MOST_COLUMNS else "",
        facts(_about(report)),
    )


def metrics_page(report: CheckReport) -> str:
    """Give the gate on metrics as one HTML page, which loads nothing and runs no script.

    Args:
        report: What `check_metrics` gave. The same report gives the same page.
    """
    matrix = _evidence(report, "confusion") or {}
    residuals = (_evidence(report, "residuals") or {}).get("residuals")
    return str(
        templates()
        .get_template("metrics.html")
        .render(
            report=report,
            rows=_metric_rows(report),
            has_champion=any(name.startswith("champion_") for name in report.measures),
            reasons=[one["reason"] for one in report.evidence if "reason" in one],
            classes=matrix.get("classes", ()),
            cells=gate_charts.confusion_cells(matrix.get("confusion", ())),
            per_class=(_evidence(report, "per_class") or {}).get("per_class", ()),
            curves=gate_charts.roc_lines((_evidence(report, "roc") or {}).get("roc", ())),
            residuals=gate_charts.histogram_blocks(**residuals) if residuals else (),
            extent=residuals["edges"] if residuals else (),
            zero=gate_charts.place_of_zero(residuals["edges"]) if residuals else -1,
        )
    )


def drift_page(report: CheckReport) -> str:
    """Give the gate on drift as one HTML page, which loads nothing and runs no script.

    Args:
        report: What `detect_drift` gave. The same report gives the same page.
    """
    rows = _drift_rows(report)
    return str(
        templates()
        .get_template("drift.html")
        .render(
            report=report,
            rows=rows[:_MOST_COLUMNS],
            left=max(0, len(rows) - _MOST_COLUMNS),
        )
    )


def _evidence(report: CheckReport, key: str) -> Mapping[str, Any] | None:
    return next((one for one in report.evidence if key in one), None)


def _about(report: CheckReport) -> dict[str, str]:
    kept = (_evidence(report, "metrics") or {}).get("metrics")
    data = kept.get("data", "") if isinstance(kept, Mapping) and "task" in kept else ""
    return {
        "Service": code(report.url),
        "Rows": f"{report.measures.get('rows', 0):,.0f}",
        "Data": code(shorten_digests(data)),
        "Model": ", ".join(code(shorten_digests(one)) for one in report.model_digests),
    }


def _failures(report: CheckReport) -> str:
    reasons = [str(one["reason"]) for one in report.evidence if "reason" in one]
    return "\n".join(f"- {literal(reason)}" for reason in reasons)


def _metric_rows(report: CheckReport) -> list[MetricRow]:
    found = report.measures
    names = [
        name
        for name in found
        if name not in _NO_METRIC and not name.startswith(("champion_", "delta_"))
    ]
    limits = [one for one in report.evidence if "limit" in one]
    return [
        _metric_row(name, found, [one for one in limits if one["request"] == name])
        for name in names
    ]


def _metric_row(
    name: str, found: Mapping[str, float], limits: Sequence[Mapping[str, Any]]
) -> MetricRow:
    value, champion = found[name], found.get(f"champion_{name}")
    most = max(abs(value), abs(champion or 0.0), 1e-300)
    if most <= 1 and value >= 0:
        most = 1.0
    delta = found.get(f"delta_{name}")
    return MetricRow(
        name,
        _number(value),
        "" if champion is None else _number(champion),
        "" if delta is None else f"{delta:+.4g}",
        round(100 * max(0.0, value) / most, 2),
        round(100 * max(0.0, champion or 0.0) / most, 2),
        [str(one["expected"]) for one in limits],
        any("reason" in one for one in limits),
    )


def _number(value: float) -> str:
    return (
        f"{value:.4f}" if (abs(value) < 10 and abs(value) >= 1e-4) or value == 0 else f"{value:.5g}"
    )


def _drift_rows(report: CheckReport) -> list[DriftRow]:
    words = {
        **{"psi": "PSI", "ks": "KS", "total_variation": "total variation"},
        **{"new_values": "new values", "missing": "missing"},
    }
    rows = []
    for one in report.evidence:
        if "column" not in one:
            continue
        then, now = gate_charts.pair_blocks(one["groups"])
        reason = str(one.get("reason", "")).removeprefix(f"{one['column']}: ")
        measures = {
            words[name]: f"{100 * value:+.1f} %" if name == "missing" else f"{value:.3f}"
            for name, value in one["measures"].items()
        }
        ends = [str(group[0]) for group in (*one["groups"][:1], *one["groups"][-1:])] or ["", ""]
        rows.append(
            DriftRow(
                str(one["column"]), str(one["kind"]), measures, reason, then, now, ends[0], ends[-1]
            )
        )
    return rows
