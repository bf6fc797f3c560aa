"""Images, checks and promotions in Markdown, for the Kubeflow Pipelines UI and for reading."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.reports.json_text import one_line, readable
from kfp_bento.runtime.reports.load_view import LoadView
from kfp_bento.runtime.reports.markdown import code, document, facts, fenced, literal, table
from kfp_bento.runtime.reports.wording import (
    counted,
    gathered,
    human_bytes,
    listed,
    measure,
    shorten_digests,
    shortened,
)

if TYPE_CHECKING:
    from kfp_bento.runtime.checks import CheckReport
    from kfp_bento.runtime.images import Image, Layer
    from kfp_bento.runtime.promotion import Promotion
    from kfp_bento.runtime.scan import ScanReport


def image_summary(image: Image) -> str:
    """Give an image as Markdown: its name by digest, base, size, and the layers as a table."""
    named = {
        "Reference": code(image.reference),
        "Tags": ", ".join(code(tag) for tag in image.tags),
        "Base": code(image.base),
        "Platform": code(image.platform),
        "Size": f"{human_bytes(image.size)} in {counted(len(image.layers), 'layer')}",
        "Location": code(image.location),
        **({"Base signed by": code(image.base_signed_by)} if image.base_signed_by else {}),
        **({"Signed by": code(image.signed_by)} if image.signed_by else {}),
        **({"Notes": literal("; ".join(image.notes))} if image.notes else {}),
    }
    rows = (
        (
            literal(layers[0].kind),
            literal(shortened([layer.title for layer in layers])),
            human_bytes(sum(layer.size for layer in layers)),
            literal(
                layers[0].origin + (", on the registry's word" if layers[0].unverified else "")
            ),
            code(shorten_digests(layers[0].digest)) if len(layers) == 1 else "",
        )
        for layers in gathered(image.layers, _in_common)
    )
    return document(
        f"# Image {literal(image.repository)}",
        facts(named),
        "## Layers",
        table(("Kind", "Content", "Size", "Origin", "Digest"), rows, right=frozenset({2})),
    )


def _in_common(layer: Layer) -> object:
    """Give what several layers of dependencies must share for one line of the table."""
    return (layer.origin, layer.unverified) if layer.kind == "dependencies" else None


def check_summary(report: CheckReport) -> str:
    """Give a check as Markdown: passed or FAILED, its measures, and the evidence."""
    differences = [entry for entry in report.evidence if "reason" in entry]
    others = [entry for entry in report.evidence if "reason" not in entry]
    return document(
        f"# {literal(report.name)}: {'passed' if report.passed else 'FAILED'}",
        literal(report.summary),
        _measures(report),
        _differences(differences),
        *(fenced(readable(entry), "json") for entry in others),
        facts(
            {
                "Service": code(report.url),
                "Model": ", ".join(code(shorten_digests(one)) for one in report.model_digests),
            }
        ),
    )


def load_summary(report: CheckReport) -> str:
    """Give a load test as Markdown: what was measured, each limit, the first failures, the load."""
    view = LoadView(report)
    limits = (
        (
            literal(one.label),
            literal(one.bound),
            literal(one.measured),
            "yes" if one.holds else "NO",
        )
        for one in view.limits
    )
    asked = view.asked
    names = ("users", "ramp_seconds", "duration_seconds", "payloads")
    return document(
        f"# {literal(report.name)}: {'passed' if report.passed else 'FAILED'}",
        literal(report.summary),
        _measures(report),
        table(("Limit", "Has to be", "Measured", "Holds"), limits, right=frozenset({2})),
        _differences(view.failures),
        facts(
            {
                "Service": code(report.url),
                **{
                    name.removesuffix("_seconds").capitalize(): code(str(asked[name]))
                    for name in names
                    if name in asked
                },
                "Model": ", ".join(code(shorten_digests(one)) for one in report.model_digests),
            }
        ),
    )


def _measures(report: CheckReport) -> str:
    rows = (measure(name, value) for name, value in report.measures.items())
    return table(
        ("Measure", "Value"),
        ((literal(label), literal(value)) for label, value in rows),
        right=frozenset({1}),
    )


def scan_summary(report: ScanReport) -> str:
    """Give a scan as Markdown: whether all passed, and each finding with what to do about it."""
    rows = (
        (
            code(scan.model),
            "allowed" if one.allowed else literal(one.severity.value),
            code(one.name),
            code(one.file),
            literal(one.why),
            literal(one.advice),
        )
        for scan in report.scans
        for one in scan.findings
    )
    models = (
        (code(one.model), "yes" if one.passed else "NO", code(shorten_digests(one.digest)))
        for one in report.scans
    )
    verdict = "passed" if report.passed else "FAILED"
    return document(
        f"# scan\\_model: {verdict} (policy: {literal(report.policy)})",
        literal(report.summary),
        table(("Model", "Severity", "Name", "File", "Why", "What to do"), rows),
        "## Models",
        table(("Model", "Passed", "Digest"), models),
    )


def promotion_summary(promotion: Promotion) -> str:
    """Give a promotion as Markdown: which version of each model holds the alias, and which did."""
    alias = code(promotion.alias)
    titles = [f"{literal(one.name)} version {literal(one.version)}" for one in promotion.models]
    reached = [f"version {literal(one.version)} of {literal(one.name)}" for one in promotion.models]
    verb = "now points to" if promotion.changed else "already pointed to"
    rows = (
        (
            literal(one.name),
            literal(one.version),
            literal(one.previous) or "none",
            "yes" if one.changed else "no, it was there already",
            code(one.history_tag),
        )
        for one in promotion.models
    )
    return document(
        f"# {listed(titles)} {'is' if len(titles) == 1 else 'are'} {literal(promotion.alias)}",
        f"All checks passed. The alias {alias} {verb} {listed(reached)}.",
        literal(promotion.release),
        table(("Model", "Version", "Previous version", "Moved", "History tag"), rows),
    )


def _differences(entries: Sequence[Mapping[str, Any]]) -> str:
    if not entries:
        return ""
    rows = (
        (
            literal(f"{entry.get('request', '')}{entry.get('path', '')}"),
            code(one_line(entry.get("served"))),
            code(one_line(entry.get("expected"))),
            literal(str(entry["reason"])),
        )
        for entry in entries
    )
    return "## Differences\n\n" + table(("Where", "Served", "Expected", "Why"), rows)
