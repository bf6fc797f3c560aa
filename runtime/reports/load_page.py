"""The page of a load test: limits, latency over time and how it is distributed, failures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.reports import charts
from kfp_bento.runtime.reports.load_view import Facts, LoadView
from kfp_bento.runtime.reports.page import templates
from kfp_bento.runtime.reports.wording import counted, measure

if TYPE_CHECKING:
    from kfp_bento.runtime.checks import CheckReport

_PERCENTILES = ("p50_ms", "p95_ms", "p99_ms")
_FARTHEST_LIMIT = 2.5


def load_page(report: CheckReport) -> str:
    """Give a load test as one HTML page, which loads nothing and runs no script.

    Args:
        report: What `load_test` gave. The same report gives the same page.
    """
    view = LoadView(report)
    return str(
        templates()
        .get_template("load.html")
        .render(
            report=report,
            view=view,
            headline=_headline(report),
            asked=_asked(view),
            latency=_latency(view),
            rate=_rate(view),
            distribution=_distribution(view),
        )
    )


def _headline(report: CheckReport) -> dict[str, str]:
    found = report.measures
    names = ("requests_per_second", *_PERCENTILES, "max_ms", "failures", "requests")
    return dict(measure(name, found[name]) for name in names if name in found)


def _asked(view: LoadView) -> dict[str, str]:
    asked = view.asked
    if not asked:
        return {}
    cap, table = asked["max_requests_per_second"], asked["payloads"] != "golden"
    rows = f", {counted(asked['rows_per_request'], 'row')} a request" if table else ""
    return {
        "Users": f"{asked['users']:,}",
        "Ramp": f"{asked['ramp_seconds']:g} s",
        "All users": f"{asked['duration_seconds']:g} s",
        "Requests per second": f"at most {cap:g}" if cap else "as many as are answered",
        "Asked": counted(asked["requests"], "different request"),
        "From": f"{asked['payloads']}{rows}" if table else "the golden requests",
        "Time limit of a request": f"{asked['timeout_seconds']:g} s",
        "Ended by": {"time": "time"}.get(asked["ended_by"], "number of requests"),
    }


def _latency(view: LoadView) -> dict[str, Any]:
    """Give the chart of p50 and p95 over time, with the limits that are not far off."""
    steps = view.steps
    highest = max((one.get("p95_ms", 0.0) for one in steps), default=0.0)
    if not highest:
        return {}
    limits = {name: view.bound(name) for name in ("p50_ms", "p95_ms")}
    near = {name: one for name, one in limits.items() if one and one <= _FARTHEST_LIMIT * highest}
    axis = charts.axis(max(highest, *near.values()) if near else highest)
    middles = [100 * (one["second"] + one["seconds"] / 2) / view.last for one in steps]

    def points(name: str) -> list[charts.Point | None]:
        return [
            (round(middle, 3), axis.height(one[name])) if name in one else None
            for middle, one in zip(middles, steps, strict=True)
        ]

    lower, upper = points("p50_ms"), points("p95_ms")
    return {
        "y": axis.ticks,
        "x": charts.seconds_axis(view.last),
        "p50": charts.line(lower),
        "p95": charts.line(upper),
        "band": charts.band(lower, upper),
        "limits": [
            (name.removesuffix("_ms"), charts.number(one), axis.height(one))
            for name, one in near.items()
        ],
        "unit": "ms",
    }


def _rate(view: LoadView) -> dict[str, Any]:
    """Give the chart of answers per second over time, right and failed."""
    rates = [one["requests"] / max(one["seconds"], 1e-3) for one in view.steps]
    if not any(rates):
        return {}
    axis = charts.axis(max(rates))
    return {
        "y": axis.ticks,
        "x": charts.seconds_axis(view.last),
        "bars": [
            charts.Bar(
                round(100 * one["second"] / view.last, 3),
                round(100 * one["seconds"] / view.last, 3),
                axis.height(rate),
                axis.height(one["failures"] / max(one["seconds"], 1e-3)),
                _second_in_words(one, rate),
            )
            for one, rate in zip(view.steps, rates, strict=True)
        ],
        "unit": "per second",
    }


def _second_in_words(one: Facts, rate: float) -> str:
    failed = f", {one['failures']:,.0f} failed" if one["failures"] else ""
    return f"from {one['second']:g} s: {charts.number(rate)} per second{failed}"


def _distribution(view: LoadView) -> dict[str, Any]:
    """Give the histogram with the percentiles in it."""
    found: Sequence[Facts] = view.histogram
    if not found:
        return {}
    total = sum(one["requests"] for one in found)
    most = charts.axis(100 * max(one["requests"] for one in found) / total)
    bars = [
        charts.Bar(
            one.left, one.width, most.height(100 * facts["requests"] / total), 0.0, one.title
        )
        for one, facts in zip(charts.buckets(found, total), found, strict=True)
    ]
    return {
        "y": most.ticks,
        "x": charts.bucket_edges(found),
        "bars": bars,
        "marks": [
            (name.removesuffix("_ms"), measure(name, value)[1], charts.in_bucket(found, value))
            for name in _PERCENTILES
            if (value := view.report.measures.get(name)) is not None
        ],
        "unit": "% of the requests",
    }
