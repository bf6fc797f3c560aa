"""The local deployment target: what a cluster does with a release, done on this machine.

deploy_bento runs as a pipeline step, in a process that ends; a release has to outlive it. So the
step posts the release to this loopback server, which owns the service until the run is over.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from ..bentos import load_bento
from ..errors import KfpBentoError
from .services import Service, serve

ADDRESS_VARIABLE = "KFP_BENTO_LOCAL_TARGET"


@dataclass
class LocalTarget:
    """Releases that run on this machine, newest last.

    Attributes:
        address: Base URL that deploy_bento posts to.
        services: The services started so far.
    """

    directory: Path
    address: str = ""
    services: list[Service] = field(default_factory=list)
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _closing: threading.Event = field(default_factory=threading.Event)

    def release(self, request: dict[str, Any]) -> dict[str, str]:
        """Start a release and give its URL and runtime; a new one replaces the one before."""
        with self._lock:
            if self._closing.is_set():
                raise KfpBentoError("The local target is shutting down.")
            self._stack.close()
            bento = load_bento(Path(request["bento_directory"]))
            service = self._stack.enter_context(
                serve(
                    bento,
                    request["image"],
                    request["image_location"],
                    self.directory,
                    self._closing,
                )
            )
            self.services.append(service)
        return {"url": service.url, "runtime": service.runtime}

    def close(self) -> None:
        """Stop whatever still runs, and start nothing more."""
        self._closing.set()
        with self._lock:
            self._stack.close()


@contextlib.contextmanager
def local_target(directory: Path) -> Iterator[LocalTarget]:
    """Accept releases on a free loopback port for the length of a block, then stop them."""
    target = LocalTarget(directory)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(target))
    target.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, name="local-target", daemon=True)
    thread.start()
    try:
        yield target
    finally:
        server.shutdown()
        target.close()
        server.server_close()
        thread.join()


def _handler(target: LocalTarget) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            if self.path != "/releases":
                self._answer(404, {"error": f"{self.path} is not known here."})
                return
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            try:
                self._answer(200, target.release(json.loads(body)))
            except KfpBentoError as error:
                self._answer(502, {"error": error.message, "hint": error.hint})
            except (KeyError, ValueError) as error:
                self._answer(400, {"error": f"Not a release: {error!r}"})

        def _answer(self, status: int, answer: dict[str, str]) -> None:
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Stay quiet: the terminal belongs to the progress display."""

    return Handler
