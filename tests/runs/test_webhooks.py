"""A delivery that MLflow has signed rings, and nothing else does."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kfp_bento_command import COMMAND
from pipelines_api import serve_pipelines, until
from servers import mlflow_server_in

from kfp_bento.runtime.errors import InvalidInput
from kfp_bento.runtime.runs import Bell, listening, require_secret, seldom
from kfp_bento.runtime.runs import webhook as webhook_module

SECRET = "a secret of sixteen or more"
NOW = 1_800_000_000
BODY = b'{"entity": "model_version_alias", "action": "created"}'


class Rung:
    """Counts."""

    def __init__(self) -> None:
        self.times = 0
        self.refused: list[str] = []
        self.place = ""

    def __call__(self) -> None:
        self.times += 1


@pytest.fixture
def rung() -> Iterator[Rung]:
    made = Rung()
    with listening(
        "127.0.0.1:0", Bell(SECRET, made, clock=lambda: NOW), refused=made.refused.append
    ) as place:
        made.place = place
        yield made


def signed(body: bytes = BODY, at: str = str(NOW), secret: str = SECRET, **more: str) -> Any:
    from mlflow.webhooks.delivery import _generate_hmac_signature

    delivery = more.get("delivery", "one")
    return {
        "X-MLflow-Delivery-Id": delivery,
        "X-MLflow-Timestamp": at,
        "X-MLflow-Signature": _generate_hmac_signature(secret, delivery, at, body.decode()),
    }


def post(place: str, headers: dict[str, str], body: bytes = BODY) -> int:
    connection = http.client.HTTPConnection(place, timeout=30)
    try:
        connection.request("POST", "/", body, headers)
        return connection.getresponse().status
    finally:
        connection.close()


def test_what_mlflow_itself_delivers_rings(monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.entities.webhook import Webhook, WebhookAction, WebhookEntity, WebhookEvent
    from mlflow.webhooks import delivery
    from mlflow.webhooks.types import ModelVersionAliasCreatedPayload

    monkeypatch.setenv("MLFLOW_WEBHOOK_ALLOWED_SCHEMES", "http")
    monkeypatch.setenv("MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS", "true")
    event = WebhookEvent(WebhookEntity.MODEL_VERSION_ALIAS, WebhookAction.CREATED)
    rung = Rung()
    with listening("127.0.0.1:0", Bell(SECRET, rung)) as place:
        webhook = Webhook("id", "name", f"http://{place}/", [event], 0, 0, secret=SECRET)
        payload = ModelVersionAliasCreatedPayload.example()
        session = delivery._create_webhook_session()
        answer = delivery._send_webhook_request(webhook, payload, event, session)
        session.close()
    assert (answer.status_code, rung.times) == (204, 1)


def test_a_delivery_counts_once(rung: Rung) -> None:
    assert [post(rung.place, signed()) for _ in range(3)] == [204] * 3
    assert rung.times == 1
    assert post(rung.place, signed(delivery="two")) == 204
    assert rung.times == 2


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ({}, "not signed"),
        (signed(secret="another secret of sixteen"), "signature is wrong"),
        (signed(body=b"another body"), "signature is wrong"),
        (signed() | {"X-MLflow-Delivery-Id": "two"}, "signature is wrong"),
        (signed() | {"X-MLflow-Timestamp": str(NOW + 1)}, "signature is wrong"),
        (signed(at=str(NOW - 301)), "older than"),
        (signed(at=str(NOW + 301)), "older than"),
        (signed(at="soon"), "no time"),
        (signed() | {"X-MLflow-Signature": "v1,"}, "signature is wrong"),
        (signed() | {"X-MLflow-Signature": "\xe9"}, "signature is wrong"),
    ],
)
def test_what_is_not_signed_now_and_by_mlflow_is_refused(
    headers: dict[str, str], why: str, rung: Rung
) -> None:
    assert post(rung.place, headers) == 401
    assert why in rung.refused[0]
    assert rung.times == 0


def test_a_large_body_is_not_read(rung: Rung) -> None:
    host, _, port = rung.place.partition(":")
    for length, status in (("65537", b"413"), ("9" * 40, b"413"), ("-1", b"411"), ("", b"411")):
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall(f"POST / HTTP/1.1\r\nContent-Length: {length}\r\n\r\n".encode())
            assert connection.recv(64).split(b" ")[1] == status
    assert rung.times == 0


def test_whoever_sends_slowly_holds_up_nobody(rung: Rung, monkeypatch: pytest.MonkeyPatch) -> None:
    host, _, port = rung.place.partition(":")
    slow = [socket.create_connection((host, int(port)), timeout=30) for _ in range(8)]
    for connection in slow:
        connection.sendall(b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\n1")
    assert post(rung.place, signed()) == 204
    for connection in slow:
        connection.close()


def test_a_probe_is_answered(rung: Rung) -> None:
    connection = http.client.HTTPConnection(rung.place, timeout=30)
    for path, status in (("/healthz", 200), ("/", 404)):
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == status
    connection.close()


@given(st.text(max_size=40), st.text(max_size=20), st.text(max_size=60), st.binary(max_size=100))
def test_nobody_rings_without_the_secret(
    delivery: str, at: str, signature: str, body: bytes
) -> None:
    rung = Rung()
    headers = {
        "X-MLflow-Delivery-Id": delivery,
        "X-MLflow-Timestamp": at,
        "X-MLflow-Signature": signature,
    }
    assert Bell(SECRET, rung).judge(headers, body)[0] == 401
    assert rung.times == 0


def test_deliveries_are_forgotten_when_they_are_too_old_to_count() -> None:
    now = [float(NOW)]
    bell = Bell(SECRET, Rung(), clock=lambda: now[0])
    for number in range(100):
        at = str(int(now[0]))
        assert bell.judge(signed(at=at, delivery=str(number)), BODY)[0] == 204
        now[0] += 10
    assert len(bell._seen) <= 2 * webhook_module.OLDEST / 10 + 1


def test_a_secret_that_can_be_guessed_is_refused() -> None:
    with pytest.raises(InvalidInput, match="16 characters"):
        require_secret("short")
    assert require_secret(SECRET) == SECRET


def test_whoever_knocks_does_not_fill_the_log() -> None:
    told: list[str] = []
    tell = seldom(told.append)
    for _ in range(100):
        tell("The signature is wrong.")
    assert told == ["The signature is wrong."]
    assert json.dumps(told)


@pytest.mark.slow
def test_a_server_of_mlflow_rings_when_an_alias_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_WEBHOOK_ALLOWED_SCHEMES", "http")
    monkeypatch.setenv("MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS", "true")
    with mlflow_server_in(tmp_path / "mlflow") as uri, serve_pipelines() as pipelines:
        client = mlflow.MlflowClient(uri)
        client.create_registered_model("rung")
        for number in ("1", "2"):
            client.create_model_version("rung", f"s3://models/rung/{number}")
        process = subprocess.Popen(
            [
                *(*COMMAND, "watch", "models:/rung@candidate", "--every", "600", "--json"),
                *("--submit", "tests.runs.watched_pipelines:serve", "--host", pipelines.url),
                *("--listen", "127.0.0.1:0", "--tracking-uri", uri),
            ],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"KFP_BENTO_WEBHOOK_SECRET": SECRET},
        )
        try:
            assert process.stdout is not None
            place = json.loads(process.stdout.readline())["what"]
            client.create_webhook(
                "bell", f"http://{place}/", ["model_version_alias.created"], secret=SECRET
            )
            for number in (1, 2):  # the first look may have seen one of them, and no other
                client.set_registered_model_alias("rung", "candidate", str(number))
                until(lambda number=number: len(pipelines.runs) == number)
            process.terminate()
            told, _ = process.communicate(timeout=60)
        finally:
            process.kill()
            process.wait()
    events = [json.loads(line)["event"] for line in told.splitlines()]
    assert events == ["watching", "submitted", "submitted", "stopped"]
