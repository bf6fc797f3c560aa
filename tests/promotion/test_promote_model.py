from __future__ import annotations

import getpass
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from pulled_model import pull_model
from servers import free_port

from kfp_bento.runtime.checks import CheckReport
from kfp_bento.runtime.errors import InvalidInput, PromotionError
from kfp_bento.runtime.models import ModelVersion
from kfp_bento.runtime.promotion.promotion import Promotion, promote_models

if TYPE_CHECKING:
    from pathlib import Path

IMAGE = "registry.local/wine@sha256:" + "0" * 64


@pytest.fixture
def client(mlflow_server: str) -> Any:
    import mlflow

    return mlflow.MlflowClient(mlflow_server)


@pytest.fixture
def name(wine_model: ModelVersion, client: Any, request: pytest.FixtureRequest) -> str:
    """A registered model of this test's own, with two versions and no alias."""
    import mlflow

    name = request.node.name
    for _ in range(2):
        mlflow.register_model("models:/wine/1", name)
    return str(name)


@pytest.fixture
def pulled(name: str, tmp_path: Path) -> Any:
    return lambda version: pull_model(f"models:/{name}/{version}", tmp_path / version)


def report(model: ModelVersion, **changes: Any) -> CheckReport:
    facts: dict[str, Any] = {
        "name": "compare_predictions",
        "passed": True,
        "summary": "3 of 3 rows are equal",
        "measures": {"rows": 3.0, "worst": float("inf")},
        "evidence": (),
        "model_digests": (model.digest,),
        "url": "http://127.0.0.1:3000",
    }
    return CheckReport(**(facts | changes))


def only(promotion: Promotion) -> Any:
    [promoted] = promotion.models
    return promoted


def holder(client: Any, name: str, alias: str = "prod") -> str | None:
    found = client.get_registered_model(name).aliases.get(alias)
    return None if found is None else str(found)


def history(client: Any, name: str, version: str) -> dict[str, Any]:
    tags = client.get_model_version(name, version).tags
    return {key: json.loads(tags[key]) for key in tags if key.startswith("kfp-bento.promoted.")}


def test_a_checked_model_gets_the_alias(name: str, pulled: Any, client: Any) -> None:
    model = pulled("1")
    promotion = promote_models([model], [report(model)], "prod", image=IMAGE)

    assert holder(client, name) == "1"
    assert promotion.to_dict() == {
        "alias": "prod",
        "changed": True,
        "models": [
            {
                "name": name,
                "version": "1",
                "previous": "",
                "changed": True,
                "history_tag": "kfp-bento.promoted.prod.1",
            }
        ],
        "release": "",
    }


def test_history_says_what_was_promoted_and_why(name: str, pulled: Any, client: Any) -> None:
    client.set_registered_model_alias(name, "prod", "1")
    model = pulled("2")
    promotion = promote_models([model], [report(model)], "prod", image=IMAGE)
    entry = history(client, name, "2")[only(promotion).history_tag]

    assert entry.pop("at").endswith("Z")
    assert entry.pop("by") == getpass.getuser()
    assert entry == {
        "previous": "1",
        "image": IMAGE,
        "model_digest": model.digest,
        "checks": {"compare_predictions": {"rows": 3.0, "worst": "inf"}},
    }


def test_the_previous_version_is_kept_as_last_known_good(
    name: str, pulled: Any, client: Any
) -> None:
    client.set_registered_model_alias(name, "prod", "1")
    model = pulled("2")
    promotion = promote_models([model], [report(model)], "prod")

    assert only(promotion).previous == "1"
    tags = client.get_registered_model(name).tags
    assert tags["kfp-bento.last-known-good.prod"] == "1"


def test_promoting_again_changes_nothing(name: str, pulled: Any, client: Any) -> None:
    model = pulled("2")
    first = promote_models([model], [report(model)], "prod")
    before = history(client, name, "2")
    for again in (model, pulled("2")):
        second = promote_models([again], [report(again)], "prod")
        assert only(second) == replace(only(first), changed=False)
    assert history(client, name, "2") == before


def test_promoting_back_and_forth_only_adds_to_the_history(
    name: str, pulled: Any, client: Any
) -> None:
    for version in ("1", "2", "1"):
        model = pulled(version)
        promote_models([model], [report(model)], "prod")

    assert list(history(client, name, "1")) == [
        "kfp-bento.promoted.prod.1",
        "kfp-bento.promoted.prod.2",
    ]
    assert client.get_registered_model(name).tags["kfp-bento.last-known-good.prod"] == "2"


def test_a_promotion_that_was_killed_before_its_history_is_completed(
    name: str, pulled: Any, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    client.set_registered_model_alias(name, "prod", "1")
    model = pulled("2")

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(mlflow.MlflowClient, "set_model_version_tag", killed)
        promote_models([model], [report(model)], "prod")
    assert (holder(client, name), history(client, name, "2")) == ("2", {})
    promotion = promote_models([model], [report(model)], "prod")

    assert (only(promotion).previous, only(promotion).changed) == ("1", False)
    assert history(client, name, "2")[only(promotion).history_tag]["previous"] == "1"


def test_an_alias_that_moved_since_the_model_was_resolved_is_not_overwritten(
    name: str, pulled: Any, client: Any
) -> None:
    model = pulled("2")
    client.set_registered_model_alias(name, "prod", "1")

    with pytest.raises(PromotionError, match=r"was on no version and is on version 1 now"):
        promote_models([model], [report(model)], "prod")
    assert holder(client, name) == "1"
    assert history(client, name, "2") == {}


def test_an_alias_that_vanished_meanwhile_is_named(name: str, pulled: Any, client: Any) -> None:
    client.set_registered_model_alias(name, "prod", "1")
    model = pulled("2")
    client.delete_registered_model_alias(name, "prod")

    with pytest.raises(PromotionError, match=r"was on version 1 and is on no version now"):
        promote_models([model], [report(model)], "prod")
    assert holder(client, name) is None


def test_an_alias_that_does_not_read_back_is_noticed(
    name: str, pulled: Any, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    model = pulled("2")
    real = mlflow.MlflowClient.set_registered_model_alias

    def overtaken(self: Any, name: str, alias: str, version: str) -> None:
        real(self, name, alias, version)
        real(self, name, alias, "1")

    monkeypatch.setattr(mlflow.MlflowClient, "set_registered_model_alias", overtaken)
    with pytest.raises(PromotionError, match="reads back as version 1"):
        promote_models([model], [report(model)], "prod")
    assert history(client, name, "2") == {}


def test_a_check_that_did_not_pass_stops_the_promotion(name: str, pulled: Any, client: Any) -> None:
    model = pulled("1")
    failed = report(model, name="smoke_test", passed=False, summary="HTTP 500 after 3 s")

    with pytest.raises(PromotionError, match="'smoke_test' did not pass: HTTP 500 after 3 s"):
        promote_models([model], [report(model), failed], "prod")
    assert holder(client, name) is None


def test_a_report_about_another_model_does_not_count(wine_model: ModelVersion) -> None:
    other = report(wine_model, model_digests=("sha256:other",))

    with pytest.raises(PromotionError, match="about other models: sha256:other, not version 1"):
        promote_models([wine_model], [other], "prod")


def test_nothing_is_promoted_without_reports(wine_model: ModelVersion) -> None:
    with pytest.raises(PromotionError, match="no check reports"):
        promote_models([wine_model], [], "prod")


def test_a_model_that_is_not_registered_cannot_be_promoted(wine_model: ModelVersion) -> None:
    model = replace(wine_model, uri="runs:/1/model", name="", version="")

    with pytest.raises(PromotionError, match="runs:/1/model is no registered version"):
        promote_models([model], [report(model)], "prod")


def test_another_model_under_the_same_name_and_number_is_recognised(
    wine_model: ModelVersion,
) -> None:
    model = replace(wine_model, source="models:/m-" + "0" * 32)

    with pytest.raises(PromotionError, match="is another model than the one that was checked"):
        promote_models([model], [report(model)], "prod")


@pytest.mark.parametrize(("name_", "version"), [("nope", "1"), ("wine", "77")])
def test_a_version_that_is_gone_is_named(
    wine_model: ModelVersion, name_: str, version: str
) -> None:
    model = replace(wine_model, name=name_, version=version)

    with pytest.raises(PromotionError, match=r"no registered model|does not exist any more"):
        promote_models([model], [report(model)], "prod")


@pytest.mark.parametrize("alias", ["latest", "Latest", "v3", "V12"])
def test_a_reserved_alias_is_refused(alias: str, wine_model: ModelVersion) -> None:
    with pytest.raises(InvalidInput, match="reserved"):
        promote_models([wine_model], [report(wine_model)], alias)


@pytest.mark.parametrize("alias", ["", "a b", "a.b", "a/b", "x" * 201, "prod\n"])
def test_what_is_no_alias_is_refused(alias: str, wine_model: ModelVersion) -> None:
    with pytest.raises(InvalidInput, match="is not an alias"):
        promote_models([wine_model], [report(wine_model)], alias)


def test_a_server_that_is_down_is_a_promotion_that_failed(wine_model: ModelVersion) -> None:
    uri = f"http://127.0.0.1:{free_port()}"

    with pytest.raises(PromotionError, match="does not answer"):
        promote_models([wine_model], [report(wine_model)], "prod", tracking_uri=uri)


def test_the_longest_alias_and_a_flood_of_measures_fit_into_the_registry(
    name: str, pulled: Any, client: Any
) -> None:
    model = pulled("1")
    alias = "x" * 200
    reports = [
        report(model, name=f"check {i} {'y' * 40}", measures={f"m{j}": 0.5 for j in range(50)})
        for i in range(200)
    ]
    promotion = promote_models([model], reports, alias)
    value = client.get_model_version(name, "1").tags[only(promotion).history_tag]

    assert len(value) <= 5000
    assert json.loads(value)["checks_left_out"] > 0
    assert holder(client, name, alias) == "1"
