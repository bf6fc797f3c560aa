"""What a load comes to, out of the moments at which requests ended."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import pytest
from checked_models import TAG, make_golden

from kfp_bento.runtime.checks.load_answers import Failures, Judge
from kfp_bento.runtime.checks.load_measures import (
    Samples,
    histogram,
    load_measures,
    over_time,
    quantile,
)
from kfp_bento.runtime.http import HttpAnswer
from kfp_bento.runtime.proof import Content, GoldenRequest


def samples(*ended: tuple[float, float], failed: set[int] = set(), **more: Any) -> Samples:
    """Requests by when they ended (seconds) and how long they took (milliseconds)."""
    facts: dict[str, Any] = {"users": [1] * 100, "ramp": 0.0, "asked": 10.0, **more}
    moments = [moment for moment, _ in ended]
    return Samples(moments, [took for _, took in ended], frozenset(failed), **facts)


def steadily(count: int, seconds: float, took: float = 5.0) -> list[tuple[float, float]]:
    return [(seconds * (n + 1) / count, took) for n in range(count)]


def test_percentiles_are_values_that_were_measured() -> None:
    found = load_measures(samples(*((n / 10, float(n)) for n in range(1, 101))))
    names = ("p50_ms", "p95_ms", "p99_ms", "max_ms", "mean_ms")
    assert [found[name] for name in names] == [50, 95, 99, 100, 50.5]
    assert quantile([7.0], 0.99) == quantile([7.0], 0.01) == 7.0


def test_the_ramp_counts_for_failures_and_not_for_times() -> None:
    slow, fast = [(n / 10, 900.0) for n in range(1, 11)], [(2 + n / 10, 5.0) for n in range(1, 11)]
    found = load_measures(samples(*slow, *fast, failed={0}, ramp=2.0, asked=3.0))
    assert (found["requests"], found["failures"], found["failure_ratio"]) == (20, 1, 0.05)
    assert found["max_ms"] == 5
    assert found["requests_per_second"] == 10


def test_where_all_ended_in_the_ramp_they_are_all_there_is() -> None:
    found = load_measures(samples(*steadily(10, 1.0), ramp=5.0, asked=1.0, enough=True))
    assert found["p50_ms"] == 5
    assert found["requests_per_second"] == 10


def test_only_right_answers_within_the_time_make_the_rate() -> None:
    late = [(12.0, 4000.0)]
    found = load_measures(samples(*steadily(100, 10.0), *late, failed=set(range(50))))
    assert found["requests_per_second"] == 5
    assert found["max_ms"] == 4000


def test_without_any_request_there_is_no_latency_and_all_failed() -> None:
    found = load_measures(samples())
    assert found == {
        **{"requests": 0, "failures": 0, "failure_ratio": 1, "seconds": 10},
        "requests_per_second": 0,
    }
    assert histogram(samples()) == []


@pytest.mark.parametrize("seconds", [0.2, 1.0, 9.7, 700.0, 3600.0])
def test_steps_and_buckets_hold_every_request_once(seconds: float) -> None:
    chance = random.Random(7)
    many = [(moment, chance.lognormvariate(2, 3)) for moment, _ in steadily(2000, seconds)]
    taken = samples(*many, failed={3, 1999}, asked=seconds)
    steps, buckets = over_time(taken), histogram(taken)
    assert sum(step["requests"] for step in steps) == 2000
    assert sum(step["failures"] for step in steps) == 2
    assert sum(bucket["requests"] for bucket in buckets) == 2000
    assert len(steps) <= 601
    assert steps[-1]["second"] + steps[-1]["seconds"] == pytest.approx(seconds, abs=0.001)
    assert all(one["to_ms"] == other["from_ms"] for one, other in pairwise(buckets))


def test_a_second_without_answers_has_no_latency() -> None:
    steps = over_time(samples((0.5, 3.0), (2.5, 4.0), asked=3.0))
    assert ["p50_ms" in step for step in steps] == [True, False, True]


def answer(value: Any, status: int = 200) -> HttpAnswer:
    return HttpAnswer(status, Content.json(value).to_bytes(), 0.0, "application/json")


def test_floats_within_the_tolerance_are_right_and_others_are_not() -> None:
    judge = Judge(make_golden(lambda row: row["a"] / 3))
    right = [1 / 3, 1.0]
    for value in (right, [1 / 3 + 1e-9, 1.0], right):
        assert judge.problem(0, answer(value)) is None
    wrong = judge.problem(0, answer([1 / 3, 1.1]))
    assert wrong is not None
    assert (wrong["path"], wrong["served"], wrong["expected"]) == ("[1]", 1.1, 1.0)
    # The very same body is right for one request and wrong for another.
    assert judge.problem(1, answer(right)) is not None


def test_where_nobody_knows_the_right_answer_its_form_has_to_be() -> None:
    judge = Judge(make_golden(None))
    assert judge.problem(0, answer([1, 2])) is None
    wrong = (
        *(answer([1]), answer(["x", "y"]), answer([1, 2], 500)),
        HttpAnswer(200, b"<html>", 0.0, "text/html"),
    )
    for one in wrong:
        assert judge.problem(0, one) is not None


def test_made_up_values_may_be_refused_under_load_too() -> None:
    asked = GoldenRequest("all rows", "synthetic", content=Content.json({}), model=TAG)
    judge = Judge(make_golden(None, requests=[asked]))
    assert judge.problem(0, answer({}, 422)) is None
    assert judge.problem(0, answer({}, 500)) is not None


def test_failures_are_counted_by_kind_and_the_first_kinds_are_kept() -> None:
    failures = Failures()
    for number in range(100):
        fact = {"request": f"r{number % 20}", "path": "", "reason": "wrong"}
        failures.add(fact)
    kept = failures.to_list()
    assert [one["request"] for one in kept] == [f"r{number}" for number in range(10)]
    assert {one["count"] for one in kept} == {5}
