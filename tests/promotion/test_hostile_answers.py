"""Tags and aliases are written by whoever may: what stands in them is read as data, or not."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from kfp_bento.runtime.errors import ModelError
from kfp_bento.runtime.models import read_registered_model, read_registered_version
from kfp_bento.runtime.promotion.history import history_entries, previous_version

TAG = "kfp-bento.promoted.prod."


@pytest.mark.parametrize(
    "value",
    [
        "[" * 100_000,
        "{" * 100_000,
        '{"previous": "1\\u001b[2J"}',
        '{"previous": "1 (was 2)"}',
        '{"previous": {"a": 1}}',
        '{"previous": ["1"]}',
        '{"previous": true}',
        '{"previous": NaN}',
        '{"previous": "1", "previous": "2"}',
        '{"previous": "' + "9" * 50 + '"}',
        '["1"]',
        "\ud800",
        "",
        "previous",
    ],
    ids=range(14),
)
def test_a_history_entry_of_somebody_else_names_no_previous_version(value: str) -> None:
    assert previous_version(value) == ""


@pytest.mark.parametrize("version", ["", "1", "2147483647"])
def test_a_history_entry_of_ours_names_the_previous_version(version: str) -> None:
    assert previous_version(json.dumps({"previous": version})) == version


def test_entries_are_numbered_by_numbers_only() -> None:
    tags = {f"{TAG}{number}": "x" for number in ("1", "2", "9" * 30, "-1", "1.5", "٣", "", "1\n")}

    assert list(history_entries(tags, "prod")) == [1, 2]


def model(**changes: Any) -> Any:
    return SimpleNamespace(
        **{"name": "a", "aliases": {}, "latest_versions": [], "tags": {}, **changes}
    )


def version(**changes: Any) -> Any:
    facts = {"run_id": None, "model_id": None, "source": "s3://a", "status": "READY"}
    return SimpleNamespace(**{**facts, "status_message": None, "tags": {}, **changes})


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (model(name="a\x1b[2J"), "name has control characters"),
        (model(name=["a"]), "name is list"),
        (model(aliases={"prod": "1\n2"}), "control characters"),
        (model(aliases={"prod": "one"}), "no version"),
        (model(aliases={"\u202eprod": "1"}), "An alias has control characters"),
        (model(latest_versions=[SimpleNamespace(version="1.5")]), "no version"),
    ],
)
def test_a_registered_model_is_read_or_refused(answer: Any, said: str) -> None:
    with pytest.raises(ModelError, match=said) as caught:
        read_registered_model(answer)
    assert caught.value.hint and "\x1b" not in str(caught.value)


def test_a_registered_version_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    long = {"a": "x" * 100_001, "b": "\x1b[2J"}
    found = read_registered_version(version(status_message="a\nb\x1b[2Jc", tags=long))

    assert (found.run_id, found.source, found.status) == ("", "s3://a", "READY (a bc)")
    assert found.tags == {"b": "\x1b[2J"}
