"""The page of a load test: honest, escaped, and dependent on nothing."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from parsed_page import Page
from sample_loads import FAILURE, LOAD, MEASURES, held, make_load, step

from kfp_bento.runtime.checks import CheckReport
from kfp_bento.runtime.reports import charts, load_page, load_summary

MARKUP = "<script>alert(1)</script>\"'&<img src=x onerror=y>"


def texts(value: Any) -> Any:
    """The value with markup at the end of every text in it."""
    if isinstance(value, dict):
        return {key: texts(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [texts(item) for item in value]
    return value + MARKUP if isinstance(value, str) else value


def test_a_load_test_is_told_with_its_limits_failures_and_charts() -> None:
    page = Page(load_page(make_load()))
    assert page.unbalanced == page.open == []
    for said in (
        *("Did not pass", "http://wine.models:3000", "14.2 ms", "1,234", "at most 50.0 ms"),
        *("broken", "holds", "1,234", "other value", "4 users made 85 requests."),
        *("the golden requests", "as many as are answered", "p99: 15.9 ms"),
    ):
        assert said in page.text, said
    assert len(page.all("svg")) > 3
    assert "Passed" in Page(load_page(make_load(passed=True))).text


def test_the_page_loads_nothing_and_runs_nothing() -> None:
    html = load_page(make_load())
    page = Page(html)
    assert not {"script", "link", "img", "iframe", "object"} & {name for name, _ in page.elements}
    assert not re.search(r"url\(|@import|javascript:", html)
    names = {name for _, attributes in page.elements for name in attributes}
    assert not {name for name in names if name.startswith("on") or name in ("src", "href")}


def test_what_others_wrote_is_no_markup() -> None:
    told = {name: FAILURE[name] for name in ("request", "reason", "path")}
    hostile = make_load(
        url="http://x/" + MARKUP,
        summary="Summary" + MARKUP,
        evidence=({**FAILURE, **texts(told)}, {"limits": []}, LOAD),
    )
    page = Page(load_page(hostile))
    assert page.unbalanced == page.open == []
    assert not {"script", "img"} & {name for name, _ in page.elements}
    assert page.text.count("alert(1)") >= 4


@pytest.mark.parametrize(
    "evidence",
    [
        (),
        ({"limits": []},),
        ({**LOAD, "over_time": [], "histogram": []},),
        ({**LOAD, "over_time": [step(0, 0)], "histogram": []},),
        ({**LOAD, "over_time": [step(0, 1)], "histogram": LOAD["histogram"][:1]},),
        ({"limits": [held("p95_ms", 50.0, None, "nothing was measured")]},),
    ],
)
def test_whatever_is_missing_there_is_a_page(evidence: Any) -> None:
    few = {"requests": 0.0, "failures": 0.0, "failure_ratio": 1.0, "seconds": 1.0}
    for measures in (few, MEASURES):
        report = make_load(evidence=evidence, measures=measures)
        assert Page(load_page(report)).unbalanced == []
        assert "FAILED" in load_summary(report)


def test_the_same_report_gives_the_same_page() -> None:
    assert load_page(make_load()) == load_page(CheckReport.from_dict(make_load().to_dict()))


def test_the_process_that_asked_may_have_been_the_limit() -> None:
    busy = {**LOAD, "asked": {**LOAD["asked"], "asker_was_busy": True}}
    assert "at its own limit" not in Page(load_page(make_load())).text
    assert "at its own limit" in Page(load_page(make_load(evidence=({"limits": []}, busy)))).text


def test_the_summary_has_limits_and_failures() -> None:
    text = load_summary(make_load())
    assert text.startswith("# load\\_test: FAILED")
    assert r"| Failure ratio | at most 0 | 0\.0588 | NO |" in text
    assert "| POST /predict (row 1)\\[0\\] | `7` | `0` | other value |" in text


@pytest.mark.parametrize("highest", [1e-6, 0.3, 1.0, 7.0, 99.9, 100.0, 12345.0, 3e7])
def test_an_axis_holds_what_it_shows_with_few_round_ticks(highest: float) -> None:
    axis = charts.axis(highest)
    assert highest <= axis.top * (1 + 1e-9)
    assert axis.top <= 2.5 * highest
    assert 2 <= len(axis.ticks) <= 6
    assert (axis.ticks[0].at, axis.ticks[-1].at) == (0, 100)


def test_a_line_breaks_where_nothing_was_measured() -> None:
    assert charts.line([(0, 0), (10, 50), None, (30, 100)]) == "M0 100 L10 50 M30 0 h0.01"
    assert charts.band([(0, 0), None], [(0, 10), None]).count("Z") == 1


def test_shapes_stay_within_their_chart() -> None:
    for one in (
        make_load(),
        replace(make_load(), evidence=({"limits": [held("p95_ms", 60.0, 1.0)]}, LOAD)),
    ):
        numbers = re.findall(r' d="(M[^"]+)"', load_page(one).partition("<main>")[2])
        found = [float(text) for path in numbers for text in re.findall(r"[\d.]+", path)]
        assert found
        assert all(0 <= number <= 100 for number in found)
