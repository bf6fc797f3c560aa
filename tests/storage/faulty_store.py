"""A proxy before a real S3 server that plays the faults which a real one cannot be made to show."""

from __future__ import annotations

import http.client
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

HOP = {"connection", "transfer-encoding", "keep-alive"}
BUSY = b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"


@dataclass
class Request:
    """What came by: `fault` is what a rule answered, `sent` the bytes of the answer."""

    method: str
    path: str
    headers: dict[str, str]
    fault: str = ""
    sent: int = 0


@dataclass
class FaultyStore:
    """Passes requests on, but for those for which a rule names a fault.

    A rule is asked in order of arrival and gives "" (pass), "busy" (503 SlowDown), "reset"
    (the connection is reset), "cut" (the answer breaks off in its middle), "etag" (another ETag)
    or "flip" (one bit of the answer's body is another). With a certificate it speaks TLS.
    """

    upstream: str
    rule: Callable[[Request], str] = lambda request: ""
    requests: list[Request] = field(default_factory=list)
    certificate: Path | None = None
    endpoint: str = ""

    def __enter__(self) -> FaultyStore:
        store = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                request = Request(self.command, self.path, dict(self.headers))
                store.requests.append(request)
                request.fault = store.rule(request)
                if request.fault == "busy":
                    self.send_response(503)
                    self.send_header("Content-Length", str(len(BUSY)))
                    self.end_headers()
                    self.wfile.write(BUSY)
                elif request.fault == "reset":
                    self.reset()
                else:
                    self.forward(request, body)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer  # noqa: N815

            def forward(self, request: Request, body: bytes) -> None:
                host = urlsplit(store.upstream)
                upstream = http.client.HTTPConnection(host.hostname or "", host.port)
                headers = {k: v for k, v in self.headers.items() if k.lower() not in HOP}
                # boto3 waits for this before it sends a body; it has sent it by now.
                headers.pop("Expect", None)
                upstream.request(request.method, request.path, body, headers)
                response = upstream.getresponse()
                content = response.read()
                upstream.close()
                self.send_response(response.status)
                for name, value in response.getheaders():
                    if name.lower() == "etag" and request.fault == "etag":
                        value = '"00000000000000000000000000000000"'
                    if name.lower() not in {*HOP, "content-length"}:
                        self.send_header(name, value)
                length = response.getheader("Content-Length") or str(len(content))
                self.send_header("Content-Length", length)
                self.end_headers()
                if request.fault == "flip" and content:
                    content = bytes([content[0] ^ 1]) + content[1:]
                whole = request.fault != "cut"
                piece = content if whole else content[: len(content) // 2]
                request.sent = len(piece)
                self.wfile.write(piece)
                self.close_connection = not whole or self.close_connection

            def reset(self) -> None:
                self.wfile.flush()
                self.connection.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
                self.close_connection = True
                self.connection.close()

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        # Clients hang up in the middle here; that is no news.
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]
        if self.certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        scheme = "https" if self.certificate else "http"
        self.endpoint = f"{scheme}://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def times(count: int, fault: str, applies: Callable[[Request], bool]) -> Callable[[Request], str]:
    """A rule: the first `count` requests that it applies to meet a fault."""
    left = iter(range(count))

    def rule(request: Request) -> str:
        return fault if applies(request) and next(left, None) is not None else ""

    return rule
