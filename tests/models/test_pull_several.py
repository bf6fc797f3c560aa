"""Several models from one pull: resolved together, whole together, sealed together."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from kfp_bento.runtime.errors import InvalidInput, ModelError
from kfp_bento.runtime.models import (
    ModelVersion,
    load_models,
    models_record,
    pull_models,
    source_files,
)
from kfp_bento.runtime.models import pull as pull_module
from kfp_bento.runtime.models.sources import read_entries


@pytest.fixture(scope="module")
def client(wine_model: ModelVersion, mlflow_server: str) -> Any:
    """Two versions of "fraud", alias "prod" on the first, and one of "Risk Score"."""
    import mlflow

    for name in ("fraud", "fraud", "Risk Score"):
        mlflow.register_model("models:/wine/1", name)
    client = mlflow.MlflowClient(mlflow_server)
    client.set_registered_model_alias("fraud", "prod", "1")
    return client


@pytest.fixture(scope="module")
def pulled(client: Any, tmp_path_factory: pytest.TempPathFactory) -> list[ModelVersion]:
    """Three models in one directory. Do not modify."""
    uris = ["models:/fraud@prod", "challenger=models:/fraud/2", "models:/Risk Score/1"]
    return pull_models(uris, tmp_path_factory.mktemp("several") / "models")


@pytest.fixture
def copied(pulled: list[ModelVersion], tmp_path: Path) -> Path:
    shutil.copytree(pulled[0].directory.parent, tmp_path / "models")
    return tmp_path / "models"


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders and paths that were downloaded."""
    paths: list[str] = []
    real = pull_module.download_files

    def spy(repository: Any, sizes: Any, directory: Path, *rest: Any, **more: Any) -> Any:
        paths.extend(f"{directory.name}/{path}" for path in sizes)
        return real(repository, sizes, directory, *rest, **more)

    monkeypatch.setattr(pull_module, "download_files", spy)
    return paths


def test_each_model_lies_in_a_folder_of_its_name_in_its_exact_version(
    pulled: list[ModelVersion],
) -> None:
    assert [(one.directory.name, one.name, one.version) for one in pulled] == [
        ("fraud", "fraud", "1"),
        ("challenger", "fraud", "2"),
        ("risk-score", "Risk Score", "1"),
    ]
    assert sorted(path.name for path in pulled[0].directory.parent.iterdir()) == [
        *("challenger", "fraud", "risk-score")
    ]
    assert load_models(pulled[0].directory.parent) == sorted(
        pulled, key=lambda one: one.directory.name
    )


def test_the_name_in_the_bento_is_the_one_that_was_chosen(pulled: list[ModelVersion]) -> None:
    assert [one.name_in_bento for one in pulled] == ["fraud", "challenger", "risk-score"]


def test_all_aliases_are_resolved_before_anything_is_downloaded(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, downloads: list[str]
) -> None:
    real = source_files.list_files

    def move_then_list(repository: Any) -> Any:
        client.set_registered_model_alias("fraud", "prod", "2")
        return real(repository)

    monkeypatch.setattr(source_files, "list_files", move_then_list)
    try:
        models = pull_models(["models:/Risk Score/1", "models:/fraud@prod"], tmp_path / "models")
    finally:
        client.set_registered_model_alias("fraud", "prod", "1")
    assert [one.version for one in models] == ["1", "1"]
    downloads.clear()
    with pytest.raises(ModelError, match="no alias 'nowhere'"):
        pull_models(["models:/Risk Score/1", "models:/fraud@nowhere"], tmp_path / "other")
    assert downloads == []


@pytest.mark.parametrize(
    ("uris", "said", "hinted"),
    [
        (["models:/fraud/1", "models:/fraud/2"], "would be called 'fraud'", "fraud-2=URI"),
        (["models:/fraud/1", "models:/fraud@prod"], "the same model, version 1", "once"),
        (["a=models:/fraud/1", "b=models:/fraud@prod"], "the same model, version 1", "once"),
        (["fraud=models:/wine/1", "models:/fraud/1"], "would be called 'fraud'", "fraud-2=URI"),
        (["a=models:/wine/1", "a=models:/nope/1"], "would be called 'a'", "a-2=URI"),
        (["Fraud 1=models:/fraud/1"], "cannot be the name", "fraud-1=models:/fraud/1"),
        ([], "No model was asked for", "models:/NAME"),
        ([1], "no list of texts", "models:/NAME"),
    ],
)
def test_what_cannot_be_one_set_is_refused_before_anything_is_downloaded(
    uris: list[str], said: str, hinted: str, client: Any, tmp_path: Path, downloads: list[str]
) -> None:
    with pytest.raises(InvalidInput, match=said) as caught:
        pull_models(uris, tmp_path / "models")
    assert hinted in caught.value.hint
    assert (downloads, list(tmp_path.iterdir())) == ([], [])


def test_the_hint_on_two_versions_of_one_model_leads_out(client: Any, tmp_path: Path) -> None:
    models = pull_models(["models:/fraud/1", "fraud-2=models:/fraud/2"], tmp_path / "models")
    assert [one.name_in_bento for one in models] == ["fraud", "fraud-2"]


@pytest.mark.parametrize("text", ["s3://bucket/date=2024/model", "models:/a=b/1", "./x=y", "/a=b"])
def test_an_equals_sign_inside_of_a_uri_chooses_no_name(text: str) -> None:
    [entry] = read_entries([text])
    assert (entry.uri.text, entry.name) == (text, "")


def test_a_second_pull_downloads_what_is_new_and_drops_what_is_no_longer_asked_for(
    client: Any, copied: Path, downloads: list[str]
) -> None:
    models = pull_models(["models:/fraud/1", "other=models:/wine@champion"], copied)
    assert [one.reused for one in models] == [True, False]
    assert {path.partition("/")[0] for path in downloads} == {"other"}
    assert sorted(path.name for path in copied.iterdir()) == ["fraud", "other"]
    assert load_models(copied) == models


def test_a_set_of_which_one_fails_leaves_nothing_behind(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = pull_module.describe_model

    def failing(directory: Path, *rest: Any, **more: Any) -> Any:
        if directory.name == "fraud":
            raise ModelError("It is damaged.", hint="None.")
        return real(directory, *rest, **more)

    monkeypatch.setattr(pull_module, "describe_model", failing)
    with pytest.raises(ModelError, match="damaged"):
        pull_models(["models:/fraud/1", "models:/wine/1"], tmp_path / "models")
    assert list(tmp_path.iterdir()) == []


def test_something_of_the_users_beside_models_is_left_alone(client: Any, copied: Path) -> None:
    (copied / "thesis.txt").write_text("precious")
    with pytest.raises(InvalidInput, match="is not empty"):
        pull_models(["models:/fraud/1"], copied)
    assert (copied / "thesis.txt").read_text() == "precious"


def test_the_record_that_the_step_tells_seals_all_models(
    pulled: list[ModelVersion], copied: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told = models_record(pulled)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another user"))
    assert [one.name for one in load_models(copied, record=told)] == [
        "fraud",
        "fraud",
        "Risk Score",
    ]
    assert [one.name for one in load_models(copied)] == ["", "", ""]


@pytest.mark.parametrize("change", ["removed", "added", "swapped", "record"])
def test_a_set_that_was_changed_in_object_storage_is_refused(
    change: str, pulled: list[ModelVersion], copied: Path
) -> None:
    if change == "removed":
        shutil.rmtree(copied / "fraud")
    elif change == "added":
        shutil.copytree(copied / "fraud", copied / "more")
    elif change == "swapped":  # each by itself is one of ours
        (copied / "fraud").rename(copied / "x")
        (copied / "challenger").rename(copied / "fraud")
        (copied / "x").rename(copied / "challenger")
    else:
        (copied / "fraud" / ".kfp-bento.json").unlink()
    with pytest.raises(ModelError, match="not the ones that the step wrote"):
        load_models(copied, record=models_record(pulled))


def test_one_models_own_directory_is_a_set_of_one(pulled: list[ModelVersion]) -> None:
    assert load_models(pulled[1].directory) == [pulled[1]]


def test_plain_models_in_folders_are_a_set(copied: Path) -> None:
    for file in copied.glob("*/.kfp-bento.json"):
        file.unlink()
    assert [one.name_in_bento for one in load_models(copied)] == [
        *("challenger", "fraud", "risk-score")
    ]


def test_a_folder_without_a_model_among_models_is_refused(copied: Path) -> None:
    (copied / "notes").mkdir()
    with pytest.raises(ModelError, match="and notes beside them, which is none"):
        load_models(copied)
