"""Checks as the report shows them: served beside expected answers, row by row."""

from __future__ import annotations

import sys
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from kfp_bento.runtime.reports.json_text import one_line
from kfp_bento.runtime.reports.story import Answers, Facts, Story, answers_of, part, sentence
from kfp_bento.runtime.reports.wording import measures

MOST_ROWS = 20
_ABSENT = object()  # stands for an answer that only the other side has
_ALL = range(sys.maxsize)


@dataclass(frozen=True)
class Row:
    """One served and one expected answer as JSON, empty where there is none; and the outcome."""

    served: str
    expected: str
    outcome: str
    word: str


@dataclass(frozen=True)
class CheckView:
    """One check.

    Attributes:
        rows: Its answers side by side; None where it kept none.
        differences: The places where they differ, as the check found them.
        others: What else it kept.
    """

    title: str
    passed: bool
    summary: str
    measures: Mapping[str, str]
    rows: Sequence[Row] | None
    differences: Sequence[Facts]
    others: Sequence[Facts]


def checked(check: Facts) -> CheckView:
    """Give a check report as it is shown."""
    evidence = [one for one in check.get("evidence") or () if isinstance(one, Mapping)]
    differences = [one for one in evidence if "reason" in one]
    pair = answers_of(check)
    return CheckView(
        title=str(check.get("name", "check")).replace("_", " "),
        passed=check.get("passed") is True,
        summary=sentence(str(check.get("summary") or "No summary was recorded")),
        measures=measures(part(check, "measures")),
        rows=_side_by_side(pair, _wrong_rows(check, differences)) if pair else None,
        differences=differences,
        others=[
            one for one in evidence if "reason" not in one and not answers_of({"evidence": [one]})
        ],
    )


def loose_rows(run: Story) -> Sequence[Row] | None:
    """Give the answers that a run has although no check compared them; None if there are none."""
    pair = run.answers
    return _side_by_side(pair, _ALL) if pair and not run.comparison else None


def _side_by_side(pair: Answers, wrong: Container[int]) -> list[Row]:
    rows = zip_longest(_rows(pair.served), _rows(pair.expected), fillvalue=_ABSENT)
    return [_row(one, other, number in wrong) for number, (one, other) in enumerate(rows)]


def _wrong_rows(check: Facts, differences: Sequence[Facts]) -> Container[int]:
    """Give the rows that differ by more than the check allows; all where it does not say which."""
    mismatches = part(check, "measures").get("mismatches")
    rows = [entry.get("row") for entry in differences]
    if mismatches is None or mismatches > len(rows) or None in rows:
        return () if check.get("passed") is True else _ALL
    return frozenset(row for row in rows if row is not None)


def _rows(answer: Any) -> list[Any]:
    return list(answer) if isinstance(answer, list | tuple) else [answer]


def _row(served: Any, expected: Any, wrong: bool) -> Row:
    one, other = ("" if side is _ABSENT else one_line(side) for side in (served, expected))
    if not one or not other:
        return Row(one, other, "failed", "missing")
    if one == other:
        return Row(one, other, "done", "equal")
    return Row(one, other, *(("failed", "differs") if wrong else ("done", "within tolerance")))
