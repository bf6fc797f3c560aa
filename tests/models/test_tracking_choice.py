from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pulled_model import pull_model

from kfp_bento.runtime.errors import InvalidInput
from kfp_bento.runtime.models import choose_tracking
from kfp_bento.runtime.models.tracking import Tracking, guard_credentials

if TYPE_CHECKING:
    from pathlib import Path

OURS = "https://mlflow.example.org"
THEIRS = "https://collector.example.net:8443"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    for name in ("MLFLOW_REGISTRY_URI", "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", OURS)
    return monkeypatch


def test_the_environment_decides_when_nothing_is_given(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("MLFLOW_REGISTRY_URI", "https://registry.example.org/")

    assert choose_tracking() == Tracking(OURS, "https://registry.example.org")


def test_a_given_server_is_the_registry_too(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("MLFLOW_REGISTRY_URI", "https://registry.example.org")

    assert choose_tracking(THEIRS) == Tracking(THEIRS, THEIRS)


def test_the_environments_own_server_keeps_its_registry(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("MLFLOW_REGISTRY_URI", "https://registry.example.org")

    assert choose_tracking(OURS + "/").registry_uri == "https://registry.example.org"


@pytest.mark.parametrize(
    "name", ["MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_AUTH"]
)
def test_credentials_are_not_sent_to_another_server(
    name: str, environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environment.setenv(name, "secret-value")

    with pytest.raises(InvalidInput) as caught:
        pull_model("models:/wine/1", tmp_path / "model", tracking_uri=THEIRS)
    assert OURS in caught.value.message
    assert THEIRS in caught.value.message
    assert "KFP_BENTO_ALLOWED_TRACKING_HOSTS=collector.example.net" in caught.value.hint
    assert "secret-value" not in str(caught.value)


def test_a_credentials_file_counts_as_well(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".mlflow").mkdir()
    (tmp_path / ".mlflow" / "credentials").write_text("[mlflow]\nmlflow_tracking_username = me\n")

    with pytest.raises(InvalidInput, match=r"~/\.mlflow/credentials"):
        choose_tracking(THEIRS)


def test_credentials_without_a_server_to_belong_to_are_not_sent_anywhere(
    environment: pytest.MonkeyPatch,
) -> None:
    environment.delenv("MLFLOW_TRACKING_URI")
    environment.setenv("MLFLOW_TRACKING_TOKEN", "secret")

    with pytest.raises(InvalidInput, match="MLFLOW_TRACKING_URI is not set"):
        choose_tracking(THEIRS)


@pytest.mark.parametrize("allowed", ["collector.example.net", "x, Collector.example.net:8443"])
def test_a_host_can_be_allowed(allowed: str, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("MLFLOW_TRACKING_TOKEN", "secret")
    environment.setenv("KFP_BENTO_ALLOWED_TRACKING_HOSTS", allowed)

    assert choose_tracking(THEIRS).tracking_uri == THEIRS


@pytest.mark.parametrize(
    "uri",
    [OURS, OURS + ":443/", "https://MLflow.example.org", "http://127.0.0.1:5000", "http://[::1]:1"],
)
def test_the_same_server_and_this_machine_are_fine(
    uri: str, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("MLFLOW_TRACKING_TOKEN", "secret")

    assert choose_tracking(uri).tracking_uri == uri.rstrip("/")


@pytest.mark.parametrize(
    "uri",
    [
        "http://mlflow.example.org",
        OURS + ":8443",
        "https://mlflow.example.org.evil.net",
        "https://mlflow.example.org@evil.net",
    ],
)
def test_what_merely_resembles_the_server_is_refused(
    uri: str, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("MLFLOW_TRACKING_TOKEN", "secret")

    with pytest.raises(InvalidInput, match="not sent to"):
        choose_tracking(uri)


@pytest.mark.parametrize("uri", ["https://evil.net/model", "http://evil.net/model"])
def test_an_artifact_uri_cannot_collect_credentials_either(
    uri: str, environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environment.setenv("MLFLOW_TRACKING_TOKEN", "secret")

    with pytest.raises(InvalidInput, match="not sent to"):
        pull_model(uri, tmp_path / "model")


def test_without_credentials_any_server_may_be_asked() -> None:
    guard_credentials(THEIRS)


def test_what_is_no_address_is_refused() -> None:
    with pytest.raises(InvalidInput, match="not a tracking URI"):
        choose_tracking("http://host:port")
