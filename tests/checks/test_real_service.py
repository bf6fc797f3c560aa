"""One real service, started once, for the checks that ask it."""

from __future__ import annotations

from dataclasses import replace

from checked_models import DIGEST, make_golden

from kfp_bento.runtime.checks import compare_predictions, smoke_test
from kfp_bento.runtime.models import ModelVersion
from kfp_bento.runtime.proof import Content, Golden
from kfp_bento.runtime.proof.golden import with_answer


def test_it_passes_the_smoke_test(
    served_wine: tuple[str, Golden], wine_model: ModelVersion
) -> None:
    url, golden = served_wine
    report = smoke_test(url, golden, timeout=30)
    assert report.passed, report.summary
    assert report.model_digests == (wine_model.digest,)
    assert report.url == url
    assert report.measures["rows"] == 3
    assert report.measures["request_ms"] > 0
    assert report.measures["seconds_to_ready"] >= 0


def test_it_refuses_a_request_of_another_model(
    served_wine: tuple[str, Golden],
) -> None:
    other = make_golden()
    report = smoke_test(served_wine[0], other)
    assert not report.passed
    assert report.model_digests == (DIGEST,)
    assert "the status is 400" in report.summary


def test_it_serves_what_the_registry_holds(
    served_wine: tuple[str, Golden], wine_model: ModelVersion
) -> None:
    report = compare_predictions(*served_wine)
    assert report.passed, report.summary
    assert report.model_digests == (wine_model.digest,)
    assert report.measures == {
        "rows": 3,
        "requests": 4,
        "mismatches": 0,
        "max_abs_error": 0,
        "max_rel_error": 0,
    }
    (sample,) = report.evidence
    assert sample["sample"] is True
    assert sample["served"] == sample["expected"] == [0, 0, 0]


def test_the_answers_of_another_model_do_not_pass(
    served_wine: tuple[str, Golden],
) -> None:
    url, golden = served_wine
    others = tuple(
        with_answer(one, 200, Content.json([100] * (one.rows or 0)), "mlflow.pyfunc")
        for one in golden.requests
    )
    report = compare_predictions(url, replace(golden, requests=others))
    assert not report.passed
    first = report.evidence[0]
    assert (first["request"], first["row"]) == ("all rows", 0)
    assert (first["served"], first["expected"]) == (0, 100)
    # three rows at once, and each of them again by itself
    assert report.measures["mismatches"] == 6
