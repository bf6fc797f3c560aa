"""A store of artifacts that fails is named as such: it is not the server that named it."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

import pytest
from pulled_model import pull_model
from servers import S3Server, free_port
from small_models import small_model

from kfp_bento.pipelines.credentials import MLFLOW
from kfp_bento.runtime.errors import KfpBentoError, ModelError
from kfp_bento.runtime.models import location

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "s3cr3t-T0ken"


@pytest.fixture(autouse=True)
def nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores of every kind are asked at once, and once, where nobody listens."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "nobody")
    monkeypatch.setattr(location, "FIRST_ANSWER_SECONDS", 3.0)


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "robot")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)


def failure_of(uri: str, tmp_path: Path) -> KfpBentoError:
    started = time.monotonic()
    with pytest.raises(KfpBentoError) as caught:
        pull_model(uri, tmp_path / "model")
    assert time.monotonic() - started < 10
    assert "tracking server" not in str(caught.value)
    assert SECRET not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    return caught.value


def test_a_server_that_hands_no_artifacts_through_has_them_where_the_secret_says(
    mlflow_server: str, s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the pipelines put the keys of `mlflow_secret` into a step's environment."""
    monkeypatch.setattr(location, "FIRST_ANSWER_SECONDS", 30.0)  # somebody is there
    import boto3
    import mlflow

    made = small_model(tmp_path / "made")
    for file in made.directory.iterdir():
        if file.is_file():
            s3_server.client().upload_file(str(file), s3_server.bucket, f"direct/{file.name}")
    client = mlflow.MlflowClient()
    client.create_registered_model("direct")
    client.create_model_version("direct", f"s3://{s3_server.bucket}/direct")
    secret = {
        # MLflow keeps the client of an address, as boto3 keeps keys: the same server, named twice.
        "s3_endpoint_url": s3_server.endpoint.replace("127.0.0.1", "localhost"),
        "aws_access_key_id": s3_server.access_key,
        "aws_secret_access_key": SECRET,
    }
    for key, value in secret.items():
        monkeypatch.setenv(MLFLOW[key], value)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    with pytest.raises(ModelError, match="may not be read") as caught:
        pull_model("models:/direct/1", tmp_path / "refused")
    assert "the Secret that mlflow_secret names holds them as aws_access_key_id" in str(
        caught.value
    )
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    monkeypatch.setenv(MLFLOW["aws_secret_access_key"], s3_server.secret_key)
    monkeypatch.setenv(MLFLOW["s3_endpoint_url"], s3_server.endpoint)
    pulled = pull_model("models:/direct/1", tmp_path / "pulled")
    assert (pulled.directory / "MLmodel").read_bytes() == (made.directory / "MLmodel").read_bytes()


@pytest.mark.parametrize("source", ["s3://bucket/model", "gs://bucket/model"])
def test_a_store_out_of_reach_is_not_blamed_on_the_registry(
    mlflow_server: str, account: None, tmp_path: Path, source: str
) -> None:
    import mlflow

    client = mlflow.MlflowClient()
    name = source.partition(":")[0]
    client.create_registered_model(name)
    client.create_model_version(name, source)
    failure = failure_of(f"models:/{name}/1", tmp_path)
    assert failure.message.startswith(f"The artifacts at {source} cannot be reached: ")
    assert "The registry answered, the store of the artifacts did not." in failure.hint


def test_a_store_that_never_answers_is_given_up(
    account: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        failure = failure_of("s3://bucket/model", tmp_path)
    assert "s3://bucket/model cannot be reached: no answer within 3 s" in failure.message
    assert "MLFLOW_S3_ENDPOINT_URL" in failure.hint


@pytest.mark.parametrize(
    ("uri", "said", "hinted"),
    [
        ("http://127.0.0.1:9/x", "ValueError: not enough values", "/mlflow-artifacts/artifacts/"),
        ("hdfs://host/x", "at hdfs://host/x cannot be read", "Hadoop"),
        (f"ftp://me:{SECRET}@127.0.0.1:9/x", "at ftp://127.0.0.1:9/x cannot be reached", "Try"),
        ("b2://bucket/model", "at b2://bucket/model cannot be read", "AWS_ACCESS_KEY_ID"),
    ],
)
def test_odd_failures_name_the_location_and_what_it_needs(
    uri: str, said: str, hinted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    failure = failure_of(uri, tmp_path)
    assert isinstance(failure, ModelError)
    assert said in failure.message
    assert hinted in failure.hint
