"""What people read of a check that did not pass."""

from __future__ import annotations

from typing import Any

import pytest

from kfp_bento.runtime.checks import CheckReport
from kfp_bento.runtime.cli.check import show


def said(capsys: pytest.CaptureFixture[str], **evidence: Any) -> list[list[str]]:
    found = {"request": "GET /v2", **evidence}
    show(CheckReport("check", False, "It is not.", {}, (found,), (), "http://a"))
    return [line.split() for line in capsys.readouterr().out.splitlines()]


def test_of_what_has_no_values_none_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys, served=None, expected=None, reason="is gone")
    assert ["reason", "is", "gone"] in lines
    assert not [line for line in lines if line[:1] in (["served"], ["expected"])]


def test_null_where_a_value_was_right_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys, served=None, expected=1.5, reason="is null")
    assert ["served", "None"] in lines
    assert ["expected", "1.5"] in lines
