"""Served answers against the registry model's own."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from checked_models import make_model
from faulty_services import Service, serve

from kfp_bento.runtime.bentos import prediction_request
from kfp_bento.runtime.checks import CheckReport, compare_predictions, comparison
from kfp_bento.runtime.checks.expected import (
    expected_answers,
    isolated_requirements,
    unmet_requirement,
)
from kfp_bento.runtime.errors import CheckError
from kfp_bento.runtime.models import ModelVersion, load_model


@pytest.fixture
def model_answers(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Stands in for the model: `value` per row, from the row's `a`."""
    told: dict[str, Any] = {"value": lambda row: row["a"] * 2}

    def answer(_: ModelVersion, requests: list[Any], *__: Any) -> list[Any]:
        return [[told["value"](row) for row in body["inputs"]] for body in requests]

    monkeypatch.setattr(comparison, "expected_answers", answer)
    return told


def per_row(value: Any) -> Any:
    return lambda body: (200, [value(row) for row in body["inputs"]])


def test_a_real_service_serves_what_the_registry_holds(
    served_wine: str, wine_model: ModelVersion
) -> None:
    report = compare_predictions(served_wine, wine_model)
    assert report.passed, report.summary
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


def test_a_real_service_of_another_model_does_not_pass(
    served_wine: str, wine_model: ModelVersion, tmp_path: Path
) -> None:
    other = relabelled(wine_model, tmp_path / "other")
    report = compare_predictions(served_wine, other)
    assert not report.passed
    first = report.evidence[0]
    assert (first["request"], first["row"]) == ("all rows", 0)
    assert (first["served"], first["expected"]) == (0, 100)
    # three rows at once, and each of them again by itself
    assert report.measures["mismatches"] == 6


def relabelled(model: ModelVersion, directory: Path) -> ModelVersion:
    """The same estimator with other class labels, as a model directory of its own."""
    source = (
        "import sys, mlflow.sklearn, numpy, logging\n"
        "logging.getLogger('mlflow').setLevel('ERROR')\n"
        "model = mlflow.sklearn.load_model(sys.argv[1])\n"
        "model[-1].classes_ = numpy.array([100, 101, 102])\n"
        "info = mlflow.models.get_model_info(sys.argv[1])\n"
        "mlflow.sklearn.save_model(model, sys.argv[2], signature=info.signature,\n"
        "    pip_requirements=['mlflow'], serialization_format='cloudpickle')\n"
    )
    command = [sys.executable, "-c", source, str(model.directory), str(directory)]
    subprocess.run(command, check=True, env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"})
    example = model.directory / "serving_input_example.json"
    (directory / example.name).write_bytes(example.read_bytes())
    return load_model(directory)


def test_each_row_is_also_asked_by_itself(
    model: ModelVersion, model_answers: dict[str, Any]
) -> None:
    with serve(Service(predict=per_row(lambda row: row["a"] * 2))) as service:
        report = compare_predictions(service.url, model, timeout=5)
    assert report.passed, report.summary
    assert [len(body["inputs"]) for body in service.bodies] == [2, 1, 1]


def test_a_service_that_answers_single_rows_otherwise_does_not_pass(
    model: ModelVersion, model_answers: dict[str, Any]
) -> None:
    def predict(body: Any) -> tuple[int, Any]:
        shift = 0 if len(body["inputs"]) > 1 else 1
        return 200, [row["a"] * 2 + shift for row in body["inputs"]]

    with serve(Service(predict=predict)) as service:
        report = compare_predictions(service.url, model, timeout=5)
    assert not report.passed
    assert [entry["request"] for entry in report.evidence] == ["row 0", "row 1", "all rows"]
    assert report.measures["max_abs_error"] == 1
    assert report.measures["max_rel_error"] == 0.5


def test_floats_within_the_tolerance_pass_and_are_measured(
    model: ModelVersion, model_answers: dict[str, Any]
) -> None:
    with serve(Service(predict=per_row(lambda row: row["a"] * 2 + 1e-7))) as service:
        report = compare_predictions(service.url, model, timeout=5)
        strict = compare_predictions(
            service.url, model, timeout=5, relative_tolerance=0, absolute_tolerance=0
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
    model: ModelVersion, model_answers: dict[str, Any], answer: Any, problem: str, tmp_path: Path
) -> None:
    with serve(Service(predict=lambda _: answer)) as service:
        report = compare_predictions(service.url, model, timeout=5)
    assert not report.passed
    assert problem in report.evidence[0]["reason"]
    report.save(tmp_path / "report.json")
    assert not CheckReport.load(tmp_path / "report.json").passed


def test_a_service_that_hangs_is_a_report_that_did_not_pass(
    model: ModelVersion, model_answers: dict[str, Any]
) -> None:
    with serve(Service(predict=lambda _: (200, b" " * 1000), drip=0.05)) as service:
        report = compare_predictions(service.url, model, timeout=0.5)
    assert not report.passed
    assert "no complete answer" in report.evidence[0]["reason"]


@pytest.mark.parametrize("served", [None, math.nan])
def test_nan_equals_nan_and_the_null_that_json_has_for_it(
    model: ModelVersion, model_answers: dict[str, Any], served: Any, tmp_path: Path
) -> None:
    model_answers["value"] = lambda _: math.nan
    with serve(Service(predict=per_row(lambda _: served))) as service:
        report = compare_predictions(service.url, model, timeout=5)
    assert report.passed, report.summary
    report.save(tmp_path / "report.json")
    text = (tmp_path / "report.json").read_text()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_a_number_where_the_model_gives_nan_does_not_pass(
    model: ModelVersion, model_answers: dict[str, Any]
) -> None:
    model_answers["value"] = lambda _: math.nan
    with serve(Service(predict=per_row(lambda _: 0.0))) as service:
        assert not compare_predictions(service.url, model, timeout=5).passed


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
def test_types_keys_and_shapes_must_be_equal_too(
    model: ModelVersion,
    model_answers: dict[str, Any],
    served: Any,
    expected: Any,
    passed: bool,
) -> None:
    model_answers["value"] = lambda _: expected
    with serve(Service(predict=per_row(lambda _: served))) as service:
        assert compare_predictions(service.url, model, timeout=5).passed is passed


def test_named_tensors_are_asked_by_row_and_fixed_shapes_are_not(tmp_path: Path) -> None:
    def tensors(first: int) -> Any:
        spec = {"dtype": "float64", "shape": [first, 1]}
        return tuple({"type": "tensor", "name": n, "tensor-spec": spec} for n in ("x", "y"))

    inputs = {"inputs": {"x": [[1.0], [2.0]], "y": [[3.0], [4.0]]}}
    for first, requests in ((-1, 3), (2, 1)):
        model = make_model(tmp_path, inputs=tensors(first), example=inputs)
        bodies: list[Any] = []
        with pytest.MonkeyPatch.context() as patch, serve(Service()) as service:
            patch.setattr(
                comparison,
                "expected_answers",
                lambda _, asked, __, seen=bodies: [seen.append(body) or 0 for body in asked],
            )
            compare_predictions(service.url, model, timeout=5)
        assert len(bodies) == requests
    assert bodies == [inputs]


def test_nothing_listening_is_a_check_that_could_not_run(model: ModelVersion) -> None:
    with pytest.raises(CheckError, match="Nothing answers at"):
        compare_predictions("http://127.0.0.1:1", model)


def test_a_release_that_was_only_rendered_cannot_be_compared(model: ModelVersion) -> None:
    with pytest.raises(CheckError, match="only rendered"):
        compare_predictions("", model)


def test_a_request_without_inputs_cannot_be_compared(model: ModelVersion) -> None:
    with pytest.raises(CheckError, match='no "inputs"'):
        compare_predictions("http://127.0.0.1:1", model, request={"text": "hello"})


def test_a_model_that_cannot_answer_is_a_check_that_could_not_run(
    wine_model: ModelVersion,
) -> None:
    with pytest.raises(CheckError, match="cannot answer its own request"):
        expected_answers(wine_model, [{"inputs": [{"petals": 1}]}])


def test_this_interpreter_serves_when_the_requirements_are_met(wine_model: ModelVersion) -> None:
    assert unmet_requirement(wine_model) == ""


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"requirements": ("numpy==1.0.1",)}, "numpy==1.0.1"),
        ({"requirements": ("no-such-thing-here",)}, "nothing of it"),
        ({"requirements": ("-c constraints.txt",)}, "only be judged by installing"),
        ({"requirements": ("numpy @ https://example.com/n.whl",)}, "names an address"),
        ({"python_version": "3.7.1"}, "logged with Python 3.7"),
        ({"requirements": ('numpy==1.0.1; python_version < "3"',)}, ""),
        ({"requirements": ("mlflow-skinny>=3",)}, ""),
    ],
)
def test_this_interpreter_does_not_serve_when_they_are_not(
    model: ModelVersion, changes: dict[str, Any], reason: str
) -> None:
    found = unmet_requirement(dataclasses.replace(model, **changes))
    assert (reason in found) if reason else found == ""


def test_an_environment_for_the_model_has_slim_mlflow_and_what_it_reads_json_with(
    tmp_path: Path,
) -> None:
    lines = ("mlflow==3.17.2", "scikit_learn==1.5", "-c constraints.txt")
    model = make_model(tmp_path, requirements=lines)
    assert isolated_requirements(model) == [
        "mlflow-skinny==3.17.2",
        "scikit_learn==1.5",
        "numpy",
        "pandas",
    ]


def test_a_model_with_other_requirements_is_asked_in_an_environment_that_is_removed(
    wine_model: ModelVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    needs = tuple(line for line in wine_model.requirements if not line.startswith("mlflow"))
    model = dataclasses.replace(
        wine_model, requirements=(*needs, "mlflow-skinny", "tabulate==0.8.10")
    )
    assert "tabulate" in unmet_requirement(model)
    try:
        answers = expected_answers(model, [prediction_request(model)])
    except CheckError as error:
        if "cannot be made" in error.message and "ould not connect" in error.message:
            pytest.skip("no package index can be reached")
        raise
    assert answers == [[0, 0, 0]]
    assert list(tmp_path.iterdir()) == []


def test_an_environment_that_cannot_be_made_says_why_and_leaves_nothing(
    model: ModelVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    impossible = dataclasses.replace(model, requirements=("no-such-thing-here==1",))
    with pytest.raises(CheckError, match="no-such-thing-here") as failed:
        expected_answers(impossible, [{"inputs": []}])
    assert failed.value.hint
    assert list(scratch.iterdir()) == []
