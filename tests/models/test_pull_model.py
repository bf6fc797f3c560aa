from __future__ import annotations

import contextlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pulled_model import pull_model
from wine import log_wine_model

from kfp_bento.runtime.errors import InvalidInput, ModelError
from kfp_bento.runtime.models import ModelVersion, load_model, read_example, tree_digest
from kfp_bento.runtime.models import pull as pull_module
from kfp_bento.runtime.models.uri import parse_model_uri


@pytest.fixture(scope="module")
def logged(wine_model: ModelVersion) -> Any:
    """A second training of the same model, registered on its own under an awkward name."""
    import mlflow

    info = log_wine_model("rött vin 50%20 'dry'")
    mlflow.MlflowClient().set_registered_model_alias(
        "rött vin 50%20 'dry'", "next", info.registered_model_version
    )
    return info


@pytest.fixture
def client(mlflow_server: str) -> Any:
    import mlflow

    return mlflow.MlflowClient(mlflow_server)


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that were downloaded."""
    paths: list[str] = []
    real = pull_module.download_files

    def spy(repository: Any, sizes: Any, *rest: Any, **more: Any) -> Any:
        paths.extend(sizes)
        return real(repository, sizes, *rest, **more)

    monkeypatch.setattr(pull_module, "download_files", spy)
    return paths


def test_a_pulled_model_states_where_it_came_from(wine_model: ModelVersion, client: Any) -> None:
    registered = client.get_model_version("wine", "1")

    assert (wine_model.uri, wine_model.name, wine_model.version, wine_model.alias) == (
        "models:/wine@champion",
        "wine",
        "1",
        "champion",
    )
    assert (wine_model.run_id, wine_model.source) == (registered.run_id, registered.source)
    assert wine_model.model_id == registered.source.removeprefix("models:/")
    assert wine_model.aliases == {"champion": "1"}


def test_a_pulled_model_states_what_it_is(wine_model: ModelVersion) -> None:
    import sys

    assert wine_model.flavors == ("python_function", "sklearn")
    assert wine_model.python_version == ".".join(map(str, sys.version_info[:3]))
    assert any(line.startswith("scikit-learn==") for line in wine_model.requirements)
    assert wine_model.signature is not None
    assert wine_model.signature.kind == "columns"
    assert wine_model.signature.inputs[0].name == "alcohol"
    assert not wine_model.reused


def test_files_have_their_real_names_and_digest(wine_model: ModelVersion) -> None:
    names = {path.name for path in wine_model.directory.iterdir()}

    assert {"MLmodel", "model.pkl", "requirements.txt", ".kfp-bento.json"} <= names
    assert tree_digest(wine_model.directory) == wine_model.digest


def test_the_record_holds_everything_but_the_place_on_this_machine(
    wine_model: ModelVersion,
) -> None:
    text = (wine_model.directory / ".kfp-bento.json").read_text()

    assert ModelVersion.from_dict(json.loads(text), wine_model.directory) == wine_model
    assert str(wine_model.directory) not in text
    assert load_model(wine_model.directory) == wine_model


def test_the_digest_is_the_one_of_mlflows_own_download(
    wine_model: ModelVersion, mlflow_server: str, tmp_path: Path
) -> None:
    import mlflow

    mlflow.artifacts.download_artifacts(
        "models:/wine/1", dst_path=str(tmp_path / "theirs"), tracking_uri=mlflow_server
    )

    assert (tmp_path / "theirs" / "registered_model_meta").is_file()
    assert tree_digest(tmp_path / "theirs") == wine_model.digest


@pytest.mark.parametrize("form", ["models:/wine/1", "models:/wine/latest", "logged", "run", "raw"])
def test_every_form_leads_to_the_same_bytes(
    form: str, wine_model: ModelVersion, tmp_path: Path
) -> None:
    uri = {
        "logged": f"models:/{wine_model.model_id}",
        "run": f"runs:/{wine_model.run_id}/model",
        "raw": f"mlflow-artifacts:/0/models/{wine_model.model_id}/artifacts",
    }.get(form, form)

    model = pull_model(uri, tmp_path / "model")

    assert model.digest == wine_model.digest
    assert (model.run_id, model.model_id) == (wine_model.run_id, wine_model.model_id)


def test_a_name_with_blanks_umlauts_percent_and_quotes_is_taken_as_it_is(
    logged: Any, tmp_path: Path
) -> None:
    model = pull_model("models:/rött vin 50%20 'dry'@next", tmp_path / "model")

    assert (model.name, model.version) == ("rött vin 50%20 'dry'", "1")


def test_two_trainings_of_the_same_model_share_only_the_content_digest(
    wine_model: ModelVersion, logged: Any, tmp_path: Path
) -> None:
    other = pull_model(logged.model_uri, tmp_path / "model")

    assert other.digest != wine_model.digest
    assert other.content_digest == wine_model.content_digest


@pytest.fixture
def moving(logged: Any, client: Any) -> Any:
    """A registered model with two versions whose alias "prod" is on the first."""
    import mlflow

    with contextlib.suppress(mlflow.MlflowException):
        client.delete_registered_model("moving")
    mlflow.register_model(logged.model_uri, "moving")
    mlflow.register_model("models:/wine/1", "moving")
    client.set_registered_model_alias("moving", "prod", "1")
    return lambda: client.set_registered_model_alias("moving", "prod", "2")


def test_an_alias_that_moves_during_the_run_is_not_followed(
    moving: Any, logged: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = pull_module.list_files

    def move_then_list(repository: Any) -> Any:
        moving()
        return real(repository)

    monkeypatch.setattr(pull_module, "list_files", move_then_list)
    model = pull_model("models:/moving@prod", tmp_path / "model")

    assert (model.version, model.model_id) == ("1", logged.model_id)
    assert model.aliases == {"prod": "1"}


def test_an_alias_is_read_once_and_never_again(
    moving: Any, logged: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    real = mlflow.MlflowClient.get_registered_model

    def read_then_move(*arguments: Any) -> Any:
        answer = real(*arguments)
        with monkeypatch.context() as patch:
            patch.setattr(mlflow.MlflowClient, "get_registered_model", real)
            moving()
        return answer

    monkeypatch.setattr(mlflow.MlflowClient, "get_registered_model", read_then_move)
    monkeypatch.delattr(mlflow.MlflowClient, "get_model_version_by_alias")
    model = pull_model("models:/moving@prod", tmp_path / "model")

    assert (model.version, model.model_id) == ("1", logged.model_id)


def test_pulling_again_downloads_nothing_and_says_so(
    wine_model: ModelVersion, tmp_path: Path, downloads: list[str]
) -> None:
    first = pull_model("models:/wine/1", tmp_path / "model")
    downloads.clear()
    second = pull_model("models:/wine/1", tmp_path / "model")

    assert (first.reused, second.reused, downloads) == (False, True, [])
    assert second == first


def test_pulling_again_by_alias_notes_where_the_aliases_are_now(
    wine_model: ModelVersion, tmp_path: Path, downloads: list[str]
) -> None:
    pull_model("models:/wine/1", tmp_path / "model")
    downloads.clear()
    model = pull_model("models:/wine@champion", tmp_path / "model")

    assert (model.reused, downloads) == (True, [])
    assert load_model(tmp_path / "model").alias == "champion"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_pulled_model_that_was_tampered_with_is_pulled_anew(
    wine_model: ModelVersion, tmp_path: Path, downloads: list[str]
) -> None:
    pull_model("models:/wine/1", tmp_path / "model")
    pickled = tmp_path / "model" / "model.pkl"
    pickled.write_bytes(b"x" * pickled.stat().st_size)
    downloads.clear()
    model = pull_model("models:/wine/1", tmp_path / "model")

    assert not model.reused
    assert "model.pkl" in downloads
    assert tree_digest(tmp_path / "model") == wine_model.digest


def test_another_version_replaces_the_earlier_one(
    wine_model: ModelVersion, logged: Any, tmp_path: Path
) -> None:
    pull_model("models:/wine/1", tmp_path / "model")
    (tmp_path / "model" / "stray").write_text("")
    model = pull_model(logged.model_uri, tmp_path / "model")

    assert tree_digest(tmp_path / "model") == model.digest != wine_model.digest
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_directory_with_other_things_in_it_is_left_alone(
    wine_model: ModelVersion, tmp_path: Path
) -> None:
    (tmp_path / "thesis.txt").write_text("precious")

    with pytest.raises(InvalidInput, match="is not empty"):
        pull_model("models:/wine/1", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_an_empty_directory_may_be_there_already(wine_model: ModelVersion, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()

    assert pull_model("models:/wine/1", tmp_path / "model").digest == wine_model.digest


def test_progress_counts_bytes_up_to_the_total(wine_model: ModelVersion, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    pull_model("models:/wine/1", tmp_path / "m", progress=lambda *step: seen.append(step))

    assert seen == sorted(seen)
    assert seen[-1] == (wine_model.size, wine_model.size)


def test_a_plain_directory_is_copied_without_asking_any_server(
    wine_model: ModelVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    shutil.copytree(wine_model.directory, tmp_path / "mine")
    (tmp_path / "mine" / ".kfp-bento.json").unlink()
    model = pull_model(str(tmp_path / "mine"), tmp_path / "copy")

    assert (model.uri, model.name, model.source) == ("mine", "", "")
    assert (model.digest, model.run_id) == (wine_model.digest, wine_model.run_id)
    assert tree_digest(tmp_path / "copy") == wine_model.digest


def test_a_pulled_directory_is_copied_with_its_provenance(
    wine_model: ModelVersion, tmp_path: Path
) -> None:
    uri = wine_model.directory.as_uri()
    copy = pull_model(uri, tmp_path / "copy")

    assert copy == replace(wine_model, directory=tmp_path / "copy")
    assert pull_model(uri, tmp_path / "copy").reused


def test_a_copy_does_not_go_into_the_model_itself(wine_model: ModelVersion) -> None:
    with pytest.raises(InvalidInput, match="lies inside the model"):
        pull_model(str(wine_model.directory), wine_model.directory / "copy")


def test_a_model_without_a_record_is_loaded_as_it_is(
    wine_model: ModelVersion, tmp_path: Path
) -> None:
    shutil.copytree(wine_model.directory, tmp_path / "mine")
    (tmp_path / "mine" / ".kfp-bento.json").unlink()
    model = load_model(tmp_path / "mine")

    assert (model.uri, model.content_digest) == ("mine", wine_model.content_digest)
    assert model.aliases == {}


def test_a_pulled_model_that_lost_a_file_is_not_loaded(
    wine_model: ModelVersion, tmp_path: Path
) -> None:
    shutil.copytree(wine_model.directory, tmp_path / "model")
    (tmp_path / "model" / "model.pkl").unlink()

    with pytest.raises(ModelError, match="changed since it was pulled"):
        load_model(tmp_path / "model")


def test_the_input_example_is_mlflows_scoring_payload(wine_model: ModelVersion) -> None:
    example = read_example(wine_model.directory)

    assert len(example["dataframe_split"]["data"]) == 3


def test_a_model_without_input_example_gives_none(wine_model: ModelVersion, tmp_path: Path) -> None:
    shutil.copytree(wine_model.directory, tmp_path / "m")
    for name in ("serving_input_example.json", "input_example.json"):
        (tmp_path / "m" / name).unlink()

    assert read_example(tmp_path / "m") is None


@pytest.mark.parametrize(
    ("uri", "said", "hinted"),
    [
        ("models:/nope/1", "no registered model 'nope'", "tracking URI"),
        ("models:/wine/9", "has no version 9; the newest is 1", "models:/wine/1"),
        ("models:/wine@prod", r"no alias 'prod'; its aliases: champion \(version 1\)", "alias"),
        ("models:/Wine@champion", "no registered model 'Wine'", "upper and lower case"),
        (f"models:/m-{'0' * 32}", "no logged model m-0", "id"),
        (f"runs:/{'0' * 32}/model", "no run 0000", "run id"),
        ("mlflow-artifacts:/0/nothing/here", "no files at mlflow-artifacts", "path"),
        ("nosuch://bucket/model", "cannot be read", "scheme"),
    ],
)
def test_what_does_not_exist_is_named_and_nothing_is_left(
    uri: str, said: str, hinted: str, wine_model: ModelVersion, tmp_path: Path
) -> None:
    with pytest.raises((ModelError, InvalidInput), match=said) as caught:
        pull_model(uri, tmp_path / "model")

    assert hinted in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_path_that_the_run_does_not_have_is_named(
    wine_model: ModelVersion, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=r"no files at .*/artifacts/nope"):
        pull_model(f"runs:/{wine_model.run_id}/nope", tmp_path / "model")


def test_a_model_that_cannot_be_served_costs_one_small_download(
    mlflow_server: str, tmp_path: Path, downloads: list[str]
) -> None:
    import mlflow

    (tmp_path / "MLmodel").write_text("flavors: {sklearn: {pickled_model: model.pkl}}\n")
    (tmp_path / "model.pkl").write_bytes(b"large")
    with mlflow.start_run() as run:
        mlflow.log_artifact(str(tmp_path / "MLmodel"), "model")
        mlflow.log_artifact(str(tmp_path / "model.pkl"), "model")

    with pytest.raises(ModelError, match=r"no python_function flavor \(only: sklearn\)"):
        pull_model(f"runs:/{run.info.run_id}/model", tmp_path / "pulled")
    assert downloads == ["MLmodel"]
    assert not (tmp_path / "pulled").exists()


def test_a_directory_that_is_no_model_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "notes.txt").write_text("")

    for call in (load_model, lambda path: pull_model(str(path), tmp_path / "model")):
        with pytest.raises(ModelError, match=r"no MLflow model: .* \(it holds notes.txt\)"):
            call(tmp_path / "data")


def test_a_directory_whose_mlmodel_is_no_yaml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "MLmodel").write_text("flavors: [")

    with pytest.raises(ModelError, match="MLmodel file is not valid YAML"):
        pull_model(str(tmp_path / "data"), tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_directory_that_is_missing_hints_at_the_registry(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no directory") as caught:
        pull_model("wine@champion", tmp_path / "model")

    assert "models:/NAME@ALIAS" in caught.value.hint
    assert parse_model_uri("wine@champion").kind == "directory"
