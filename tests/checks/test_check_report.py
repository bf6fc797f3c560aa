"""A report survives JSON, and what is no report never passes for one."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from kfp_bento.runtime.checks import CheckReport
from kfp_bento.runtime.errors import CheckError

REPORT = CheckReport(
    name="smoke_test",
    passed=True,
    summary="Ready.",
    measures={"request_ms": 1.5},
    evidence=({"served": [1, 2], "expected": [1, 2]},),
    model_digests=("sha256:" + "ab" * 32,),
    url="http://127.0.0.1:3000",
)


def test_a_report_survives_a_file(tmp_path: Path) -> None:
    REPORT.save(tmp_path / "deep" / "report.json")
    assert CheckReport.load(tmp_path / "deep" / "report.json") == REPORT
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["report.json"]


def test_numbers_that_json_lacks_become_words() -> None:
    evidence = ({"served": [math.nan, math.inf, (-math.inf,)]},)
    data = CheckReport(**{**vars(REPORT), "evidence": evidence}).to_dict()
    text = json.dumps(data, allow_nan=False)
    assert json.loads(text)["evidence"] == [{"served": ["NaN", "Infinity", ["-Infinity"]]}]


@pytest.mark.parametrize(
    "change",
    [
        {"passed": "true"},
        {"passed": 1},
        {"measures": None},
        {"evidence": [1]},
        {"measures": {"a": "x"}},
        {"model_digests": "sha256:ab"},
        {"model_digests": [1]},
    ],
)
def test_a_field_of_another_kind_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(CheckError, match="no check report"):
        CheckReport.from_dict({**REPORT.to_dict(), **change})


@pytest.mark.parametrize("text", [None, "", "[]", "{}", "{"])
def test_a_file_that_holds_no_report_is_refused(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "report.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(CheckError, match="no check report"):
        CheckReport.load(path)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "[]",
        "nothing",
        '{"passed": true, "passed": false}',
        '{"passed": NaN}',
        '{"name": "smoke_test", "passed": true, "summary": "a", "measures": {"rows": "NaN"}, '
        '"evidence": [], "model_digests": [], "url": ""}',
        '{"name": ["smoke_test"], "passed": true, "summary": "a", "measures": {}, "evidence": [], '
        '"model_digests": [], "url": ""}',
        '{"name": "smoke_test", "passed": true, "summary": "a", "measures": [], "evidence": [], '
        '"model_digests": [], "url": ""}',
    ],
    ids=range(8),
)
def test_a_report_of_somebody_else_is_refused_without_a_traceback(
    text: str, tmp_path: Path
) -> None:
    (tmp_path / "report.json").write_text(text)

    with pytest.raises(CheckError, match="check report") as caught:
        CheckReport.load(tmp_path / "report.json")
    assert "again" in caught.value.hint
