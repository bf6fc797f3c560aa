"""The road of a run as a strip of its six stops, and its time as bars."""

from __future__ import annotations

from kfp_bento.runtime.reports.blocks import badge, digest, table
from kfp_bento.runtime.reports.elements import Child, Markup, element
from kfp_bento.runtime.reports.quantities import counted, human_bytes, human_seconds
from kfp_bento.runtime.reports.story import (
    Facts,
    checks,
    failed_checks,
    model_title,
    part,
    stop_outcome,
    stop_seconds,
    times,
    total_seconds,
)

_WORDS = {"done": "done", "failed": "failed", "missing": "not done"}
_TITLES = {
    "model": "Model",
    "bento": "Bento",
    "image": "Image",
    "release": "Deployment",
    "checks": "Checks",
    "promoted": "Promotion",
}
_BETWEEN = "start, end and in between"


def road_strip(summary: Facts) -> Markup:
    """Give the six stops in order: what each gave, how it ended, and its seconds."""
    return element(
        "ol",
        (_stop(summary, stop, title) for stop, title in _TITLES.items()),
        class_="road",
        aria_label="The road from model to promotion",
    )


def _stop(summary: Facts, stop: str, title: str) -> Markup:
    outcome, seconds = stop_outcome(summary, stop), stop_seconds(summary, stop)
    # Without checks or promotion the run has not reached its end: that must not look neutral.
    look = "failed" if outcome == "missing" and stop in ("checks", "promoted") else outcome
    return element(
        "li",
        element("span", title, class_="stop"),
        element("span", _product(summary, stop) if summary.get(stop) else None, class_="product"),
        element(
            "span",
            badge(look, _WORDS[outcome]),
            element("span", human_seconds(seconds), class_="seconds")
            if seconds is not None
            else "",
            class_="outcome",
        ),
        class_=look,
    )


def _product(summary: Facts, stop: str) -> Child:
    facts = part(summary, stop)
    if stop == "model":
        return model_title(summary)
    if stop == "bento":
        name, colon, version = bento_tag(facts).partition(":")
        return [name, colon, element("wbr"), version]
    if stop == "image":
        return [digest(facts.get("digest")), element("br"), human_bytes(image_size(facts))]
    if stop == "release":
        return str(facts.get("runtime") or facts.get("mode") or "")
    if stop == "checks":
        done, failed = checks(summary), failed_checks(summary)
        return f"{len(done) - len(failed)} of {len(done)} passed"
    return f"{facts.get('alias', '?')} to version {facts.get('version', '?')}"


def bento_tag(bento: Facts) -> str:
    """Give a bento's tag, name:version."""
    return str(
        bento.get("tag") or ":".join(str(bento.get(key, "?")) for key in ("name", "version"))
    )


def image_size(image: Facts) -> float:
    """Give the bytes of all layers."""
    return float(
        image.get("size") or sum(layer.get("size", 0) for layer in image.get("layers") or ())
    )


def time_bars(summary: Facts) -> Markup | None:
    """Give the time of each step as bars, with what the steps do not account for."""
    steps, total = times(summary), total_seconds(summary)
    if not steps:
        return None
    rest = (total or 0) - sum(seconds for _, seconds in steps)
    rows = [*steps, *([(_BETWEEN, rest)] if rest >= 0.05 else [])]
    longest = max(seconds for _, seconds in rows) or 1
    whole = f", {human_seconds(total)} in all" if total is not None else ""
    return table(
        f"{counted(len(steps), 'step')}{whole}",
        ("Step", "Time", "Share of the longest"),
        (
            (
                name.replace("_", "-") if name != _BETWEEN else name,
                human_seconds(seconds),
                element("span", class_="bar", style=f"width:{100 * seconds / longest:.1f}%"),
            )
            for name, seconds in rows
        ),
        right=frozenset({1}),
        class_="times",
    )
