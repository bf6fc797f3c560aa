"""Seals: a record of one's own is told from one that somebody else has written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kfp_bento.runtime.files import (
    KEY_VARIABLE,
    open_record,
    own_key,
    record_digest,
    seal,
    sealed_record,
    shared_key,
)

FACTS = {"name": "credit", "version": "7"}


@pytest.fixture(autouse=True)
def _a_home_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def test_a_record_of_ones_own_is_recognised() -> None:
    assert open_record(sealed_record(FACTS, "model"), "model") == (FACTS, True)


def test_a_record_of_somebody_else_is_a_claim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = sealed_record(FACTS, "model")
    monkeypatch.setenv("HOME", str(tmp_path / "another"))
    assert open_record(text, "model") == (FACTS, False)


def test_a_changed_record_is_a_claim() -> None:
    text = sealed_record(FACTS, "model").replace(b"credit", b"other")
    assert open_record(text, "model")[1] is False


def test_a_seal_for_one_purpose_is_none_for_another() -> None:
    assert open_record(sealed_record(FACTS, "model"), "bento")[1] is False


@pytest.mark.parametrize("found", ["", "0" * 64, 7, None, ["x"], "ü"])
def test_any_other_seal_is_none(found: object) -> None:
    import json

    assert open_record(json.dumps({**FACTS, "seal": found}).encode(), "model") == (FACTS, False)


def test_a_digest_from_the_writing_step_is_believed_without_a_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("HOME")
    text = sealed_record(FACTS, "model")
    assert b"seal" not in text
    assert open_record(text, "model")[1] is False
    assert open_record(text, "model", record_digest(text))[1] is True
    assert open_record(text, "model", record_digest(b"{}"))[1] is False


def test_a_told_digest_counts_even_where_the_seal_is_right() -> None:
    text = sealed_record(FACTS, "model")
    assert open_record(text, "model", record_digest(b"another"))[1] is False


def test_the_users_key_is_readable_by_nobody_else(tmp_path: Path) -> None:
    assert own_key() == own_key()
    (file,) = (tmp_path / ".local/state/kfp-bento").iterdir()
    assert file.stat().st_mode & 0o077 == 0


def test_a_key_that_others_can_read_or_write_does_not_count(tmp_path: Path) -> None:
    own_key()
    (tmp_path / ".local/state/kfp-bento/record-key").chmod(0o644)
    assert own_key() is None


def test_the_shared_key_is_one_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "k" * 32)
    text = sealed_record(FACTS, "model")
    monkeypatch.setenv("HOME", str(tmp_path / "another"))
    assert open_record(text, "model")[1] is True
    assert os.listdir(tmp_path) == []  # noqa: PTH208 - nothing is made where it is not needed


def test_a_shared_key_that_could_be_guessed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "secret")
    with pytest.raises(ValueError, match=KEY_VARIABLE):
        shared_key()


def test_without_a_key_there_is_no_seal() -> None:
    assert seal(b"content", "model", None) == ""
