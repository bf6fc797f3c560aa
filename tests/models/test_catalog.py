"""A registry is listed page by page, and a model is looked at without its weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from kfp_bento_command import assert_refused, kfp_bento_here

from kfp_bento.runtime.errors import ModelError
from kfp_bento.runtime.models import ModelVersion, catalog, list_registered_models, look_at_model
from kfp_bento.runtime.models.source_files import SourceFiles


@pytest.fixture(scope="module")
def crowd(mlflow_server: str, wine_model: ModelVersion) -> list[str]:
    """Registered models, more than a small page, besides the one with a version."""
    from mlflow import MlflowClient

    names = [f"crowd-{number}" for number in range(7)]
    for name in names:
        MlflowClient().create_registered_model(name)
    return names


def aliases(name: str) -> dict[str, str]:
    """What MLflow itself says of a registered model; other tests give it aliases, too."""
    from mlflow import MlflowClient

    found: dict[str, str] = dict(MlflowClient().get_registered_model(name).aliases)
    assert "champion" in found
    return found


def test_all_pages_of_the_registry_are_read(
    crowd: list[str], mlflow_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog, "_PAGE", 3)
    found = {one.name: one for one in list_registered_models(mlflow_server)}
    assert set(found) >= {*crowd, "wine"}
    assert list(found) == sorted(found)
    assert (found["wine"].newest, found["wine"].aliases) == ("1", aliases("wine"))
    assert found["crowd-0"].newest == ""
    monkeypatch.setattr(catalog, "_MOST_MODELS", 6)
    with pytest.raises(ModelError, match="more than 6"):
        list_registered_models(mlflow_server)


def test_the_command_lists_them(crowd: list[str], mlflow_server: str) -> None:
    shown = kfp_bento_here("model", "list", "--tracking-uri", mlflow_server).stdout
    told = next(line for line in shown.splitlines() if line.split()[:2] == ["wine", "1"])
    assert all(f"{alias} -> {version}" in told for alias, version in aliases("wine").items())
    done = kfp_bento_here("model", "list", "--tracking-uri", mlflow_server, "--json")
    found = {one["name"]: one for one in json.loads(done.stdout)}
    assert found["wine"]["latest_version"] == "1"
    assert found["crowd-0"] == {"name": "crowd-0", "latest_version": None, "aliases": {}}


def test_a_model_is_looked_at_without_its_weights(
    mlflow_server: str, wine_model: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[str] = []
    download = catalog.download_files

    def noted(repository: object, sizes: dict[str, int | None], *rest: object) -> object:
        fetched.extend(sizes)
        return download(repository, sizes, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(catalog, "download_files", noted)
    found = look_at_model("models:/wine@champion", tracking_uri=mlflow_server)
    assert "MLmodel" in fetched
    assert all(not name.endswith((".pkl", ".skops")) for name in fetched)
    same = ("name", "version", "flavors", "signature", "requirements", "size", "python_version")
    assert [getattr(found, name) for name in same] == [getattr(wine_model, name) for name in same]
    assert (found.digest, found.aliases) == ("", aliases("wine"))


def test_a_folder_is_shown_like_a_version(
    wine_model: ModelVersion, tmp_path: Path, mlflow_server: str
) -> None:
    directory = tmp_path / "model"
    shutil.copytree(wine_model.directory, directory)
    done = kfp_bento_here("model", "show", directory)
    assert wine_model.digest in done.stdout
    by_uri = kfp_bento_here(
        *("model", "show", "models:/wine/1", "--tracking-uri", mlflow_server)
    ).stdout
    for text in (done.stdout, by_uri):
        assert "python_function" in text
        assert "scikit-learn==" in text
        assert "input  " in text


def test_an_account_in_a_requirement_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_text("flavors:\n  python_function: {loader_module: x}\n")
    (tmp_path / "requirements.txt").write_text(
        "--extra-index-url https://robot:hunter2@index.example.com/simple\nsix\n"
    )
    for more in ((), ("--json",)):
        done = kfp_bento_here("model", "show", tmp_path, *more)
        assert done.returncode == 0, done.stderr
        assert "index.example.com" in done.stdout
        assert "hunter2" not in done.stdout + done.stderr


def test_a_model_that_is_not_there_is_refused(mlflow_server: str, tmp_path: Path) -> None:
    show = ("model", "show")
    at = ("--tracking-uri", mlflow_server)
    assert_refused(kfp_bento_here(*show, "models:/nobody/1", *at), "nobody")
    assert_refused(kfp_bento_here(*show, tmp_path), "MLmodel")


def test_the_size_of_a_source_is_what_is_known() -> None:
    sizes = {"MLmodel": 10, "a": None, "b": 5}
    assert SourceFiles(None, None, sizes).size == 15  # type: ignore[arg-type]
