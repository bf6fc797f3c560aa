"""The tracking server before and behind a proxy, by the rule that holds everywhere."""

from __future__ import annotations

import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING

import pytest
from proxy_server import ProxyServer

from kfp_bento.runtime.errors import ModelError
from kfp_bento.runtime.models.tracking import Tracking, speaking_to, tracking_client

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMED = "mlflow.only.example:5000"
DEAD = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b'{"registered_models": []}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Answer) as standing:
        Thread(target=standing.serve_forever, args=(0.02,), daemon=True).start()
        yield f"127.0.0.1:{standing.server_port}"
        standing.shutdown()


def ask(uri: str) -> None:
    tracking = Tracking(uri, uri)
    with speaking_to(tracking):
        assert list(tracking_client(tracking).search_registered_models()) == []


@pytest.mark.parametrize("listed", ["", "*.corp.example", "127.0.0.1:{port}", "10.0.0.0/8"])
def test_a_server_that_is_asked_directly_needs_no_list_of_mlflows_own(
    server: str, monkeypatch: pytest.MonkeyPatch, listed: str
) -> None:
    monkeypatch.setenv("HTTP_PROXY", DEAD)
    given = listed.format(port=server.rpartition(":")[2])
    monkeypatch.setenv("NO_PROXY", given)
    ask(f"http://{server}")
    assert os.environ["NO_PROXY"] == given
    assert "no_proxy" not in os.environ


@pytest.mark.parametrize("form", ["http://{}", "{}"])
def test_a_server_behind_a_proxy_is_reached_by_it(
    server: str, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    with ProxyServer({NAMED: server}) as proxy:
        monkeypatch.setenv("HTTP_PROXY", form.format(proxy.host))
        ask(f"http://{NAMED}")
    assert set(proxy.asked) == {NAMED}


def test_the_proxys_trouble_is_not_the_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    with ProxyServer(refuses="407 Proxy Authentication Required") as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://ali:secret@{proxy.host}")
        with pytest.raises(ModelError, match="407 Proxy Authentication") as failure:
            ask("https://mlflow.only.example")
    told = f"The proxy {proxy.url} does not lead to mlflow.only.example"
    assert failure.value.message.startswith(told)
    assert "secret" not in str(failure.value)


def test_a_proxy_that_is_not_there_is_called_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", DEAD)
    with pytest.raises(ModelError, match=f"The proxy {DEAD} does not lead to {NAMED}"):
        ask(f"http://{NAMED}")
