"""What a record beside a model counts for: only our own, or one that a step told us, says where
the model came from; what the model is, only its files say."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pulled_model import pull_model

from kfp_bento.runtime.errors import InvalidInput, ModelError, PromotionError
from kfp_bento.runtime.models import ModelVersion, load_model
from kfp_bento.runtime.models import pull as pull_module
from kfp_bento.runtime.models.directory import write_record
from kfp_bento.runtime.promotion.promotion import promote_models

KEY = "KFP_BENTO_RECORD_KEY"
RECORD = ".kfp-bento.json"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user with a key of their own."""
    monkeypatch.delenv(KEY, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "here"))


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Gives `elsewhere()`: from then on another user of another machine runs the tests."""
    return lambda: monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "elsewhere"))


@pytest.fixture
def foreign(wine_model: ModelVersion, here: None, tmp_path: Path) -> Path:
    """A model of somebody else whose record says that it is the registry's champion."""
    directory = tmp_path / "gift"
    shutil.copytree(wine_model.directory, directory)
    (directory / RECORD).unlink()
    (directory / "model.pkl").write_bytes(b"something else")
    found = load_model(directory)
    claims = {**wine_model.to_dict(), "digest": found.digest}
    claims |= {"content_digest": found.content_digest, "size": found.size}
    (directory / RECORD).write_text(json.dumps(claims))
    return directory


def test_a_record_from_elsewhere_is_no_provenance(foreign: Path) -> None:
    model = load_model(foreign)

    assert (model.uri, model.name, model.version, model.alias) == ("gift", "", "", "")
    assert (model.source, model.aliases, model.record) == ("", {}, "")


def test_that_a_record_does_not_count_is_said_in_one_line(
    foreign: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        load_model(foreign)

    [said] = [record.getMessage() for record in caplog.records]
    assert "was not written here" in said and "registry" in said and KEY in said
    assert "\n" not in said


def test_a_record_from_elsewhere_is_not_taken_over_by_a_copy(foreign: Path, tmp_path: Path) -> None:
    model = pull_model(str(foreign), tmp_path / "copy")

    assert (model.uri, model.name, model.version) == ("gift", "", "")
    assert (load_model(tmp_path / "copy").name, model.record != "") == ("", True)


def test_a_model_with_a_record_from_elsewhere_is_not_promoted(foreign: Path) -> None:
    with pytest.raises(PromotionError, match="is no registered version") as caught:
        promote_models([load_model(foreign)], [], "prod")
    assert "record" in caught.value.hint and KEY in caught.value.hint


def test_a_planted_directory_is_not_taken_for_an_earlier_pull(
    wine_model: ModelVersion, foreign: Path, tmp_path: Path
) -> None:
    size = (wine_model.directory / "model.pkl").stat().st_size
    (foreign / "model.pkl").write_bytes(b"x" * size)
    (foreign / RECORD).unlink()
    found = load_model(foreign)
    claims = {**wine_model.to_dict(), "uri": "models:/wine/1", "alias": "", "digest": found.digest}
    (foreign / RECORD).write_text(json.dumps(claims))

    pulled = pull_model("models:/wine/1", foreign)

    assert not pulled.reused
    assert (foreign / "model.pkl").read_bytes() != b"x" * size
    assert load_model(foreign).digest == wine_model.digest


def test_a_directory_that_another_machine_pulled_may_be_pulled_again(
    wine_model: ModelVersion, here: None, elsewhere: Any, tmp_path: Path
) -> None:
    first = pull_model("models:/wine/1", tmp_path / "model")
    elsewhere()
    again = pull_model("models:/wine/1", tmp_path / "model")

    assert (again.reused, again) == (False, first)
    assert pull_model("models:/wine/1", tmp_path / "model").reused


@pytest.mark.parametrize("record", ["{}", "no JSON", '{"name": "a", "models": []}', "[]"])
def test_what_no_pull_wrote_is_left_alone(
    record: str, wine_model: ModelVersion, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / RECORD).write_text(record)

    with pytest.raises(InvalidInput, match="is not empty"):
        pull_model("models:/wine/1", tmp_path / "mine")
    assert (tmp_path / "mine" / RECORD).read_text() == record


def test_the_step_that_pulled_a_model_tells_the_others_which_record_counts(
    wine_model: ModelVersion, here: None, elsewhere: Any, tmp_path: Path
) -> None:
    pulled = pull_model("models:/wine@champion", tmp_path / "model")
    elsewhere()
    known = load_model(tmp_path / "model", record=pulled.record)

    assert known == pulled
    assert load_model(tmp_path / "model").name == ""


def test_a_record_that_is_not_the_one_told_is_refused(
    wine_model: ModelVersion, here: None, tmp_path: Path
) -> None:
    told = pull_model("models:/wine@champion", tmp_path / "model").record
    record = tmp_path / "model" / RECORD
    record.write_text(record.read_text().replace('"champion"', '"prod"'))
    for change in (lambda: None, record.unlink):
        change()
        with pytest.raises(ModelError, match="not the one that the step wrote") as caught:
            load_model(tmp_path / "model", record=told)
        assert "object storage" in caught.value.hint


def test_records_count_for_all_who_share_a_key(
    wine_model: ModelVersion,
    here: None,
    elsewhere: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(KEY, "a" * 40)
    pull_model("models:/wine/1", tmp_path / "model")
    elsewhere()
    names = [load_model(tmp_path / "model").name]
    monkeypatch.setenv(KEY, "b" * 40)
    names.append(load_model(tmp_path / "model").name)

    assert names == ["wine", ""]


def test_without_a_home_a_record_counts_only_when_it_was_told(
    wine_model: ModelVersion, here: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.delenv("HOME", raising=False)
    pulled = pull_model("models:/wine/1", tmp_path / "model")

    assert load_model(tmp_path / "model", record=pulled.record).name == "wine"
    assert load_model(tmp_path / "model").name == ""


def test_a_key_that_is_too_short_is_refused_before_anything_is_pulled(
    wine_model: ModelVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY, "short")
    monkeypatch.setattr(pull_module, "download_files", None)

    with pytest.raises(InvalidInput, match="fewer than 32 characters") as caught:
        pull_model("models:/wine/1", tmp_path / "model")
    assert "Secret" in caught.value.hint


def test_a_file_that_was_exchanged_for_one_of_the_same_size_is_noticed(
    wine_model: ModelVersion, here: None, tmp_path: Path
) -> None:
    pull_model("models:/wine/1", tmp_path / "model")
    pickled = tmp_path / "model" / "model.pkl"
    pickled.write_bytes(b"x" * pickled.stat().st_size)

    with pytest.raises(ModelError, match="changed since it was pulled: its digest is"):
        load_model(tmp_path / "model")


def test_what_a_model_is_its_files_say_and_never_its_record(
    wine_model: ModelVersion, here: None, tmp_path: Path
) -> None:
    pulled = pull_model("models:/wine/1", tmp_path / "model")
    wrong = replace(
        pulled,
        content_digest="sha256:" + "0" * 64,
        flavors=("evil",),
        python_version="2.7",
        requirements=("evil==1",),
        mlflow_version="0.1",
        size=1,
        signature=None,
    )
    write_record(tmp_path / "model", wrong)

    assert load_model(tmp_path / "model") == pulled


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("content_digest", "sha256:../../../../etc"),
        ("digest", "sha256:" + "0" * 63 + '"'),
        ("version", '1"""'),
        ("name", "a\nPulled: models:/credit@prod"),
        ("uri", "models:/\x1b[2Jcredit"),
        ("alias", "\u202eprod"),
        ("source", ["a"]),
        ("size", True),
        ("size", -1),
        ("flavors", "python_function"),
        ("flavors", ["\x9b2J"]),
        ("aliases", {"prod": "one"}),
        ("aliases", ["prod"]),
        ("requirements", ["a==1\n-e ."]),
        ("signature", {"inputs": [{"type": "tensor", "tensor-spec": {"shape": ["4)"]}}]}),
        ("signature", []),
        ("name", None),
    ],
)
def test_a_record_of_ones_own_is_checked_all_the_same(
    field: str, value: Any, wine_model: ModelVersion, tmp_path: Path
) -> None:
    facts = {**wine_model.to_dict(), field: value}

    with pytest.raises(ModelError, match=r"record \.kfp-bento\.json of a pulled model") as caught:
        ModelVersion.from_dict(facts, tmp_path)
    assert "\x1b" not in str(caught.value) and "\u202e" not in str(caught.value)
