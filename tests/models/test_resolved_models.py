"""A run's models are looked up once; what comes after is about these and no others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import pytest
from small_models import small_model

from kfp_bento.runtime.bentos import is_fixed
from kfp_bento.runtime.errors import InvalidInput, ModelError
from kfp_bento.runtime.models import (
    load_given_facts,
    models_record,
    pull_models,
    resolve_models,
    save_facts,
)
from kfp_bento.runtime.models.resolved import ResolvedModel


@pytest.fixture
def client(mlflow_server: str) -> mlflow.MlflowClient:
    return mlflow.MlflowClient()


@pytest.fixture
def registered(client: mlflow.MlflowClient, tmp_path: Path) -> str:
    """A registered model of a name of its own with two versions; `prod` is the first."""
    name = tmp_path.name
    client.create_registered_model(name)
    for folder in ("first", "second"):
        source = small_model(tmp_path / folder).directory
        with mlflow.start_run() as run:
            mlflow.log_artifacts(str(source), "model")
        client.create_model_version(name, f"runs:/{run.info.run_id}/model", run.info.run_id)
    client.set_registered_model_alias(name, "prod", "1")
    return name


def resolved(*entries: str) -> list[ResolvedModel]:
    return resolve_models(entries)


def test_an_alias_that_moves_afterwards_is_not_followed(
    registered: str, client: mlflow.MlflowClient, tmp_path: Path
) -> None:
    (found,) = resolved(f"wine=models:/{registered}@prod")
    assert found.entry == f"wine=models:/{registered}/1"
    assert (found.name, found.aliases) == (registered, {"prod": "1"})
    client.set_registered_model_alias(registered, "prod", "2")
    (model,) = pull_models([found.entry], tmp_path / "models", identities=[found.identity])
    assert (model.version, model.name_in_bento) == ("1", "wine")


def test_the_same_version_is_the_same_whenever_it_is_looked_up(
    registered: str, client: mlflow.MlflowClient
) -> None:
    (before,) = resolved(f"models:/{registered}@prod")
    client.set_registered_model_alias(registered, "canary", "2")
    (after,) = resolved(f"models:/{registered}/1")
    assert (after.entry, after.identity) == (before.entry, before.identity)
    assert after.aliases != before.aliases
    (other,) = resolved(f"models:/{registered}/2")
    assert other.identity != before.identity


def test_a_version_that_was_registered_anew_is_not_taken_for_the_old_one(
    registered: str, client: mlflow.MlflowClient, tmp_path: Path
) -> None:
    (found,) = resolved(f"models:/{registered}@prod")
    second = client.get_model_version(registered, "2")
    client.delete_registered_model(registered)
    client.create_registered_model(registered)
    client.create_model_version(registered, second.source, second.run_id)
    with pytest.raises(ModelError, match="is another model than at the beginning of this run"):
        pull_models([found.entry], tmp_path / "models", identities=[found.identity])
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("kind", ["address", "run", "folder"])
def test_what_nobody_vouches_for_is_another_one_in_each_run(
    mlflow_server: str, tmp_path: Path, kind: str
) -> None:
    source = small_model(tmp_path / "made").directory
    with mlflow.start_run() as run:
        mlflow.log_artifacts(str(source), "model")
    uri = {
        "address": f"mlflow-artifacts:/0/{run.info.run_id}/artifacts/model",
        "run": f"runs:/{run.info.run_id}/model",
        "folder": str(source),
    }[kind]
    first, again = (resolved(f"m={uri}")[0] for _ in range(2))
    assert first.entry == again.entry == f"m={uri}"
    assert first.identity != again.identity
    pulled = pull_models([first.entry], tmp_path / "models", identities=[first.identity])
    assert pulled[0].version == ""


def test_a_logged_model_stays_what_it_is(mlflow_server: str, tmp_path: Path) -> None:
    import mlflow.pyfunc

    with mlflow.start_run() as run:
        logged = mlflow.pyfunc.log_model(
            name="m", python_model=lambda model_input: model_input, pip_requirements=["mlflow"]
        )
    for uri in (f"models:/{logged.model_id}", f"runs:/{run.info.run_id}/m"):
        first, again = (resolved(f"m={uri}")[0] for _ in range(2))
        assert first == again


@pytest.mark.parametrize(
    ("identities", "told"),
    [(["{}", "{}"], "1 models and 2 identities"), (["no JSON"], "identities: ")],
)
def test_identities_that_are_none_are_refused(
    registered: str, tmp_path: Path, identities: list[str], told: str
) -> None:
    with pytest.raises(InvalidInput, match=told):
        pull_models([f"models:/{registered}/1"], tmp_path / "models", identities=identities)


def given(models: Path, record: str) -> Any:
    return SimpleNamespace(path=str(models), metadata={"record": record})


def test_models_of_an_earlier_run_are_told_where_the_aliases_are_now(
    registered: str, client: mlflow.MlflowClient, tmp_path: Path
) -> None:
    pulled = pull_models([f"models:/{registered}/2"], tmp_path / "models")
    client.set_registered_model_alias(registered, "prod", "2")
    (found,) = resolved(f"models:/{registered}/2")
    artifact = given(tmp_path / "facts", save_facts(pulled, tmp_path / "facts"))
    assert load_given_facts(artifact)[0].aliases == {"prod": "1"}
    now = {found.name: dict(found.aliases)}
    assert load_given_facts(artifact, now)[0].aliases == {"prod": "2"}
    with pytest.raises(InvalidInput, match="is no object"):
        load_given_facts(artifact, {registered: "2"})  # type: ignore[dict-item]


def test_facts_of_models_are_the_models_without_their_files(
    registered: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pulled = pull_models([f"models:/{registered}/2"], tmp_path / "models")
    place = tmp_path / "facts"
    artifact = given(place, save_facts(pulled, place))
    (found,) = load_given_facts(artifact)
    assert replace(found, directory=pulled[0].directory) == pulled[0]
    place.write_text(place.read_text().replace('"version": "2"', '"version": "3"'))
    with pytest.raises(ModelError, match="are not what the step wrote"):
        load_given_facts(artifact)
    with pytest.raises(ModelError, match="There are no facts of models in"):
        load_given_facts(given(tmp_path / "models", models_record(pulled)))


@pytest.mark.parametrize(
    ("service", "fixed"),
    [
        ("", True),
        ("import bentoml\n", True),
        ("git+https://host/team/services@" + "a" * 40, True),
        ("https://host/service.py#sha256=" + "b" * 64, True),
        ("https://host/service.py", False),
        ("s3://bucket/services.zip#subdirectory=one", False),
        ("/services/one", False),
    ],
)
def test_a_service_at_an_address_may_be_another_one_tomorrow(service: str, fixed: bool) -> None:
    assert is_fixed(service) is fixed
    assert not is_fixed(service, ["s3://bucket/requests.yaml"])
    assert is_fixed(service, [{"path": "/predict", "body": {}}]) is fixed
