"""Files on the web: over HTTPS, with ranges and without, and what is refused."""

from __future__ import annotations

import re
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from stored_files import LARGE, PART, written

from kfp_bento.runtime.errors import InvalidInput, StorageError
from kfp_bento.runtime.storage import open_place


class Site(ThreadingHTTPServer):
    """A site over TLS with one file; `way` is how it behaves."""

    daemon_threads = True
    way = "ranges"
    content = b""
    etag = '"one"'

    def __init__(self, certificate: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.server_address[1]}/file"

    def handle_error(self, *_: object) -> None:
        pass


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Site

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        site, wanted = self.server, self.headers.get("Range", "")
        site.asked.append(wanted)
        if site.way.startswith("to "):
            self.send(302, b"", Location=site.way[3:])
            return
        if site.way.isdigit():
            self.send(int(site.way), b"")
            return
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", wanted)
        if site.way != "ranges" or found is None:
            cut = site.content[:-1] if site.way == "cut" else site.content
            self.send(200, cut, **{"Content-Length": str(len(site.content))})
            return
        if not site.content:
            self.send(416, b"", **{"Content-Range": "bytes */0"})
            return
        first, last = int(found[1]), min(int(found[2]), len(site.content) - 1)
        said = {"Content-Range": f"bytes {first}-{last}/{len(site.content)}", "ETag": site.etag}
        self.send(206, site.content[first : last + 1], **said)

    def send(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
        self.close_connection = True


@pytest.fixture
def site(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("AWS_CA_BUNDLE", f"{certificate}.crt")
    with Site(certificate) as served:
        threading.Thread(target=served.serve_forever, args=(0.05,), daemon=True).start()
        yield served
        served.shutdown()


@pytest.mark.parametrize("size", [0, 1, LARGE])
@pytest.mark.parametrize("way", ["ranges", "whole"])
def test_a_file_is_read(way: str, size: int, site: Site, tmp_path: Path) -> None:
    site.content, site.way = written(tmp_path / "source", size).read_bytes(), way
    assert open_place(site.url).read(tmp_path / "read").size == size
    assert (tmp_path / "read").read_bytes() == site.content
    parallel = {f"bytes=0-{PART - 1}", f"bytes={2 * PART}-{LARGE - 1}"}
    assert (parallel <= set(site.asked)) == (way == "ranges" and size == LARGE)


def test_a_file_that_ends_too_early_is_refused(site: Site, tmp_path: Path) -> None:
    site.content, site.way = b"content", "cut"
    with pytest.raises(StorageError):
        open_place(site.url).read(tmp_path / "read")
    assert not (tmp_path / "read").exists()


def test_a_file_that_changes_is_refused(site: Site, tmp_path: Path) -> None:
    site.content = b"content"
    place = open_place(site.url)
    stat = place.stat

    def change(name: str = "") -> object:
        found = stat(name)
        site.etag = '"two"'
        return found

    place.stat = change  # type: ignore[method-assign, assignment]
    with pytest.raises(StorageError, match="changed while it was being read"):
        place.read(tmp_path / "read")


def test_a_wrong_sum_is_refused(site: Site, tmp_path: Path) -> None:
    site.content = b"content"
    with pytest.raises(StorageError, match="SHA-256"):
        open_place(site.url).read(tmp_path / "read", sha256="0" * 64)


@pytest.mark.parametrize(
    ("way", "told"),
    [
        ("to http://127.0.0.1:9/file", "not https"),
        ("to file:///etc/passwd", "not https"),
        ("to /file", "without end"),
        ("404", "nothing at"),
        ("403", "may not be read"),
        ("500", "fails or is too busy"),
        ("418", "status 418"),
    ],
)
def test_what_is_no_file_is_refused(way: str, told: str, site: Site, tmp_path: Path) -> None:
    site.way = way
    with pytest.raises(StorageError, match=told):
        open_place(site.url).read(tmp_path / "read")
    assert list(tmp_path.iterdir()) == []


def test_a_certificate_that_nobody_trusts_is_refused(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_CA_BUNDLE")
    with pytest.raises(StorageError, match="certificate") as failure:
        open_place(site.url).read(tmp_path / "read")
    assert "AWS_CA_BUNDLE" in failure.value.hint


def test_the_web_is_not_written(site: Site, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="read only"):
        open_place(site.url).write(written(tmp_path / "source", 1))
    with pytest.raises(InvalidInput, match="read only"):
        open_place(site.url).delete()
