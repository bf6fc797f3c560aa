"""MLflow's webhooks, as a bell: a signed request means that it is time to look, and no more.

MLflow signs as mlflow/webhooks/delivery.py does: HMAC-SHA256 over delivery id, Unix time and body,
joined by dots, in base64 behind "v1,".
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from kfp_bento.runtime.errors import InvalidInput

SECRET = "KFP_BENTO_WEBHOOK_SECRET"  # noqa: S105 - the name of a variable
"""Variable that may hold the secret of the webhook."""

LARGEST_BODY = 64 << 10
OLDEST = 300
"""Seconds between MLflow's clock and ours; a delivery counts once in that time."""

_SHORTEST_SECRET = 16
_SECONDS = 10
_AT_A_TIME = 16
_MOST_DELIVERIES = 10_000
_LONGEST_ID = 200


@dataclass
class Bell:
    """Judges deliveries.

    Attributes:
        secret: What MLflow signs with.
        ring: Called for a delivery that counts.
        clock: Unix time.
    """

    secret: str
    ring: Callable[[], None]
    clock: Callable[[], float] = time.time
    _seen: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def judge(self, headers: Any, body: bytes) -> tuple[int, str]:
        """Give the status of the answer and, where it is refused, why."""
        delivery, told = headers.get("X-MLflow-Delivery-Id"), headers.get("X-MLflow-Timestamp")
        signature = headers.get("X-MLflow-Signature")
        if not delivery or not told or not signature or len(delivery) > _LONGEST_ID:
            return 401, "It is not signed."
        signed = f"{delivery}.{told}.".encode() + body
        right = hmac.new(self.secret.encode(), signed, hashlib.sha256).digest()
        expected = b"v1," + base64.b64encode(right)
        if not hmac.compare_digest(expected, signature.encode()):
            return 401, "The signature is wrong."
        if not (told.isascii() and told.isdigit() and len(told) <= 12):
            return 401, "It has no time."
        if abs(self.clock() - int(told)) > OLDEST:
            return 401, f"It is older than {OLDEST} s, or the clocks differ."
        if self._is_new(delivery):
            self.ring()
        return 204, ""

    def _is_new(self, delivery: str) -> bool:
        now = self.clock()
        with self._lock:
            for seen in [one for one, at in self._seen.items() if now - at > 2 * OLDEST]:
                del self._seen[seen]
            new = delivery not in self._seen and len(self._seen) < _MOST_DELIVERIES
            if new:
                self._seen[delivery] = now
        return new


def seldom(tell: Callable[[str], None], seconds: float = 60.0) -> Callable[[str], None]:
    """Give the same, which says a thing once a minute: whoever knocks does not fill the log."""
    last: dict[str, float] = {}

    def told(what: str) -> None:
        now = time.monotonic()
        if now - last.get(what, -seconds) >= seconds:
            last[what] = now
            tell(what)

    return told


def require_secret(secret: str) -> str:
    """Give the secret, if there is one that is worth it.

    Raises:
        InvalidInput: There is none, or it is short enough to be guessed.
    """
    if len(secret) < _SHORTEST_SECRET:
        raise InvalidInput(
            f"The webhook's secret has to have {_SHORTEST_SECRET} characters or more.",
            hint=f"Set {SECRET}, or --webhook-secret-file, to what the webhook in MLflow has.",
        )
    return secret


@contextlib.contextmanager
def listening(
    address: str, bell: Bell, *, refused: Callable[[str], None] = lambda why: None
) -> Iterator[str]:
    """Take webhooks while a block works.

    POST on any path is judged; GET /healthz answers that it is there.

    Args:
        address: HOST:PORT.
        bell: Judges deliveries.
        refused: Told why a delivery was refused.

    Yields:
        HOST:PORT, with the port that was free where 0 was given.

    Raises:
        InvalidInput: The address is none, or cannot be listened on.
    """
    host, port = read_address(address)
    try:
        server = _Server((host, port), _handler(bell, refused))
    except OSError as error:
        raise InvalidInput(f"--listen {address}: {error.strerror or error}.") from error
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
    thread.start()
    try:
        yield f"{host}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def read_address(address: str) -> tuple[str, int]:
    """Read HOST:PORT.

    Raises:
        InvalidInput: It is none.
    """
    host, _, port = address.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise InvalidInput(f"--listen {address}: it is no HOST:PORT.", hint="Write 0.0.0.0:8080.")
    return host, int(port)


class _Server(ThreadingHTTPServer):
    """One thread a request, and only so many at a time: others wait in the kernel's queue."""

    daemon_threads = True

    def __init__(self, *arguments: Any) -> None:
        self._free = threading.BoundedSemaphore(_AT_A_TIME)
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._free.acquire()
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: whoever breaks a connection is no business of the log."""


def _handler(bell: Bell, refused: Callable[[str], None]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = _SECONDS

        def do_GET(self) -> None:
            self._answer(200 if self.path == "/healthz" else 404)

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length") or ""
            if not (length.isascii() and length.isdigit()) or "Transfer-Encoding" in self.headers:
                self._answer(411)
            elif len(length) > 9 or int(length) > LARGEST_BODY:
                self._answer(413)
            else:
                status, why = bell.judge(self.headers, self.rfile.read(int(length)))
                if why:
                    refused(why)
                self._answer(status)

        def _answer(self, status: int) -> None:
            self.close_connection = True
            self.send_response_only(status)
            if status != 204:
                self.send_header("Content-Length", "0")
            self.send_header("Connection", "close")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    return Handler
