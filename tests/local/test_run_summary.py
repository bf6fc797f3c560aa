"""The report of a run on this machine, as far as the run went."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sample_runs import promoted_run

from kfp_bento.pipelines import batch_score, serve_model, serve_service
from kfp_bento.runtime.local import deploys
from kfp_bento.runtime.local.run_summary import run_summary, write_summary
from kfp_bento.runtime.local.runs import Run

SECONDS = {"pull-model": 1.0, "total": 2.0}


def left(directory: Path, step: str, name: str, content: Any) -> None:
    place = directory / "steps" / step / name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps(content))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "steps", {"pull-model": 1.0})


def reports(*, passed: bool) -> dict[str, Any]:
    checks = promoted_run()["checks"]
    if not passed:
        checks[1] |= {"passed": False, "summary": "Two values differ."}
    return {"reports": checks, "settled": "" if passed else "It was rolled back to revision r1."}


def page(directory: Path, run: Run, **more: Any) -> str:
    write_summary(directory, run, run_summary(run, None, SECONDS, **more))
    return (directory / "report.html").read_text()


def test_a_run_that_failed_before_it_had_anything_is_told_with_its_reason(
    tmp_path: Path, run: Run
) -> None:
    text = page(tmp_path, run, failure="Step pull-model failed: There is no model nobody.")
    assert "<strong>Failed.</strong>" in text
    assert "There is no model nobody." in text
    assert json.loads((tmp_path / "summary.json").read_text())["failure"].startswith("Step pull")


def test_what_was_refused_is_told_with_what_became_of_it(tmp_path: Path, run: Run) -> None:
    left(tmp_path, "check-release", "reports", reports(passed=False))
    text = page(tmp_path, run, failure="Step promote-model failed: it did not pass.")
    assert "<strong>Check failed.</strong>" in text
    assert "Two values differ." in text and "rolled back to revision r1" in text


def test_what_a_person_decided_is_told_with_what_was_promoted(tmp_path: Path, run: Run) -> None:
    told = "Approved by anna at 2026-11-30T20:00:00Z (looks good)."
    asked = promoted_run()["checks"][0] | {"name": "approval", "summary": told, "evidence": []}
    left(tmp_path, "check-release", "reports", reports(passed=True))
    left(tmp_path, "await-approval", "report", {"reports": [asked], "settled": ""})
    left(tmp_path, "promote-model-2", "record", promoted_run()["promoted"])
    assert told in page(tmp_path, run)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["promoted"] == promoted_run()["promoted"]


def test_a_release_that_was_kept_without_an_alias_is_told_as_kept(tmp_path: Path, run: Run) -> None:
    left(tmp_path, "check-release", "reports", reports(passed=True))
    left(tmp_path, "confirm-release", "summary", "kept")
    text = page(tmp_path, run)
    assert "<strong>Kept.</strong>" in text
    assert "this pipeline moves no alias" in text


def test_a_short_road_without_an_alias_is_told_as_kept(tmp_path: Path, run: Run) -> None:
    left(tmp_path, "check-and-promote", "reports", reports(passed=True))
    kept = {"alias": "", "changed": False, "models": [], "release": "It goes on serving."}
    left(tmp_path, "check-and-promote", "record", kept)
    text = page(tmp_path, run)
    assert "<strong>Kept.</strong>" in text
    assert "Promoted" not in text


def test_only_pipelines_that_deploy_have_such_a_report() -> None:
    assert [deploys(one) for one in (serve_model, serve_service, batch_score)] == [
        *(True, True, False)
    ]
