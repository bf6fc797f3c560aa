"""Served answers against the golden ones."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from checked_models import DIGEST, TAG, make_golden
from faulty_services import Service, serve

from kfp_bento.runtime.checks import CheckReport, compare_predictions
from kfp_bento.runtime.errors import CheckError
from kfp_bento.runtime.proof import Content, Golden, GoldenRequest
from kfp_bento.runtime.proof.differences import Tolerance
from kfp_bento.runtime.proof.golden import SERVICE, with_answer


def twice(row: Any) -> Any:
    return row["a"] * 2


@pytest.fixture
def golden() -> Golden:
    """Twice the first column."""
    return make_golden(twice)


def per_row(value: Any) -> Any:
    return lambda body: (200, [value(row) for row in body["inputs"]])


@pytest.mark.parametrize(
    ("uri", "said"),
    [("models:/wine/3", "models:/wine/3 predicts"), ("models:/wine@a", "@a (version 3) predicts")],
)
def test_the_version_is_said_once(golden: Golden, uri: str, said: str) -> None:
    models = (replace(golden.models[0], uri=uri, version="3"),)
    with serve(Service(predict=per_row(twice))) as service:
        report = compare_predictions(service.url, replace(golden, models=models), timeout=5)
    assert f"{said}, in" in report.summary


def test_each_row_is_also_asked_by_itself(golden: Golden) -> None:
    with serve(Service(predict=per_row(twice))) as service:
        report = compare_predictions(service.url, golden, timeout=5)
    assert report.passed, report.summary
    assert [len(body["inputs"]) for body in service.bodies] == [2, 1, 1]


def test_a_service_that_answers_single_rows_otherwise_does_not_pass(golden: Golden) -> None:
    def predict(body: Any) -> tuple[int, Any]:
        shift = 0 if len(body["inputs"]) > 1 else 1
        return 200, [row["a"] * 2 + shift for row in body["inputs"]]

    with serve(Service(predict=predict)) as service:
        report = compare_predictions(service.url, golden, timeout=5)
    assert not report.passed
    assert [entry["request"] for entry in report.evidence] == ["row 0", "row 1", "all rows"]
    assert report.measures["max_abs_error"] == 1
    assert report.measures["max_rel_error"] == 0.5


def test_floats_within_the_tolerance_pass_and_are_measured(golden: Golden) -> None:
    with serve(Service(predict=per_row(lambda row: row["a"] * 2 + 1e-7))) as service:
        report = compare_predictions(service.url, golden, timeout=5)
        strict = compare_predictions(
            service.url, replace(golden, tolerance=Tolerance(0, 0)), timeout=5
        )
    assert report.passed, report.summary
    assert report.measures["max_abs_error"] == pytest.approx(1e-7, rel=1e-3)
    assert report.measures["max_rel_error"] == pytest.approx(5e-8, rel=1e-3)
    assert not strict.passed


FAULTS: list[tuple[str, Any, str]] = [
    ("500", (500, b"boom"), "status 500 boom"),
    ("html", (200, b"<html>"), "no JSON: 200 <html>"),
    ("too few", (200, [2.0]), "1 values instead of 2"),
    ("no list", (200, 5), "an integer instead of a list"),
    ("strings", (200, ["2.0", "6.0"]), "a string instead of a number"),
    ("huge", (200, [10**400, 6.0]), "no finite number"),
    ("null", (200, [None, 6.0]), "no finite number"),
]


@pytest.mark.parametrize(
    ("answer", "problem"), [case[1:] for case in FAULTS], ids=[case[0] for case in FAULTS]
)
def test_an_answer_that_cannot_match_is_a_report_that_did_not_pass(
    golden: Golden, answer: Any, problem: str, tmp_path: Path
) -> None:
    with serve(Service(predict=lambda _: answer)) as service:
        report = compare_predictions(service.url, golden, timeout=5)
    assert not report.passed
    assert problem in report.evidence[0]["reason"]
    report.save(tmp_path / "report.json")
    assert not CheckReport.load(tmp_path / "report.json").passed


def test_a_service_that_hangs_is_a_report_that_did_not_pass(golden: Golden) -> None:
    with serve(Service(predict=lambda _: (200, b" " * 1000), drip=0.05)) as service:
        report = compare_predictions(service.url, golden, timeout=0.5)
    assert not report.passed
    assert "no complete answer" in report.evidence[0]["reason"]


@pytest.mark.parametrize(("served", "passed"), [(None, True), (math.nan, True), (0.0, False)])
def test_nan_is_the_null_that_json_has_for_it(served: Any, passed: bool, tmp_path: Path) -> None:
    golden = make_golden(lambda _: None)
    with serve(Service(predict=per_row(lambda _: served))) as service:
        report = compare_predictions(service.url, golden, timeout=5)
    assert report.passed is passed, report.summary
    report.save(tmp_path / "report.json")
    text = (tmp_path / "report.json").read_text()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


@pytest.mark.parametrize(
    ("served", "expected", "passed"),
    [
        (3, 3, True),
        (3.0, 3, False),
        (4, 3, False),
        (True, 1, False),
        (1, True, False),
        (2, 2.0, True),
        (True, 1.0, False),
        ("red", "red", True),
        ("red", "Red", False),
        (None, None, True),
        (None, "x", False),
        ({"p": [0.1, 0.9], "label": "x"}, {"label": "x", "p": [0.1, 0.9]}, True),
        ({"p": [0.1, 0.8], "label": "x"}, {"label": "x", "p": [0.1, 0.9]}, False),
        ({"p": 0.1, "extra": 1}, {"p": 0.1}, False),
        ({}, {"p": 0.1}, False),
        ([[1, 2], [3, 4]], [[1, 2], [3, 4]], True),
        ([[1, 2], [3]], [[1, 2], [3, 4]], False),
        ([1, 2], {"p": 1}, False),
    ],
)
def test_types_keys_and_shapes_must_be_equal_too(served: Any, expected: Any, passed: bool) -> None:
    golden = make_golden(lambda _: expected)
    with serve(Service(predict=per_row(lambda _: served))) as service:
        assert compare_predictions(service.url, golden, timeout=5).passed is passed


PICTURE = with_answer(
    GoldenRequest("given 1", "given", path="/draw", content=Content("text/plain", "text", "a")),
    200,
    Content("image/png", "base64", "iVBORw=="),
    SERVICE,
)
REFUSED = with_answer(
    GoldenRequest("given 2", "given", content=Content.json({"inputs": [1]}), model=TAG),
    400,
    Content.json({"error": "not today"}),
    SERVICE,
)


@pytest.mark.parametrize(
    ("answer", "media_type", "reason"),
    [
        ((200, b"\x89PNG"), "image/png", ""),
        ((200, b"\x89PNJ"), "image/png", "other content"),
        ((200, b"\x89PNG"), "image/jpeg", "image/jpeg instead of image/png"),
        ((500, b"no"), "image/png", "status 500 no"),
    ],
)
def test_answers_of_any_media_type_are_compared(answer: Any, media_type: str, reason: str) -> None:
    golden = make_golden(requests=[PICTURE])
    with serve(Service(predict=lambda _: answer, media_type=media_type)) as service:
        report = compare_predictions(service.url, golden, timeout=5)
    assert report.passed is (not reason)
    assert service.bodies == [b"a"]
    assert report.evidence[0].get("reason", "") == reason
    assert "answered when it was built" in report.summary


@pytest.mark.parametrize(("status", "passed"), [(400, True), (200, False), (500, False)])
def test_a_refusal_is_an_answer_too(status: int, passed: bool) -> None:
    golden = make_golden(requests=[REFUSED])
    with serve(Service(predict=lambda _: (status, {"error": "other words"}))) as service:
        assert compare_predictions(service.url, golden, timeout=5).passed is passed


def test_without_golden_answers_there_is_nothing_to_compare() -> None:
    with serve(Service()) as service:
        report = compare_predictions(service.url, make_golden(None), timeout=5)
    assert not report.passed
    assert report.summary == "There is nothing to compare: Verify is off: nobody asked."
    assert report.model_digests == (DIGEST,)
    assert service.bodies == []


def test_nothing_listening_is_a_check_that_could_not_run(golden: Golden) -> None:
    with pytest.raises(CheckError, match="Nothing answers at"):
        compare_predictions("http://127.0.0.1:1", golden)


def test_a_release_that_was_only_rendered_cannot_be_compared(golden: Golden) -> None:
    with pytest.raises(CheckError, match="only rendered"):
        compare_predictions("", golden)
