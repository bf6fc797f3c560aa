"""Connections that carry large bodies and cannot be held up, and what a host name says of them."""

from __future__ import annotations

import errno
import functools
import http.client
import io
import ipaddress
import os
import select
import socket
import ssl
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import urllib3
from urllib3.exceptions import HTTPError

from kfp_bento.runtime.errors import RegistryError
from kfp_bento.runtime.pools import ConnectionPools

INSECURE_VARIABLE = "KFP_BENTO_INSECURE_REGISTRIES"
"""Registries (comma separated, `host` or `host:port` as references write them) without TLS."""

STORAGE_VARIABLE = "KFP_BENTO_ALLOWED_STORAGE_HOSTS"
"""Hosts of the own network (comma separated, `host` or `host:port`) with registries' content."""

_CONNECTIONS = 16
_PIECE = 256 << 10
_INTERNAL = (".svc", ".local", ".internal")


@dataclass(frozen=True)
class RetryPolicy:
    """How long to wait for a registry, and how often to try again.

    Attributes:
        attempts: How often anything is tried in all.
        connect: Seconds for a connection to come about.
        read: Seconds for an answer to begin, and for a body to move on at all.
        backoff: Seconds before the second attempt; doubled before each further one.
        floor: Bytes per second below which a transfer is given up, so that nobody can hold us
            with a byte every few seconds. Only time spent waiting for the peer counts.
        window: Seconds of such waiting over which the floor is averaged.
    """

    attempts: int = 4
    connect: float = 15.0
    read: float = 300.0
    backoff: float = 0.5
    floor: float = 1024.0
    window: float = 60.0


class _TooSlow(OSError):
    """A peer that moves fewer bytes than the floor allows."""


class _Pace:
    """Watches that a transfer stays above the floor while it waits for the peer."""

    def __init__(self, patience: RetryPolicy) -> None:
        self._patience = patience
        self._bytes = 0
        self._seconds = 0.0

    def add(self, size: int, seconds: float) -> None:
        self._bytes += size
        self._seconds += seconds
        if self._seconds < self._patience.window:
            return
        if self._bytes < self._patience.floor * self._seconds:
            raise _TooSlow(
                f"only {self._bytes} bytes moved in {self._seconds:.0f} seconds of waiting"
            )
        self._bytes, self._seconds = 0, 0.0


class _PacedReader(io.RawIOBase):
    """Reads from a socket, not below the floor once the peer has begun to answer."""

    def __init__(self, raw: io.RawIOBase, patience: RetryPolicy) -> None:
        self._raw = raw
        self._pace = _Pace(patience)
        self._begun = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        asked = time.monotonic()
        count = self._raw.readinto(buffer)
        if self._begun:
            self._pace.add(count or 0, time.monotonic() - asked)
        self._begun = True
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _PacedResponse(http.client.HTTPResponse):
    def __init__(
        self, sock: socket.socket, *args: Any, patience: RetryPolicy, **options: Any
    ) -> None:
        super().__init__(sock, *args, **options)
        self.fp: Any = io.BufferedReader(_PacedReader(self.fp.detach(), patience))


class _Paced(urllib3.connection.HTTPConnection):
    """A connection for large bodies.

    It sends pieces without copying them, hears an answer that comes before the body was sent,
    and keeps to the floor in both directions.
    """

    def __init__(self, *args: Any, patience: RetryPolicy, **options: Any) -> None:
        super().__init__(*args, **options)
        self.response_class: Any = functools.partial(_PacedResponse, patience=patience)
        self._patience = patience
        self._pace = _Pace(patience)
        self._in_body = self._cut_short = self._framed = False

    def request(
        self,
        method: str,
        url: str,
        body: Any = None,
        headers: Any = None,
        *,
        chunked: bool = False,
        **options: Any,
    ) -> None:
        self._pace = _Pace(self._patience)
        self._in_body = self._cut_short = False
        self._framed = chunked
        if chunked:
            # urllib3 would copy every piece into its frame. It leaves bodies alone whose length
            # is given; `putheader` drops that again.
            body = _frames(body)
            headers = {**headers, "Transfer-Encoding": "chunked", "Content-Length": "0"}
        super().request(method, url, body=body, headers=headers, **options)

    def putheader(self, header: str | bytes, *values: Any) -> None:
        if not (self._framed and header == "Content-Length"):
            super().putheader(header, *values)  # type: ignore[arg-type]

    def endheaders(self, *args: Any, **options: Any) -> None:
        super().endheaders(*args, **options)
        self._in_body = True

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        self.sock.settimeout(self._patience.read)
        rest = memoryview(data)
        while rest:
            asked = time.monotonic()
            if self._in_body and _answers_first(self.sock, self._patience.read):
                self._cut_short = True
                raise BrokenPipeError(errno.EPIPE, "answered before the body was sent")
            try:
                count = self.sock.send(rest[:_PIECE])
            except (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
                self._cut_short = True
                # urllib3 then reads the answer, if the peer gave one before it hung up.
                raise BrokenPipeError(errno.EPIPE, "the peer hung up") from error
            self._pace.add(count, time.monotonic() - asked)
            rest = rest[count:]

    def getresponse(self) -> Any:
        response = super().getresponse()
        if self._cut_short and self.sock is not None:
            # The rest of the body never went out, so nothing may follow on this connection;
            # the response still holds the socket until it was read.
            self.sock.close()
            self.sock = None
        return response


class _PacedTls(_Paced, urllib3.connection.HTTPSConnection):
    pass


class _PlainPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Paced


class _TlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _PacedTls


def pool_manager(patience: RetryPolicy) -> ConnectionPools:
    """Give connections to any host, through the environment's proxy where it is to be used."""
    pools = ConnectionPools(
        timeout=urllib3.Timeout(connect=patience.connect, read=patience.read),
        ssl_context=_tls(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")),
        maxsize=_CONNECTIONS,
        # Not blocking: whoever holds downloads open may need one more connection to go on.
        block=False,
    )
    pools.use_pools(
        {
            "http": functools.partial(_PlainPool, patience=patience),
            "https": functools.partial(_TlsPool, patience=patience),
        }
    )
    return pools


@functools.lru_cache
def _tls(file: str | None, folder: str | None) -> ssl.SSLContext:
    """Load certificates once, which takes a while; OpenSSL reads the two variables itself."""
    return ssl.create_default_context()


def _frames(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Give the chunked transfer encoding (RFC 9112, section 7.1) without touching the chunks."""
    end = b""
    for chunk in chunks:
        if chunk:
            yield b"%s%x\r\n" % (end, len(chunk))
            yield chunk
            end = b"\r\n"
    yield end + b"0\r\n\r\n"


def _answers_first(sock: socket.socket, seconds: float) -> bool:
    """Wait until more can be sent; says whether the peer speaks already.

    With TLS that cannot be told, since it may be the protocol that speaks.
    """
    if isinstance(sock, ssl.SSLSocket):
        return False
    poll = select.poll()
    poll.register(sock, select.POLLIN | select.POLLOUT)
    events = poll.poll(seconds * 1000)
    if not events:
        raise TimeoutError(f"nothing was taken for {seconds:g} seconds")
    return any(event & select.POLLIN for _, event in events)


def is_loopback(host: str) -> bool:
    """Tell whether a host (with or without port) is this machine, where plain http is used."""
    name = urllib.parse.urlsplit(f"//{host}").hostname or ""
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def is_plain(host: str) -> bool:
    """Tell whether plain http is used: this machine, and what `INSECURE_VARIABLE` lists."""
    return is_loopback(host) or host.lower() in _listed(INSECURE_VARIABLE)


def is_allowed_storage(url: str) -> bool:
    """Tell whether `STORAGE_VARIABLE` lists the host of an address, with its port or without."""
    parts = urllib.parse.urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    name = parts.hostname or ""
    shown = f"[{name}]" if ":" in name else name
    return bool({shown, f"{shown}:{port}"} & _listed(STORAGE_VARIABLE))


def _listed(variable: str) -> set[str]:
    """Give the hosts that a variable lists, also where they are written as addresses."""
    entries = os.environ.get(variable, "").lower().split(",")
    return {entry.strip().rpartition("://")[2].rstrip("/") for entry in entries} - {""}


def is_private(name: str) -> bool:
    """Tell whether a host is known to have an address that is not a public one."""
    try:
        return not ipaddress.ip_address(name).is_global
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False  # behind a proxy; without one nothing can be sent there anyway
    return any(
        not ipaddress.ip_address(str(item[4][0]).partition("%")[0]).is_global for item in found
    )


def _is_internal(host: str) -> bool:
    """Tell whether a host looks like one inside a cluster, where TLS is often left out."""
    name = urllib.parse.urlsplit(f"//{host}").hostname or ""
    try:
        return not ipaddress.ip_address(name).is_global
    except ValueError:
        return "." not in name or name.endswith(_INTERNAL)


def unreachable(host: str, error: HTTPError) -> tuple[RegistryError, bool]:
    """Give what to say about a connection that failed, and whether it will always fail."""
    cause: Any = error
    while isinstance(cause, HTTPError) and cause.args and isinstance(cause.args[-1], Exception):
        cause = cause.args[-1]
    tls = isinstance(cause, ssl.SSLError)
    known = isinstance(cause, OSError) and cause.strerror
    reason = (known or str(cause).rpartition(": ")[2] or type(cause).__name__).rstrip(".")
    hint = "Check the host name, the network and, for your own certificates, SSL_CERT_FILE."
    unencrypted = tls and cause.reason == "WRONG_VERSION_NUMBER"
    if tls and (_is_internal(host) or unencrypted):
        hint = (
            "For your own certificates set SSL_CERT_FILE. If the registry has no TLS at all and "
            f"may be used like that, add '{host}' to {INSECURE_VARIABLE}."
        )
    permanent = tls and (
        isinstance(cause, ssl.SSLCertVerificationError)
        or cause.reason in {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"}
    )
    failure = RegistryError(f"The registry {host} cannot be reached: {reason}.", hint=hint)
    return failure, permanent
