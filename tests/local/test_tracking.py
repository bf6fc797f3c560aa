"""The tracking server of a run is the run's own: nobody else on the machine gets anything."""

from __future__ import annotations

import asyncio
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kfp_bento.runtime.local.mlflow_app import token_required
from kfp_bento.runtime.local.mlflow_server import TrackingServer, tracking_server

TOKEN = "a-token"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrackingServer]:
    patch = pytest.MonkeyPatch()
    patch.setenv("AWS_SECRET_ACCESS_KEY", "aws-secret")
    old = os.umask(0)
    try:
        with tracking_server(tmp_path_factory.mktemp("tracking") / "mlflow") as server:
            os.umask(old)
            server.wait()
            yield server
    finally:
        os.umask(old)
        patch.undo()


def status(url: str, method: str = "GET", **headers: str) -> int:
    request = urllib.request.Request(url, method=method, headers=headers, data=None)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/health"),
        ("GET", "/"),
        ("GET", "/api/2.0/mlflow/registered-models/search"),
        ("POST", "/api/2.0/mlflow/registered-models/create"),
        ("PUT", "/api/2.0/mlflow-artifacts/artifacts/0/models/m/artifacts/model.pkl"),
        ("POST", "/graphql"),
        ("POST", "/v1/traces"),
    ],
)
def test_a_neighbour_is_shown_out(server: TrackingServer, method: str, path: str) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic YTpi"}):
        assert status(server.address + path, method, **headers) == 401


def test_who_has_the_token_works_as_usual(
    server: TrackingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient
    from mlflow.exceptions import RestException

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    client = MlflowClient(server.address)
    with pytest.raises(RestException, match="UNAUTHENTICATED: This server belongs"):
        client.create_registered_model("planted")
    # A proxy would get the token, and could not reach this machine.
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    client.create_registered_model("wine")
    run = client.create_run("0")
    client.log_text(run.info.run_id, "text", "note.txt")
    assert [found.path for found in client.list_artifacts(run.info.run_id)] == ["note.txt"]
    assert [model.name for model in client.search_registered_models()] == ["wine"]


def test_the_token_is_nowhere_to_be_read(server: TrackingServer) -> None:
    arguments = Path(f"/proc/{server.process.pid}/cmdline").read_bytes()
    assert server.token.encode() not in arguments
    assert server.token not in repr(server)
    for file in server.log.parent.rglob("*"):
        assert not file.is_file() or server.token.encode() not in file.read_bytes(), file
    assert server.log.parent.stat().st_mode & 0o077 == 0  # whatever the mask


def test_the_server_has_nothing_of_ours(server: TrackingServer) -> None:
    environment = Path(f"/proc/{server.process.pid}/environ").read_bytes()
    assert b"aws-secret" not in environment


async def passed(scope: dict[str, Any]) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        sent.append({"type": "inside"})

    async def send(message: Any) -> None:
        sent.append(message)

    await token_required(app, TOKEN)(scope, None, send)  # type: ignore[arg-type]
    return sent


@pytest.mark.parametrize(
    ("values", "inside"),
    [
        ([b"Bearer a-token"], True),
        ([b"bearer a-token"], True),
        ([], False),
        ([b""], False),
        ([b"Bearer"], False),
        ([b"Bearer a-toke"], False),
        ([b"Bearer a-token2"], False),
        ([b"a-token"], False),
        ([b"Bearer wrong", b"Bearer a-token"], False),
        ([b"\xff\xfe"], False),
    ],
)
@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_a_request_needs_the_very_token(kind: str, values: list[bytes], inside: bool) -> None:
    scope = {"type": kind, "headers": [(b"authorization", value) for value in values]}
    sent = asyncio.run(passed(scope))
    assert (sent[0]["type"] == "inside") == inside
    if not inside:
        assert sent[0].get("status", sent[0].get("code")) in (401, 1008)
