"""The service under test: HTTP with deadlines that hold, whatever the other side does."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kfp_bento.runtime.errors import CheckError, plain_text
from kfp_bento.runtime.files import parse_json_value, read_small_file

# An answer to one model's input example; more is a service gone wrong.
LARGEST_ANSWER = 64 * 2**20
_SHOWN = 300
TOKEN_VARIABLE = "KFP_BENTO_API_TOKEN"  # noqa: S105 - a name
_LARGEST_TOKENS = 64 * 2**10


class NoConnectionError(Exception):
    """Nothing accepted the connection."""


class NoAnswerError(Exception):
    """A connection was made, but no complete answer came."""


@dataclass(frozen=True)
class Answer:
    """One complete HTTP answer."""

    status: int
    body: bytes
    milliseconds: float

    def json(self) -> Any:
        """Give the body as JSON values; `NaN` and infinities are understood.

        Raises:
            ValueError: The body is no JSON.
        """
        return parse_json_value(self.body, nan=True)

    def shown(self) -> str:
        """Give the status and the beginning of the body for a message."""
        text = " ".join(plain_text(self.body[: 4 * _SHOWN].decode("utf-8", "replace")).split())
        short = text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
        return f"{self.status} {short}".strip()


def service_root(url: str) -> str:
    """Give the root URL of a service without a slash at its end.

    Raises:
        CheckError: There is none, since the release was only rendered, or it is no http URL.
    """
    if not url:
        raise CheckError(
            "There is nothing to check: the release was only rendered and has no URL.",
            hint="Deploy it with mode 'apply' or 'local', or give the URL of a running service.",
        )
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or parts.query or parts.fragment:
        raise CheckError(
            f"{url!r} is no address of a service.", hint="Write http://HOST:PORT, without a query."
        )
    return url.rstrip("/")


def get(url: str, seconds: float) -> Answer:
    """Fetch a URL; see `ask`."""
    return ask("GET", url, None, seconds)


def post_json(url: str, body: Any, seconds: float) -> Answer:
    """Send a JSON body, with the service's token where this step has one; see `ask`."""
    return ask("POST", url, json.dumps(body).encode(), seconds, service_token())


def service_token() -> str:
    """Give the token that a service asks for, "" where this step has none.

    It is the first word of `KFP_BENTO_API_TOKEN`, or of the file that `KFP_BENTO_API_TOKEN_FILE`
    names, as the service itself reads them.

    Raises:
        CheckError: A variable is set, but gives no token that can be sent.
    """
    text = os.environ.get(TOKEN_VARIABLE)
    file = os.environ.get(f"{TOKEN_VARIABLE}_FILE")
    if text is None and file is None:
        return ""
    source = TOKEN_VARIABLE if text is not None else f"{TOKEN_VARIABLE}_FILE"
    try:
        if text is None:
            text = read_small_file(Path(file or ""), _LARGEST_TOKENS).decode("ascii")
        token = text.split()[0]
        usable = token.isascii() and token.isprintable()
    except (OSError, ValueError, IndexError):
        usable = False
    if not usable:
        raise CheckError(
            f"{source} is set, but holds no token that could be sent to the service.",
            hint="Give the step the Secret that the service has, or neither of them any.",
        )
    return token


def ask(method: str, url: str, body: bytes | None, seconds: float, token: str = "") -> Answer:
    """Make one request, without proxies and without following redirects.

    The deadline covers everything, also a server that sends one byte a minute. The token goes to
    the host of this URL and nowhere else.

    Raises:
        NoConnectionError: Nothing accepted the connection.
        NoAnswerError: The connection broke, the deadline passed, or it was no HTTP.
    """
    parts = urlsplit(url)
    start = time.monotonic()
    connection = _connection(parts.scheme, parts.hostname or "", parts.port, seconds)
    try:
        connection.connect()
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        raise NoConnectionError(str(error)) from error
    headers = {"Accept": "application/json", "Connection": "close"}
    if body is not None:
        headers["Content-Type"] = "application/json"
    if token:
        headers["Authorization"] = f"Bearer {token}"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    left = max(0.01, seconds - (time.monotonic() - start))
    try:
        with _deadline(connection, left) as passed:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            content = response.read(LARGEST_ANSWER + 1)
            # http.client takes a cut connection for the end of the body.
            if passed.is_set():
                raise TimeoutError
            if response.length and len(content) <= LARGEST_ANSWER:
                raise http.client.IncompleteRead(content, response.length)
    except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:
        late = isinstance(error, TimeoutError) or time.monotonic() - start >= seconds
        told = f"no complete answer within {seconds:g} s" if late else _told(error)
        raise NoAnswerError(told) from error
    finally:
        connection.close()
    if len(content) > LARGEST_ANSWER:
        raise NoAnswerError(f"the answer is larger than {LARGEST_ANSWER} bytes")
    return Answer(response.status, content, (time.monotonic() - start) * 1000)


def _connection(
    scheme: str, host: str, port: int | None, seconds: float
) -> http.client.HTTPConnection:
    if scheme == "https":
        return http.client.HTTPSConnection(
            host, port, timeout=seconds, context=ssl.create_default_context()
        )
    return http.client.HTTPConnection(host, port, timeout=seconds)


@contextlib.contextmanager
def _deadline(connection: http.client.HTTPConnection, seconds: float) -> Iterator[threading.Event]:
    """Cut the connection after `seconds`: a socket's own timeout starts anew with every byte."""
    passed = threading.Event()
    held = connection.sock

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
