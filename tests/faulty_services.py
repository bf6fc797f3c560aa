"""Services that misbehave on purpose, each on a free loopback port."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, Any]


@dataclass
class Service:
    """What a service answers, and what it was sent."""

    readyz: Callable[[float], Answer] = lambda _: (200, b"")
    predict: Callable[[Any], Answer] = lambda _: (200, [0, 0])
    # Seconds between two bytes of the body; 0 sends it at once.
    drip: float = 0.0
    # Bytes that the answer to a request announces and never sends.
    promise: int = 0
    # Its media type; "" sends none.
    media_type: str = "application/json"
    # Where a redirect leads to.
    location: str = ""
    bodies: list[Any] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    # The Authorization of each request.
    logins: list[str | None] = field(default_factory=list)
    url: str = ""


@contextmanager
def serve(service: Service) -> Iterator[Service]:
    start = time.monotonic()
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            service.paths.append(self.path)
            service.logins.append(self.headers["Authorization"])
            self._answer(*service.readyz(time.monotonic() - start))

        def do_POST(self) -> None:
            service.paths.append(self.path)
            service.logins.append(self.headers["Authorization"])
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers["Content-Type"] == "application/json":
                body = json.loads(body)
            service.bodies.append(body)
            self._answer(*service.predict(body), drip=service.drip, promise=service.promise)

        def _answer(self, status: int, body: Any, drip: float = 0.0, promise: int = 0) -> None:
            raw = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(raw) + promise))
            if service.media_type:
                self.send_header("Content-Type", service.media_type)
            if service.location:
                self.send_header("Location", service.location)
            self.end_headers()
            try:
                for index in range(len(raw)) if drip else ():
                    self.wfile.write(raw[index : index + 1])
                    if over.wait(drip):
                        return
                if not drip:
                    self.wfile.write(raw)
            except OSError:
                return

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    service.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield service
    finally:
        over.set()
        server.shutdown()
        server.server_close()
        thread.join()
