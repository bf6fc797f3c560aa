"""The border of the local target: HTTP on a socket of ours, read with limits, one request each."""

from __future__ import annotations

import contextlib
import io
import json
import re
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from kfp_bento.runtime.deployments import is_of_this_user
from kfp_bento.runtime.errors import InvalidInput, KfpBentoError
from kfp_bento.runtime.files import JSON_LIMIT
from kfp_bento.runtime.programs import cleaned

RELEASES, SETTLEMENTS = "/releases", "/settlements"
HOST = "localhost"
READ_SECONDS = 10.0
MOST_CONNECTIONS = 8

Handle = Callable[[bytes], Mapping[str, str]]


class Refused(Exception):
    """A request that is not even looked at, with the status that says so."""

    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.status = status


@contextlib.contextmanager
def serve_endpoint(path: Path, handles: Mapping[str, Handle]) -> Iterator[None]:
    """Answer POST on a socket for the length of a block.

    Args:
        path: Where the socket is made, in a directory that only we can enter.
        handles: For each path what takes the body of a request and gives the answer; what it
            raises is answered.
    """
    server = _Server(str(path), handles)
    thread = threading.Thread(
        target=server.serve_forever, args=(0.1,), name="local-target", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = MOST_CONNECTIONS

    def __init__(self, path: str, handles: Mapping[str, Handle]) -> None:
        self.handles = handles
        self._free = threading.BoundedSemaphore(MOST_CONNECTIONS)
        super().__init__(path, _Handler)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Take nobody but ourselves, and only so many at a time."""
        return is_of_this_user(request) and self._free.acquire(blocking=False)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer one connection, then let in the next."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay quiet: the terminal belongs to the progress display."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version = "kfp-bento"
    sys_version = ""

    def setup(self) -> None:
        super().setup()
        self.rfile = io.BufferedReader(_UntilDeadline(self.connection, READ_SECONDS))

    def do_POST(self) -> None:
        try:
            body = self._body()
        except Refused as refused:
            self._answer(refused.status, {"error": str(refused)})
            return
        self.connection.settimeout(READ_SECONDS)
        try:
            answer = self.server.handles[self.path](body)
        except InvalidInput as error:
            self._answer(HTTPStatus.BAD_REQUEST, _told(error))
        except KfpBentoError as error:
            self._answer(HTTPStatus.BAD_GATEWAY, _told(error))
        except Exception as error:  # nothing of it may end the run, or be told in full
            told = f"The local target failed ({type(error).__name__})."
            self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, {"error": told})
        else:
            self._answer(HTTPStatus.OK, answer)

    def _body(self) -> bytes:
        if self.headers.defects:
            raise Refused(HTTPStatus.BAD_REQUEST, "The headers are not well-formed.")
        length = body_length(self.path, self.headers.items(), self.server.handles)
        try:
            body = self.rfile.read(length)
        except OSError:
            body = b""
        if len(body) < length:
            raise Refused(HTTPStatus.BAD_REQUEST, "The body ended early, or took too long.")
        return body

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer in JSON what http.server itself refuses."""
        self._answer(code, {"error": f"Not understood ({int(code)})."})

    def _answer(self, status: int, answer: Mapping[str, str]) -> None:
        content = json.dumps(dict(answer)).encode()
        with contextlib.suppress(OSError):  # it did not wait for the answer
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Stay quiet: the terminal belongs to the progress display."""


def body_length(
    path: str, headers: Iterable[tuple[str, str]], known: Container[str] = (RELEASES,)
) -> int:
    """Give the length of the body of a request that may be looked at.

    Args:
        path: What was asked for.
        headers: Names and values, as they came.
        known: The paths that there are.

    Raises:
        Refused: It is for somebody else, comes from a web page, or is no JSON of a known length.
    """
    found: dict[str, list[str]] = {}
    for name, value in headers:
        found.setdefault(name.lower(), []).append(value.strip())
    if path not in known:
        raise Refused(HTTPStatus.NOT_FOUND, "There is nothing here but releases.")
    if found.get("host") != [HOST]:
        raise Refused(HTTPStatus.MISDIRECTED_REQUEST, "The request is meant for another server.")
    if "origin" in found or "sec-fetch-site" in found or "referer" in found:
        raise Refused(HTTPStatus.FORBIDDEN, "Web pages have no business here.")
    if "transfer-encoding" in found:
        raise Refused(HTTPStatus.NOT_IMPLEMENTED, "A body is taken in one piece only.")
    kinds = found.get("content-type", [])
    if [kind.partition(";")[0].strip().lower() for kind in kinds] != ["application/json"]:
        raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Content-Type must be application/json.")
    lengths = found.get("content-length", [])
    if not lengths:
        raise Refused(HTTPStatus.LENGTH_REQUIRED, "The request does not tell its length.")
    if len(lengths) > 1 or not re.fullmatch(r"[0-9]{1,18}", lengths[0], re.ASCII):
        raise Refused(HTTPStatus.BAD_REQUEST, "Content-Length is no length.")
    if int(lengths[0]) > JSON_LIMIT:
        raise Refused(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"A request has at most {JSON_LIMIT} bytes."
        )
    return int(lengths[0])


def _told(error: KfpBentoError) -> dict[str, str]:
    return {"error": cleaned(error.message), "hint": cleaned(error.hint)}


class _UntilDeadline(io.RawIOBase):
    """A connection whose reads end together, however slowly its bytes come."""

    def __init__(self, connection: socket.socket, seconds: float) -> None:
        self._connection = connection
        self._deadline = time.monotonic() + seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the request took too long")
        self._connection.settimeout(left)
        return self._connection.recv_into(buffer)
