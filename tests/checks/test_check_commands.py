"""Checks from the command line: the report, and the exit code that says whether it passed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from checked_models import make_golden
from faulty_services import Service, serve
from kfp_bento_command import assert_refused
from kfp_bento_command import kfp_bento_here as kfp_bento

from kfp_bento.runtime.checks import CheckReport


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    make_golden().save(tmp_path / "golden.json")
    return tmp_path / "golden.json"


def zeros(body: Any) -> Any:
    return 200, [0 for _ in body["inputs"]]


@pytest.mark.parametrize("check", ["smoke", "replay"])
def test_a_service_that_holds_what_it_promises_passes(
    check: str, golden: Path, tmp_path: Path
) -> None:
    with serve(Service(predict=zeros)) as service:
        done = kfp_bento("check", check, service.url, "--golden", golden, "--json")
        shown = kfp_bento(
            *("check", check, service.url, "--golden", golden), "--report", tmp_path / "report.json"
        )
    assert (done.returncode, shown.returncode) == (0, 0), done.stdout + shown.stdout
    assert json.loads(done.stdout)["passed"] is True
    assert " passed" in shown.stdout
    assert CheckReport.load(tmp_path / "report.json").passed


def test_a_wrong_answer_is_shown_and_ends_with_1(golden: Path) -> None:
    with serve(Service(predict=lambda body: (200, [7 for _ in body["inputs"]]))) as service:
        done = kfp_bento("check", "replay", service.url, "--golden", golden)
    assert done.returncode == 1
    assert "did not pass" in done.stdout and "served" in done.stdout and "7" in done.stdout


def test_what_cannot_be_asked_ends_with_2(golden: Path, tmp_path: Path) -> None:
    assert_refused(
        kfp_bento("check", "replay", "http://127.0.0.1:9", "--golden", golden), "answers"
    )
    missing = tmp_path / "none.json"
    assert_refused(
        kfp_bento("check", "smoke", "http://127.0.0.1:9", "--golden", missing), "no golden answers"
    )
