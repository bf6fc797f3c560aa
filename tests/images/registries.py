"""Registries for tests: Debian's with settings of its own, and a scripted one for faults."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import json
import shutil
import socket
import ssl
import subprocess
import threading
import types
import urllib.parse
from typing import TYPE_CHECKING, Any

import pytest
from servers import docker_registry_binary, free_port, running

from kfp_bento.runtime.images.oci.image import Descriptor
from kfp_bento.runtime.images.registry.connections import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

NAMED = "registry.images.svc"
QUICK = RetryPolicy(attempts=3, backoff=0.01)
Reply = tuple[int, dict[str, str], bytes]


@pytest.fixture(autouse=True)
def no_login(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of the person who runs the tests; wherever this is imported."""
    ours = "KFP_BENTO_INSECURE_REGISTRIES", "KFP_BENTO_ALLOWED_STORAGE_HOSTS"
    for name in ("REGISTRY_AUTH_FILE", *ours):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@contextlib.contextmanager
def registry(folder: Path, *, storage: str = "", more: str = "", tls: str = "") -> Iterator[str]:
    """Debian's docker-registry with settings of its own."""
    binary = docker_registry_binary()
    if binary is None:
        pytest.skip("no registry binary: install Debian's docker-registry")
    folder.mkdir(parents=True, exist_ok=True)
    address, ready = f"127.0.0.1:{free_port()}", ""
    if tls:
        # With TLS its state is told elsewhere.
        ready = f"127.0.0.1:{free_port()}/debug/health"
        tls += f", debug: {{addr: '{ready.partition('/')[0]}'}}"
    config = folder / "config.yml"
    config.write_text(
        "version: 0.1\nlog: {level: warn}\n"
        f"storage:\n  filesystem: {{rootdirectory: {folder}/blobs}}\n{storage}"
        f"http: {{addr: '{address}', relativeurls: false{tls}}}\n{more}"
    )
    with running([binary, "serve", str(config)], f"http://{ready or address}", folder / "log"):
        yield address


class Request(http.server.BaseHTTPRequestHandler):
    """A request with its body, as the scripts see it."""

    body: bytes


@contextlib.contextmanager
def scripted(
    answer: Callable[[Any], Reply | None],
    *,
    tls: ssl.SSLContext | None = None,
    unread: Collection[str] = (),
) -> Iterator[str]:
    """A server that answers as told: for faults that a real registry does not show.

    `None` means hanging up without an answer. Bodies of chunked requests with an `unread` method
    are not read: the answer comes at once, and then the end of the connection.
    """

    class Handler(Request):
        protocol_version = "HTTP/1.1"

        def _read(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            pieces = []
            while size := int(self.rfile.readline(), 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(pieces)

        def _answer(self) -> None:
            streamed = self.headers.get("Transfer-Encoding") == "chunked"
            ignored = streamed and self.command in unread
            self.body = b"" if ignored else self._read()
            self.close_connection = self.close_connection or ignored
            reply = answer(self)
            if reply is None:
                self.close_connection = True
                return
            status, headers, body = reply
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(b"" if self.command == "HEAD" else body)

        do_GET = do_HEAD = do_POST = do_PATCH = do_PUT = do_DELETE = _answer  # noqa: N815

        def log_message(self, *arguments: Any) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        request_queue_size = 64

        def handle_error(self, *arguments: Any) -> None:
            pass

    server = Server(("127.0.0.1", 0), Handler)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate for `NAMED` and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    made, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", f"/CN={NAMED}", "-addext", f"subjectAltName=DNS:{NAMED}"]
    command += ["-keyout", str(key), "-out", str(made)]
    subprocess.run(command, check=True, capture_output=True)
    return made, key


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> str:
    """A name like those inside a cluster, which stands for this machine."""
    resolve = socket.getaddrinfo

    def resolved(host: Any, *arguments: Any, **options: Any) -> Any:
        return resolve("127.0.0.1" if host == NAMED else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    return NAMED


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def describe(content: bytes, media_type: str = "application/octet-stream") -> Descriptor:
    return Descriptor(media_type, digest_of(content), len(content))


def error(code: str, message: str = "") -> bytes:
    return json.dumps({"errors": [{"code": code, "message": message}]}).encode()


def _noted(request: Any) -> Any:
    """What to remember of a request: one object serves all those of a connection."""
    parts = ("command", "path", "headers", "body")
    return types.SimpleNamespace(**{name: getattr(request, name) for name in parts})


class FakeRegistry:
    """A registry in memory; `fault` may answer a request in its place.

    Attributes:
        asked: Methods and paths in the order they came, queries left out.
        fault: Gives an answer, None to let the registry answer, or "hang up".
        limit: The largest body of a PATCH that is taken.
        echo: Whether it says the digest of what it stored.
        swallow: Takes the first piece of an upload only, and says that all is well.
        stored: Changes what is kept.
    """

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.uploads: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.requests: list[Any] = []
        self.fault: Callable[[Any], Reply | str | None] = lambda request: None
        self.limit = 0
        self.echo = True
        self.swallow = False
        self.least = 0
        self.stored: Callable[[bytes], bytes] = lambda content: content

    def __call__(self, request: Any) -> Reply | None:
        url = urllib.parse.urlsplit(request.path)
        self.asked.append(f"{request.command} {url.path}")
        self.requests.append(_noted(request))
        given = self.fault(request)
        if given == "hang up":
            return None
        if isinstance(given, tuple):
            return given
        return self._answer(request, url.path, dict(urllib.parse.parse_qsl(url.query)))

    def count(self, method: str) -> int:
        return sum(item.startswith(f"{method} ") for item in self.asked)

    def _answer(self, request: Any, path: str, query: dict[str, str]) -> Reply:
        if "/uploads/" in path:
            return self._upload(request, path, query)
        digest = path.rpartition("/")[2]
        if digest not in self.blobs:
            return 404, {}, error("BLOB_UNKNOWN")
        return 200, {}, self.blobs[digest]

    def _upload(self, request: Any, path: str, query: dict[str, str]) -> Reply:
        if request.command == "POST":
            name = str(len(self.asked))
            self.uploads[name] = b""
            more = {"OCI-Chunk-Min-Length": str(self.least)} if self.least else {}
            return 202, {"Location": f"/v2/a/blobs/uploads/{name}?_state=x%3D", **more}, b""
        name = path.rpartition("/")[2]
        if name not in self.uploads or query.get("_state") != "x=":
            return 404, {}, error("BLOB_UPLOAD_UNKNOWN")
        if request.command == "DELETE":
            del self.uploads[name]
            return 204, {}, b""
        if self.limit and len(request.body) > self.limit:
            return 416, {}, b""
        if not (self.swallow and self.uploads[name]):
            self.uploads[name] += request.body
        if request.command == "PATCH":
            end = len(self.uploads[name]) - 1
            location = f"/v2/a/blobs/uploads/{name}?_state=x%3D"
            return 202, {"Location": location, "Range": f"0-{end}"}, b""
        content = self.uploads.pop(name)
        if digest_of(content) != query["digest"]:
            return 400, {}, error("DIGEST_INVALID")
        self.blobs[query["digest"]] = self.stored(content)
        return 201, {"Docker-Content-Digest": query["digest"]} if self.echo else {}, b""


class Tokens:
    """Asks for tokens before another script answers; counts who asked for what."""

    def __init__(self, inner: Callable[[Any], Reply | None], **more: Any) -> None:
        self.inner = inner
        self.more = more
        self.asked: list[dict[str, list[str]]] = []
        self.requests: list[Any] = []
        self.valid: set[str] = set()

    def __call__(self, request: Any) -> Reply | None:
        if request.path.startswith("/token"):
            query = urllib.parse.urlsplit(request.path).query or request.body.decode()
            self.asked.append(urllib.parse.parse_qs(query))
            self.requests.append(_noted(request))
            token = f"t{len(self.asked)}"
            self.valid.add(f"Bearer {token}")
            return 200, {}, json.dumps({"token": token, **self.more}).encode()
        if request.headers.get("Authorization") not in self.valid:
            realm = f'Bearer realm="http://{request.headers["Host"]}/token",service="s"'
            return 401, {"WWW-Authenticate": realm}, b""
        return self.inner(request)


class Stream:
    """A stream of content; `breaks` makes the first reading fail in the middle."""

    def __init__(self, content: bytes, size: int = 1 << 16) -> None:
        self.content = content
        self.opened = 0
        self.piece = size
        self.digest = ""
        self.size = 0

    def open(self) -> Iterator[bytes]:
        self.opened += 1
        self.digest, self.size = "", 0
        for start in range(0, len(self.content), self.piece):
            yield self.content[start : start + self.piece]
        self.digest, self.size = digest_of(self.content), len(self.content)


class Held:
    """A source of one blob, held in memory."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def open_blob(self, blob: Descriptor) -> Iterator[bytes]:
        yield from (self.content[at : at + 65536] for at in range(0, len(self.content), 65536))

    def local_path(self, blob: Descriptor) -> None:
        return None


def log_in(folder: Path, host: str, password: str) -> None:
    packed = base64.b64encode(f"ali:{password}".encode()).decode()
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"auths": {host: {"auth": packed}}}))


def noise(size: int) -> bytes:
    """Bytes that are the same in every run and do not repeat."""
    return hashlib.shake_128(b"kfp-bento").digest(size)
