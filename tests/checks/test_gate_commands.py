"""The gates from the command line and as components: what cannot run, and what comes out."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from checked_models import DIGEST, make_golden
from faulty_services import Service, serve
from kfp_bento_command import assert_refused
from kfp_bento_command import kfp_bento_here as kfp_bento

from kfp_bento import components
from kfp_bento.runtime.checks import CheckReport, check_release
from kfp_bento.runtime.deployments import ReleaseFacts

NOWHERE = "http://127.0.0.1:9"
ROUTE = {"post": {"responses": {"200": {"description": "x" * 500}}}}
API = {"openapi": "3.0.2", "info": {"title": "T"}, "paths": {"/predict": ROUTE}}


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    make_golden().save(tmp_path / "golden.json")
    return tmp_path / "golden.json"


def artifact(path: Path) -> Any:
    return SimpleNamespace(path=str(path), metadata={})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--limit", "p95_ms"], "--limit p95_ms is not"),
        (["--limit", "p95_ms=fast"], "'fast' is no number"),
        (["--limit", "p94_ms=3"], "p94_ms"),
        (["--users", "0"], "users: 0"),
        (["--payloads", "rows.txt"], "rows.txt"),
        ([], "Nothing answers"),
    ],
)
def test_a_load_that_cannot_run_ends_with_2(golden: Path, options: list[str], said: str) -> None:
    assert_refused(kfp_bento("check", "load", NOWHERE, "--golden", golden, *options), said)


def test_a_contract_that_cannot_be_read_ends_with_2(tmp_path: Path) -> None:
    assert_refused(kfp_bento("check", "contract", NOWHERE), "Nothing answers")
    (tmp_path / "a.json").write_text("[1, 2]")
    (tmp_path / "b.json").write_text('{"paths": 3}')
    for name, said in (("a", "no JSON object"), ("b", "no API"), ("none", "no contract")):
        given = tmp_path / f"{name}.json"
        assert_refused(kfp_bento("check", "contract", NOWHERE, "--against", given), said)


@pytest.mark.parametrize("answer", [(404, b"no"), (200, b"<html>"), (200, {"info": {}})])
def test_a_service_that_describes_no_api_ends_with_2(answer: Any) -> None:
    with serve(Service(readyz=lambda _: answer)) as service:
        assert_refused(kfp_bento("check", "contract", service.url), "API")


def test_the_load_component_leaves_report_metrics_and_page(golden: Path, tmp_path: Path) -> None:
    outputs = {name: artifact(tmp_path / name) for name in ("report", "metrics", "summary", "page")}
    with serve(Service(predict=lambda body: (200, [7] * len(body["inputs"])))) as service:
        components.load_test.python_func(
            url=service.url,
            golden=artifact(golden),
            **outputs,
            users=2,
            ramp_seconds=0,
            max_requests=6,
            limits={"p95_ms": 60000.0},
        )
    report = CheckReport.load(tmp_path / "report")
    assert not report.passed
    assert outputs["metrics"].metadata == {**report.measures, "passed": 0.0}
    assert "# load\\_test: FAILED" in (tmp_path / "summary").read_text()
    assert "Did not pass" in (tmp_path / "page").read_text()


def test_the_contract_component_leaves_what_the_next_release_is_held_against(
    golden: Path, tmp_path: Path
) -> None:
    def run(number: int, **inputs: Any) -> CheckReport:
        names = ("report", "metrics", "summary", "contract")
        outputs = {name: artifact(tmp_path / f"{name}-{number}") for name in names}
        components.check_contract.python_func(url=service.url, **outputs, **inputs)
        return CheckReport.load(tmp_path / f"report-{number}")

    with serve(Service(readyz=lambda _: (200, API))) as service:
        first = run(1)
        again = run(2, earlier=artifact(tmp_path / "contract-1"), golden=artifact(golden))
    assert first.passed
    assert first.model_digests == ()
    assert again.passed
    assert again.model_digests == (DIGEST,)
    kept = json.loads((tmp_path / "contract-2").read_text())
    assert kept["paths"] == {"/predict": {"post": {"responses": {"200": {"content": {}}}}}}


def test_a_release_is_loaded_only_after_its_answers_were_right() -> None:
    gates = {"load": {"users": 2.0, "ramp_seconds": 0, "max_requests": 10}}

    def checked(value: int) -> list[tuple[str, bool]]:
        with serve(Service(predict=lambda body: (200, [value] * len(body["inputs"])))) as service:
            release = ReleaseFacts("workload", "local", "pair", "default", "0" * 16, service.url)
            found = check_release(release, make_golden(), gates=gates, leave=False)
        return [(report.name, report.passed) for report in found.reports]

    answers = ("smoke_test", True), ("compare_predictions", True), ("load_test", True)
    assert checked(0) == list(answers)
    assert checked(7) == [("smoke_test", True), ("compare_predictions", False)]
