"""One HTTP request, with limits that hold whatever the other side does.

The standard library's client, since a deadline for everything, also for a server that sends one
byte a minute, takes the socket itself: `urllib3` and `http.client` start their timeouts anew with
every byte.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from kfp_bento.runtime.errors import plain_text

_SHOWN = 300


class NoConnectionError(Exception):
    """Nothing accepted the connection."""


class NoAnswerError(Exception):
    """A connection was made, but no complete answer came."""


@dataclass(frozen=True)
class HttpAnswer:
    """One complete HTTP answer.

    The media type is without parameters, "" where none was named; headers are by lower-case name.
    """

    status: int
    body: bytes
    milliseconds: float
    media_type: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)

    def shown(self) -> str:
        """Give the status and the beginning of the body for a message."""
        text = " ".join(plain_text(self.body[: 4 * _SHOWN].decode("utf-8", "replace")).split())
        short = text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
        return f"{self.status} {short}".strip()


def ask(
    method: str,
    url: str,
    *,
    seconds: float,
    largest: int,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    connect: Callable[[], socket.socket] | None = None,
) -> HttpAnswer:
    """Make one request, without proxies and without following redirects.

    Args:
        method: Such as GET.
        url: An http or https address; the headers go to its host and nowhere else.
        seconds: The deadline for everything.
        largest: Most bytes of an answer.
        body: JSON, where the headers name no other `Content-Type`.
        headers: Besides those that the body and the connection need.
        connect: Opens the connection, where that is no matter of the URL.

    Raises:
        NoConnectionError: Nothing accepted the connection.
        NoAnswerError: It broke, the deadline passed, the answer is too large, or it was no HTTP.
    """
    parts = urlsplit(url)
    start = time.monotonic()
    connection = _connection(parts.scheme, parts.hostname or "", parts.port, seconds)
    try:
        if connect is None:
            connection.connect()
        else:
            connection.sock = connect()
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        raise NoConnectionError(str(error)) from error
    path = f"{parts.path or '/'}{parts.query and '?'}{parts.query}"
    kind = {} if body is None else {"Content-Type": "application/json"}
    sent = {"Accept": "application/json", **kind, **(headers or {}), "Connection": "close"}
    left = max(0.01, seconds - (time.monotonic() - start))
    try:
        with _deadline(connection, left) as passed:
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            content = response.read(largest + 1)
            # http.client takes a cut connection for the end of the body.
            if passed.is_set():
                raise TimeoutError
            if response.length and len(content) <= largest:
                raise http.client.IncompleteRead(content, response.length)
    except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:
        late = isinstance(error, TimeoutError) or time.monotonic() - start >= seconds
        told = f"no complete answer within {seconds:g} s" if late else _told(error)
        raise NoAnswerError(told) from error
    finally:
        connection.close()
    if len(content) > largest:
        raise NoAnswerError(f"the answer is larger than {largest} bytes")
    return _answer(response, content, time.monotonic() - start)


def _answer(response: http.client.HTTPResponse, content: bytes, seconds: float) -> HttpAnswer:
    headers = {name.lower(): value for name, value in response.headers.items()}
    return HttpAnswer(response.status, content, seconds * 1000, _media_type(response), headers)


def _media_type(response: http.client.HTTPResponse) -> str:
    return response.headers.get_content_type() if response.headers["Content-Type"] else ""


def _connection(
    scheme: str, host: str, port: int | None, seconds: float
) -> http.client.HTTPConnection:
    if scheme == "https":
        return http.client.HTTPSConnection(
            host, port, timeout=seconds, context=ssl.create_default_context()
        )
    return http.client.HTTPConnection(host, port, timeout=seconds)


@contextlib.contextmanager
def _deadline(connection: Any, seconds: float) -> Iterator[threading.Event]:
    """Cut the connection after `seconds`."""
    passed = threading.Event()
    held: socket.socket = connection.sock

    def cut() -> None:
        passed.set()
        with contextlib.suppress(OSError):
            held.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield passed
    finally:
        timer.cancel()


def _told(error: BaseException) -> str:
    said = " ".join(plain_text(str(error)).split())[:_SHOWN]
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
