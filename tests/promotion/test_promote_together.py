"""Models that decide together are promoted together, or none of them is."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import pytest

from kfp_bento.runtime.checks import CheckReport
from kfp_bento.runtime.errors import PromotionError
from kfp_bento.runtime.models import ModelVersion, pull_models
from kfp_bento.runtime.promotion.promotion import promote_models

GOOD = "kfp-bento.last-known-good.prod"


@pytest.fixture
def client(mlflow_server: str) -> Any:
    import mlflow

    return mlflow.MlflowClient(mlflow_server)


@pytest.fixture
def names(wine_model: ModelVersion, client: Any, request: pytest.FixtureRequest) -> tuple[str, str]:
    """Two registered models with two versions each; the alias is on the first version of one."""
    import mlflow

    pair = f"pair-{zlib.crc32(request.node.name.encode()):x}"  # a name in a bento is short
    names = (f"{pair}-a", f"{pair}-b")
    for name in names:
        for _ in range(2):
            mlflow.register_model("models:/wine/1", name)
    client.set_registered_model_alias(names[0], "prod", "1")
    return names


@pytest.fixture
def models(names: tuple[str, str], tmp_path: Path) -> list[ModelVersion]:
    uris = [f"{place}=models:/{name}/2" for place, name in zip("ab", names, strict=True)]
    return pull_models(uris, tmp_path / "models")


def report(models: list[ModelVersion]) -> CheckReport:
    digests = tuple(model.digest for model in models)
    return CheckReport("smoke_test", True, "fine", {}, (), digests, "")


def holders(client: Any, names: tuple[str, str]) -> list[str | None]:
    found = [client.get_registered_model(name).aliases.get("prod") for name in names]
    return [None if one is None else str(one) for one in found]


def history(client: Any, name: str, version: str = "2") -> list[str]:
    tags = client.get_model_version(name, version).tags
    return [key for key in tags if key.startswith("kfp-bento.promoted.")]


def last_known_good(client: Any, name: str) -> str | None:
    found: str | None = client.get_registered_model(name).tags.get(GOOD)
    return found


def fail_at(monkeypatch: pytest.MonkeyPatch, name: str, failure: BaseException) -> Any:
    """From now on the registry fails when the alias of this model is set, after it was set."""
    import mlflow

    real = mlflow.MlflowClient.set_registered_model_alias

    def failing(self: Any, model: str, alias: str, version: str) -> None:
        real(self, model, alias, version)
        if model == name and version == "2":
            raise failure

    monkeypatch.setattr(mlflow.MlflowClient, "set_registered_model_alias", failing)


def test_all_models_get_the_alias_and_a_history(
    client: Any, names: tuple[str, str], models: list[ModelVersion]
) -> None:
    promotion = promote_models(models, [report(models)], "prod")

    assert promotion.versions == {names[0]: "2", names[1]: "2"}
    assert [one.previous for one in promotion.models] == ["1", ""]
    assert holders(client, names) == ["2", "2"]
    assert [history(client, name) for name in names] == [["kfp-bento.promoted.prod.1"]] * 2
    assert [last_known_good(client, name) for name in names] == ["1", None]


def test_no_alias_moves_where_one_moved_meanwhile(
    client: Any, names: tuple[str, str], models: list[ModelVersion]
) -> None:
    client.set_registered_model_alias(names[1], "prod", "1")

    with pytest.raises(PromotionError, match="moved while version 2 was being checked"):
        promote_models(models, [report(models)], "prod")
    assert holders(client, names) == ["1", "1"]
    assert [history(client, name) for name in names] == [[], []]


def test_no_alias_moves_where_one_version_is_gone(
    client: Any, names: tuple[str, str], models: list[ModelVersion]
) -> None:
    client.delete_model_version(names[1], "2")

    with pytest.raises(PromotionError, match="does not exist any more"):
        promote_models(models, [report(models)], "prod")
    assert holders(client, names) == ["1", None]


@pytest.mark.parametrize("failure", [ConnectionError("reset by peer"), KeyboardInterrupt()])
def test_a_promotion_that_fails_midway_puts_back_what_it_moved(
    failure: BaseException,
    client: Any,
    names: tuple[str, str],
    models: list[ModelVersion],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client.set_registered_model_tag(names[0], GOOD, "7")
    with monkeypatch.context() as patch:
        fail_at(patch, names[1], failure)
        with pytest.raises((PromotionError, KeyboardInterrupt)) as caught:
            promote_models(models, [report(models)], "prod")

    if isinstance(caught.value, PromotionError):
        assert "The alias 'prod' was put back on" in caught.value.message
        assert names[0] in caught.value.message
    assert holders(client, names) == ["1", None]
    assert [last_known_good(client, name) for name in names] == ["7", None]
    assert [history(client, name) for name in names] == [[], []]
    assert promote_models(models, [report(models)], "prod").changed
    assert holders(client, names) == ["2", "2"]


def test_an_alias_that_somebody_else_took_is_not_put_back(
    client: Any,
    names: tuple[str, str],
    models: list[ModelVersion],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import mlflow

    real = mlflow.MlflowClient.set_registered_model_alias

    def overtaken(self: Any, model: str, alias: str, version: str) -> None:
        real(self, model, alias, "1" if model == names[1] else version)

    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, "set_registered_model_alias", overtaken)
        with pytest.raises(PromotionError, match=r"reads back as version 1.*was put back on"):
            promote_models(models, [report(models)], "prod")
    assert holders(client, names) == ["1", "1"]


def test_what_could_not_be_put_back_is_said_and_completed_by_the_next_run(
    client: Any,
    names: tuple[str, str],
    models: list[ModelVersion],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import mlflow

    with monkeypatch.context() as patch:
        fail_at(patch, names[1], ConnectionError("reset by peer"))
        gone = ConnectionError("refused")

        def refused(*_: Any) -> None:
            raise gone

        patch.setattr(mlflow.MlflowClient, "delete_registered_model_alias", refused)
        with pytest.raises(PromotionError, match="could not be settled") as caught:
            promote_models(models, [report(models)], "prod")
    assert "Run the promotion again" in caught.value.hint
    assert holders(client, names) == ["1", "2"]
    promote_models(models, [report(models)], "prod")
    assert holders(client, names) == ["2", "2"]
    assert [history(client, name) for name in names] == [["kfp-bento.promoted.prod.1"]] * 2


def test_a_run_that_was_killed_between_two_models_is_completed_by_the_next(
    client: Any, names: tuple[str, str], models: list[ModelVersion]
) -> None:
    client.set_registered_model_alias(names[0], "prod", "2")  # and there it was killed
    promotion = promote_models(models, [report(models)], "prod")

    assert [(one.previous, one.changed) for one in promotion.models] == [("1", False), ("", True)]
    assert holders(client, names) == ["2", "2"]
    assert [history(client, name) for name in names] == [["kfp-bento.promoted.prod.1"]] * 2


def test_two_versions_of_one_registered_model_cannot_be_promoted_together(
    client: Any, names: tuple[str, str], tmp_path: Path
) -> None:
    uris = [f"models:/{names[0]}/2", f"other=models:/{names[0]}/1"]
    models = pull_models(uris, tmp_path / "pair")

    with pytest.raises(PromotionError, match="cannot both hold one alias") as caught:
        promote_models(models, [report(models)], "prod")
    assert holders(client, names) == ["1", None]
    # The way out that the hint shows.
    assert f"copy_model_version('models:/{names[0]}/1', " in caught.value.hint
    client.copy_model_version(f"models:/{names[0]}/1", f"{names[0]}-copy")
    models = pull_models([uris[0], f"models:/{names[0]}-copy/1"], tmp_path / "pair")
    assert promote_models(models, [report(models)], "prod").changed


def test_a_report_about_fewer_or_more_models_does_not_count(
    client: Any, names: tuple[str, str], models: list[ModelVersion], wine_model: ModelVersion
) -> None:
    other = CheckReport("other", True, "fine", {}, (), ("sha256:other",), "")
    more = CheckReport("more", True, "fine", {}, (), (models[0].digest, "sha256:other"), "")
    for reports, said in (([report(models), other], "not version 2 of"), ([more], "more than")):
        with pytest.raises(PromotionError, match=said):
            promote_models(models, reports, "prod")
    assert holders(client, names) == ["1", None]
