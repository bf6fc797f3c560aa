"""Storage before and behind a proxy, by the rule that holds everywhere."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import pytest
from proxy_server import ProxyServer

from kfp_bento.runtime.errors import StorageError
from kfp_bento.runtime.storage import open_place

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servers import S3Server

NAMED = "store.only.example:9000"
DEAD = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("KFP_BENTO_PLAIN_HTTP", "true")


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"page")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def site() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Page) as server:
        Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("form", ["http://{}", "{}"])
def test_a_file_on_the_web_is_read_by_the_proxy(
    site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    with ProxyServer({NAMED: site}) as proxy:
        monkeypatch.setenv("HTTP_PROXY", form.format(proxy.host))
        open_place(f"http://{NAMED}/page").read(tmp_path / "read")
    assert (tmp_path / "read").read_bytes() == b"page"
    assert set(proxy.asked) == {NAMED}


def test_a_file_nearby_is_read_directly(
    site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", DEAD)
    open_place(f"http://{site}/page").read(tmp_path / "read")
    assert (tmp_path / "read").read_bytes() == b"page"


def test_the_proxys_trouble_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with ProxyServer(refuses="407 Proxy Authentication Required") as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"ali:secret@{proxy.host}")
        with pytest.raises(StorageError, match="407 Proxy Authentication") as failure:
            open_place("https://files.only.example/page").stat()
    assert failure.value.message.startswith(f"The proxy {proxy.url} does not lead to files.only")
    assert "secret" not in str(failure.value)


@pytest.mark.parametrize("scheme", ["s3", "minio"])
@pytest.mark.parametrize("web", ["http", "https"])
def test_a_proxy_that_lets_nobody_through_to_a_bucket_is_told(
    scheme: str, web: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"{web}://store.only.example")
    monkeypatch.setenv("MINIO_ENDPOINT", f"{web}://store.only.example")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with ProxyServer(refuses="407 Proxy Authentication Required") as proxy:
        monkeypatch.setenv(f"{web.upper()}_PROXY", f"ali:secret@{proxy.host}")
        with pytest.raises(StorageError) as failure:
            open_place(f"{scheme}://bucket/file").stat()
    told = f"The proxy {proxy.url} does not lead to store.only.example: 407"
    assert failure.value.message.startswith(told)
    assert f"{web.upper()}_PROXY=http://USER:PASSWORD" in (failure.value.hint or "")
    assert "secret" not in str(failure.value)


@pytest.mark.parametrize("scheme", ["s3", "minio"])
def test_a_bucket_is_reached_by_the_proxy(
    scheme: str, s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{NAMED}")
    (tmp_path / "file").write_bytes(b"content")
    with ProxyServer({NAMED: s3_server.endpoint.removeprefix("http://")}) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"ali:secret@{proxy.host}")
        place = open_place(f"{scheme}://{s3_server.bucket}/by-proxy/{scheme}/")
        place.write(tmp_path / "file", "file")
        place.read(tmp_path / "read", "file")
    assert (tmp_path / "read").read_bytes() == b"content"
    assert set(proxy.asked) == {NAMED}
    assert set(proxy.accounts) == {"Basic YWxpOnNlY3JldA=="}


@pytest.mark.parametrize("scheme", ["s3", "minio"])
def test_a_bucket_on_this_machine_is_reached_directly(
    scheme: str, s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HTTP_PROXY", DEAD)
    (tmp_path / "file").write_bytes(b"content")
    place = open_place(f"{scheme}://{s3_server.bucket}/directly/{scheme}/")
    assert place.write(tmp_path / "file", "file") is not None
