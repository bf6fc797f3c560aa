"""The section of the report that shows the checks, served beside expected answers."""

from __future__ import annotations

import sys
from collections.abc import Container, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from kfp_bento.runtime.reports.blocks import badge, code, disclosure, facts, listing, note, table
from kfp_bento.runtime.reports.elements import Child, Markup, element
from kfp_bento.runtime.reports.json_text import one_line, readable
from kfp_bento.runtime.reports.quantities import counted, measure
from kfp_bento.runtime.reports.story import (
    Answers,
    Facts,
    answers,
    answers_of,
    checks,
    comparison,
    part,
    same,
    sentence,
)

_MOST_ROWS = 20
_ABSENT = object()  # stands for an answer that only the other side has


def checks_section(summary: Facts) -> Child:
    """Give each check with its measures, and served beside expected answers."""
    reports = checks(summary)
    pair = answers(summary)
    if not reports and not pair:
        return None
    loose = pair if pair and not comparison(summary) else None
    return [
        [element("article", _check(one)) for one in reports],
        element("article", element("h3", "Prediction"), _side_by_side(loose, range(sys.maxsize)))
        if loose
        else None,
    ]


def _check(check: Facts) -> Child:
    passed = check.get("passed") is True
    evidence = [one for one in check.get("evidence") or () if isinstance(one, Mapping)]
    differences = [one for one in evidence if "reason" in one]
    pair = answers_of(check)
    measures = dict(measure(name, value) for name, value in part(check, "measures").items())
    outcome = badge("done", "passed") if passed else badge("failed", "failed")
    return [
        element("h3", outcome, " ", str(check.get("name", "check")).replace("_", " ")),
        element("p", sentence(str(check.get("summary") or "No summary was recorded"))),
        facts(measures) if measures else None,
        _difference_table(differences) if differences else None,
        _side_by_side(pair, _wrong_rows(check, differences)) if pair else None,
        [
            _evidence(one)
            for one in evidence
            if "reason" not in one and answers_of({"evidence": [one]}) is None
        ],
    ]


def _evidence(entry: Facts) -> Markup:
    return disclosure("Request and answer", listing(readable(entry), "Request and answer"))


def _difference_table(entries: Sequence[Facts]) -> Markup:
    return table(
        f"Differences, the first {len(entries)}" if len(entries) > 1 else "The difference",
        ("Where", "Served", "Expected", "Why"),
        (
            (
                f"{entry.get('request', '')}{entry.get('path', '')}",
                code(one_line(entry.get("served"))),
                code(one_line(entry.get("expected"))),
                str(entry.get("reason", "")),
            )
            for entry in entries
        ),
        class_="differences",
    )


def _side_by_side(pair: Answers, wrong: Container[int]) -> Child:
    rows = list(zip_longest(_rows(pair.served), _rows(pair.expected), fillvalue=_ABSENT))
    hidden = len(rows) - _MOST_ROWS
    return [
        table(
            "Served beside expected",
            ("Row", "Served", "Registry's model", "Compared"),
            (
                (str(number), _answer(one), _answer(other), _compared(one, other, number in wrong))
                for number, (one, other) in enumerate(rows[:_MOST_ROWS])
            ),
            class_="answers",
        ),
        note(f"{counted(hidden, 'row')} more not shown.") if hidden > 0 else None,
    ]


def _wrong_rows(check: Facts, differences: Sequence[Facts]) -> Container[int]:
    """Give the rows that differ by more than the check allows; all where it does not say which."""
    mismatches = part(check, "measures").get("mismatches")
    rows = [entry.get("row") for entry in differences]
    if mismatches is None or mismatches > len(rows) or None in rows:
        return () if check.get("passed") is True else range(sys.maxsize)
    return frozenset(row for row in rows if row is not None)


def _rows(answer: Any) -> list[Any]:
    return list(answer) if isinstance(answer, list | tuple) else [answer]


def _answer(value: Any) -> Child:
    return "no answer" if value is _ABSENT else code(one_line(value))


def _compared(served: Any, expected: Any, wrong: bool) -> Markup:
    if served is _ABSENT or expected is _ABSENT:
        return badge("failed", "missing")
    if same(served, expected):
        return badge("done", "equal")
    return badge("failed", "differs") if wrong else badge("done", "within tolerance")
