"""The report of a whole run: one HTML page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Mapping

from kfp_bento.runtime.reports.blocks import badge, digest, facts, listing, mark, note
from kfp_bento.runtime.reports.check_section import checks_section
from kfp_bento.runtime.reports.elements import Child, Markup, element
from kfp_bento.runtime.reports.next_steps import next_steps
from kfp_bento.runtime.reports.quantities import human_bytes, human_seconds
from kfp_bento.runtime.reports.road import image_size, road_strip, time_bars
from kfp_bento.runtime.reports.sections import (
    bento_section,
    image_section,
    model_section,
    promotion_section,
    release_section,
)
from kfp_bento.runtime.reports.story import (
    Facts,
    comparison,
    model_title,
    part,
    stop_outcome,
    total_seconds,
    verdict,
)
from kfp_bento.runtime.reports.style import STYLE


def run_report(summary: Facts, manifests: Mapping[str, str]) -> str:
    """Give the report of a run as one HTML page.

    The page loads nothing and runs no script, so it reads the same from a disk, in a mail and in
    the sandboxed frame of the Kubeflow Pipelines UI. The same arguments give the same page.

    Args:
        summary: What summary.json of a run says. Any part may be missing: the page shows that it
            is, and does not call such a run promoted.
        manifests: File name to YAML text.
    """
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"{verdict(summary).word}: {model_title(summary)} (kfp-bento)"),
        element("style", Markup(STYLE)),
    )
    sections = (
        _section("Model", model_section(summary), "No model was pulled."),
        _section("Bento", bento_section(summary), "No bento was built."),
        _section("Image", image_section(summary), "No image was built."),
        _section("Deployment", release_section(summary, manifests), "Nothing was deployed."),
        _section("Checks", checks_section(summary), "No check has reported.", "checks", summary),
        _section(
            "Promotion",
            promotion_section(summary),
            "Not promoted: no alias was moved.",
            "promoted",
            summary,
        ),
        _section("Time", time_bars(summary), "No times were recorded."),
        _section("What to do next", _next(summary), ""),
    )
    body = element(
        "body",
        element(
            "main",
            _header(summary),
            element("h2", "The road", class_="aside"),
            road_strip(summary),
            sections,
        ),
    )
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def _header(summary: Facts) -> Markup:
    found = verdict(summary)
    outcome = "done" if found.promoted else "failed"
    return element(
        "header",
        element("p", "kfp-bento run report", class_="kicker"),
        element("h1", model_title(summary)),
        element(
            "div",
            mark(outcome),
            element("p", element("strong", f"{found.word}."), " ", found.sentence),
            class_=f"verdict {outcome}",
        ),
        facts(_key_facts(summary)),
    )


def _key_facts(summary: Facts) -> dict[str, Child]:
    image, release = part(summary, "image"), part(summary, "release")
    total, mismatches = (
        total_seconds(summary),
        part(comparison(summary), "measures").get("mismatches"),
    )
    return {
        "Model": digest(part(summary, "model").get("digest")),
        "Image": digest(image.get("digest")),
        "Image size": human_bytes(image_size(image)) if image else None,
        "Served by": str(release.get("runtime") or release.get("mode") or ""),
        "Answers that differ": f"{mismatches:.0f}" if mismatches is not None else None,
        "Whole run": human_seconds(total) if total is not None else None,
    }


def _section(
    title: str, content: Child, absent: str, stop: str = "", summary: Facts | None = None
) -> Markup:
    outcome = stop_outcome(summary, stop) if summary is not None else ""
    signs = {"failed": badge("failed", "failed"), "missing": badge("failed", "missing")}
    return element(
        "section",
        element("h2", title, " ", signs.get(outcome)),
        content if content is not None else note(absent, warning=True),
        class_="bad" if outcome in signs else None,
    )


def _next(summary: Facts) -> Child:
    return element(
        "ol",
        (
            element(
                "li",
                step.text,
                listing(step.command, "Command") if step.command else None,
            )
            for step in next_steps(summary)
        ),
        class_="next",
    )
