"""HTTP to one registry: connections, time limits, retries, redirects and authorisation."""

from __future__ import annotations

import contextlib
import email.utils
import errno
import functools
import http.client
import io
import ipaddress
import itertools
import json
import os
import random
import re
import select
import socket
import ssl
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import urllib3
from urllib3.exceptions import HTTPError

from kfp_bento.runtime.errors import RegistryError
from kfp_bento.runtime.images.credentials import Credentials, find_credentials
from kfp_bento.runtime.images.reference import DOCKER_HUB
from kfp_bento.runtime.images.tar import CHUNK

INSECURE_VARIABLE = "KFP_BENTO_INSECURE_REGISTRIES"
"""Registries (comma separated, `host` or `host:port` as references write them) without TLS."""

# Answers longer than this are read only as streams; no manifest may be larger.
CONTENT_LIMIT = 4 << 20

_HUB_ENDPOINT = "registry-1.docker.io"
_PASSING = frozenset({408, 429, 499, 500, 502, 503, 504, 522})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_REDIRECT_LIMIT = 5
_LONGEST_WAIT = 60.0
_CONNECTIONS = 16
_PIECE = 256 << 10
# What the token specification has clients assume where `expires_in` is missing.
_TOKEN_LIFE = 60.0
_KINDS = re.compile(r"(?:^|,)\s*(bearer|basic)(?=[\s,]|$)", re.IGNORECASE)
_PARAMETER = re.compile(r'([a-zA-Z_]+)\s*=\s*(?:"([^"]*)"|([^\s,"]+))')
_NO_SPACE = re.compile(rb'no space|"err":28\b', re.IGNORECASE)
_INTERNAL = (".svc", ".svc.cluster.local", ".local", ".internal")

Result = TypeVar("Result")
Body = bytes | Iterator[bytes] | None
Scopes = tuple[str, ...]


@dataclass(frozen=True)
class Patience:
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


class Passing(Exception):
    """A failure that may pass.

    Attributes:
        error: What to say if it does not.
        wait: Seconds that the registry asked us to wait.
        at_once: Whether waiting would not help, as with a token that has just been renewed.
    """

    def __init__(self, error: RegistryError, wait: float = 0.0, *, at_once: bool = False) -> None:
        super().__init__(error.message)
        self.error = error
        self.wait = wait
        self.at_once = at_once


class Answer:
    """An answer; its content is at hand unless a stream was asked for."""

    def __init__(self, raw: urllib3.BaseHTTPResponse, url: str, content: bytes) -> None:
        self.status = raw.status
        self.headers = raw.headers
        self.url = url
        self.content = content
        self._raw = raw

    def chunks(self) -> Iterator[bytes]:
        """The content of a streamed answer; may raise urllib3's HTTPError."""
        return self._raw.stream(CHUNK, decode_content=False)

    def close(self) -> None:
        """Gives up what was not read."""
        self._raw.close()

    @property
    def length(self) -> int | None:
        """The length that the registry gives, where it gives one."""
        text = self.headers.get("Content-Length", "")
        return int(text) if text.isdecimal() else None

    @property
    def codes(self) -> set[str]:
        """The error codes of the distribution specification in it."""
        return {str(item.get("code", "")) for item in self._errors()}

    @property
    def detail(self) -> str:
        """The registry's own words; they never hold what we sent."""
        said = (f"{item.get('code', '')} {item.get('message', '')}" for item in self._errors())
        return "; ".join(text.strip() for text in said)

    def _errors(self) -> list[dict[str, Any]]:
        try:
            errors = json.loads(self.content)["errors"]
        except (ValueError, KeyError, TypeError):
            return []
        return [item for item in errors if isinstance(item, dict)] if errors else []


class Transport:
    """Requests to the registry of one repository; may be used by several threads.

    Args:
        host: The registry as the user wrote it.
        repository: The path below it, for the scopes of tokens.
        patience: Time limits and retries.
    """

    def __init__(self, host: str, repository: str, patience: Patience) -> None:
        self.host = host
        self.patience = patience
        self._repository = repository
        self._plain = is_plain(host)
        endpoint = _HUB_ENDPOINT if host == DOCKER_HUB else host
        self.base = f"{'http' if self._plain else 'https'}://{endpoint}"
        self._managers: dict[str, urllib3.PoolManager] = {}
        self._login = _Login(self)

    def request(
        self,
        method: str,
        url: str,
        *,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        also: Scopes = (),
        stream: bool = False,
    ) -> Answer:
        """A request that may be repeated, with retries for what is known to pass.

        Args:
            method: The HTTP method.
            url: An address at this registry.
            body: What to send.
            headers: Headers besides those of every request.
            also: Repositories that the token must be good for as well, for reading.
            stream: Whether the content of a good answer is left to be read in chunks.
        """

        def send() -> Answer:
            return self.once(method, url, body, headers, also=also, stream=stream)

        return self.retrying(send)

    def once(
        self,
        method: str,
        url: str,
        body: Body = None,
        headers: dict[str, str] | None = None,
        *,
        also: Scopes = (),
        stream: bool = False,
    ) -> Answer:
        """One request with authorisation, which is asked for when the registry says 401.

        Raises:
            Passing: It may work when tried again; a body that is an iterator is used up.
        """
        scopes = self._scopes(method, also)
        authorization = self._login.header(scopes)
        answer = self._follow(method, url, body, headers, authorization, stream)
        if answer.status == 401 and self._login.renew(scopes, authorization, answer):
            if not isinstance(body, bytes | None):
                raise Passing(self.failure(answer, "take a blob"), at_once=True)
            authorization = self._login.header(scopes)
            answer = self._follow(method, url, body, headers, authorization, stream)
        self.check_passing(answer, f"answer {method}")
        return answer

    def abandon(self, url: str) -> None:
        """Cancels an upload; whether the registry listens does not matter."""
        with contextlib.suppress(Passing, RegistryError):
            authorization = self._login.header(self._scopes("DELETE", ()))
            timeout = urllib3.Timeout(connect=min(5.0, self.patience.connect), read=5.0)
            self._send("DELETE", url, None, _signed({}, authorization), timeout=timeout)

    def retrying(self, action: Callable[[], Result]) -> Result:
        """Does it until it works, fails for good or was tried often enough."""
        for attempt in itertools.count(1):
            try:
                return action()
            except Passing as passing:
                self.pause(attempt, passing)
        raise AssertionError("unreachable")

    def pause(self, attempt: int, passing: Passing) -> None:
        """Waits before the next attempt, or raises the error if this was the last one."""
        if attempt >= self.patience.attempts:
            raise passing.error from passing.__cause__
        if not passing.at_once:
            wait = self.patience.backoff * 2 ** (attempt - 1) * (1 + random.random())  # noqa: S311
            time.sleep(min(max(wait, passing.wait), _LONGEST_WAIT))

    def check_passing(self, answer: Answer, action: str) -> None:
        """Raises Passing for an answer that is known to pass."""
        # A full disk stays full, and each attempt would send gigabytes.
        if answer.status in _PASSING and not _is_full(answer):
            raise Passing(self.failure(answer, action), _retry_after(answer))

    def location(self, answer: Answer, default: str = "") -> str:
        """Where to go on with an upload; never another host, since it carries our authorisation."""
        given = answer.headers.get("Location") or default
        place = urllib.parse.urlsplit(urllib.parse.urljoin(answer.url, given))
        if not given or place.hostname != urllib.parse.urlsplit(self.base).hostname:
            raise RegistryError(
                f"{self.host} wanted to send the upload to '{place.hostname if given else ''}'.",
                hint="Set the registry's external URL right, or push to that host directly.",
            )
        # Registries behind a proxy name the wrong scheme or port: ours is the one that works.
        return f"{self.base}{place.path}" + (f"?{place.query}" if place.query else "")

    def broken(self, error: HTTPError, host: str = "") -> Passing:
        """What to raise for a connection that failed.

        Raises:
            RegistryError: It fails for good: the registry's certificate or lack of TLS.
        """
        failure, permanent = _unreachable(host or self.host, error)
        if permanent:
            raise failure from error
        return Passing(failure)

    def failure(self, answer: Answer, action: str) -> RegistryError:
        """An error with the registry's own words."""
        return RegistryError(
            f"The registry {self.host} would not {action}: HTTP {answer.status}"
            + (f" ({answer.detail})." if answer.detail else "."),
            hint=_hint(answer, "with" if self._login.credentials else "without"),
        )

    def check_address(self, url: str, action: str) -> None:
        """Refuses addresses that a registry has no business to send us to.

        Raises:
            RegistryError: It has no TLS though nobody allowed that, or is an address in our own
                network though the registry is a public one.
        """
        target = urllib.parse.urlsplit(url)
        allowed = target.scheme == "https" or (self._plain and is_plain(target.netloc))
        if target.scheme not in {"http", "https"} or not allowed:
            raise RegistryError(f"{self.host} {action} at '{target.netloc}' without TLS.")
        if is_loopback(target.netloc) and not is_loopback(self.host):
            raise RegistryError(f"{self.host} {action} at this machine.")
        ours = urllib.parse.urlsplit(self.base).hostname or ""
        if target.hostname != ours and _is_private(target.hostname or "") and not _is_private(ours):
            raise RegistryError(
                f"{self.host} {action} at '{target.netloc}', an address in the own network.",
                hint="Do not use this registry until its administrator has looked at it.",
            )

    def _follow(
        self,
        method: str,
        url: str,
        body: Body,
        headers: dict[str, str] | None,
        authorization: str | None,
        stream: bool,
    ) -> Answer:
        """Sends a request and goes after redirects of reads; to others without authorisation."""
        for _ in range(_REDIRECT_LIMIT + 1):
            signed = _signed(headers, authorization)
            answer = self._send(method, url, body, signed, stream=stream)
            if answer.status not in _REDIRECTS or method not in {"GET", "HEAD"}:
                return answer
            target = urllib.parse.urljoin(url, answer.headers.get("Location", ""))
            self.check_address(target, "redirects to an address")
            if _origin(target) != _origin(url):
                authorization = None
            url = target
        raise RegistryError(f"{self.host} redirects in a circle.")

    def _send(
        self,
        method: str,
        url: str,
        body: Body,
        headers: dict[str, str],
        *,
        stream: bool = False,
        timeout: urllib3.Timeout | None = None,
    ) -> Answer:
        more = {"timeout": timeout} if timeout else {}
        try:
            raw = self._manager(url).urlopen(
                method,
                url,
                body=body,
                headers=headers,
                preload_content=False,
                decode_content=False,
                redirect=False,
                retries=False,
                chunked=not isinstance(body, bytes | None) and "Content-Length" not in headers,
                **more,
            )
            good = 200 <= raw.status < 300
            content = b"" if stream and good else raw.read(CONTENT_LIMIT + 1, decode_content=False)
        except HTTPError as error:
            raise self.broken(error, urllib.parse.urlsplit(url).netloc) from error
        if len(content) > CONTENT_LIMIT:
            raw.close()
        return Answer(raw, url, content)

    def token(self, challenge: dict[str, str], scopes: Scopes) -> tuple[str, float]:
        """Gets a token from the place that the registry names; with the seconds it lives."""
        realm = challenge.get("realm", "")
        self.check_address(realm, "asks for a login")
        fields = [("service", challenge["service"])] if challenge.get("service") else []
        wanted = scopes + _further(challenge.get("scope", ""), scopes)
        known = self._login.credentials
        headers = {"User-Agent": "kfp-bento"}
        if known and known.identity_token:
            fields += [("scope", " ".join(wanted)), ("grant_type", "refresh_token")]
            fields += [("refresh_token", known.identity_token), ("client_id", "kfp-bento")]
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            answer = self._send("POST", realm, urllib.parse.urlencode(fields).encode(), headers)
        else:
            fields += [("scope", scope) for scope in wanted]
            url = urllib.parse.urlsplit(realm)
            query = "&".join(filter(None, (url.query, urllib.parse.urlencode(fields))))
            signed = _signed(headers, known.basic if known else None)
            answer = self._send("GET", url._replace(query=query).geturl(), None, signed)
        self.check_passing(answer, "give a token")
        try:
            data = json.loads(answer.content)
            token = data.get("token") or data["access_token"]
            life = float(data.get("expires_in") or _TOKEN_LIFE)
        except (ValueError, KeyError, TypeError, AttributeError):
            # The cause is left out on purpose: its text can hold the token.
            raise self.failure(answer, "give a token") from None
        return str(token), life

    def _scopes(self, method: str, also: Scopes) -> Scopes:
        own = f"repository:{self._repository}:"
        # One token that can push serves the reads too, once we have it.
        reads = method in {"GET", "HEAD"} and not self._login.has((f"{own}pull,push",))
        return (
            f"{own}{'pull' if reads else 'pull,push'}",
            *(f"repository:{name}:pull" for name in also),
        )

    def _manager(self, url: str) -> urllib3.PoolManager:
        address = urllib.parse.urlsplit(url)
        proxy = urllib.request.getproxies().get(address.scheme, "")
        if is_loopback(address.netloc) or urllib.request.proxy_bypass(address.netloc):
            proxy = ""
        if proxy not in self._managers:
            self._managers[proxy] = _pool_manager(proxy, self.patience)
        return self._managers[proxy]


class _Login:
    """Credentials and tokens for one repository; one thread asks, the others wait for it."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._lock = threading.Lock()
        self._challenge: dict[str, str] = {}
        self._basic: str | None = None
        self._tokens: dict[Scopes, tuple[str, float]] = {}
        self.credentials: Credentials | None = None

    def has(self, scopes: Scopes) -> bool:
        return scopes in self._tokens

    def header(self, scopes: Scopes) -> str | None:
        """What to send as Authorization; a token that will soon expire is renewed first."""
        with self._lock:
            if not self._challenge:
                return self._basic
            header, expires = self._tokens.get(scopes, ("", 0.0))
            return header if time.monotonic() < expires else self._fetch(scopes)

    def renew(self, scopes: Scopes, used: str | None, answer: Answer) -> bool:
        """Gets what a 401 asks for; says whether there is now something else to try than `used`."""
        with self._lock:
            current = self._tokens.get(scopes, ("",))[0] if self._challenge else self._basic
            if current and current != used:
                return True  # another thread was faster
            kinds = _challenges(answer)
            # Looked up anew each time: a mounted Secret may have been renewed meanwhile.
            host = self._transport.host
            known = find_credentials(host, self._transport._repository)
            self.credentials = known
            if "bearer" in kinds:
                self._challenge = kinds["bearer"]
                self._fetch(scopes)
                return True
            if "basic" in kinds and known and known.password and known.basic != used:
                self._challenge, self._basic = {}, known.basic
                return True
            return False

    def _fetch(self, scopes: Scopes) -> str:
        self._tokens.pop(scopes, None)
        asked = time.monotonic()
        token, life = self._transport.retrying(
            lambda: self._transport.token(self._challenge, scopes)
        )
        # Ahead of time: the clocks differ, and a large body takes a while to arrive.
        self._tokens[scopes] = (f"Bearer {token}", asked + 0.8 * life)
        return f"Bearer {token}"


class _TooSlow(OSError):
    """A peer that moves fewer bytes than the floor allows."""


class _Pace:
    """Watches that a transfer stays above the floor while it waits for the peer."""

    def __init__(self, patience: Patience) -> None:
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

    def __init__(self, raw: io.RawIOBase, patience: Patience) -> None:
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
    def __init__(self, sock: socket.socket, *args: Any, patience: Patience, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.fp: Any = io.BufferedReader(_PacedReader(self.fp.detach(), patience))


class _Paced(urllib3.connection.HTTPConnection):
    """A connection for large bodies.

    It sends pieces without copying them, hears an answer that comes before the body was sent,
    and keeps to the floor in both directions.
    """

    def __init__(self, *args: Any, patience: Patience, **options: Any) -> None:
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
            if self._in_body and _has_answered(self.sock):
                self._cut_short = True
                raise BrokenPipeError(errno.EPIPE, "answered before the body was sent")
            asked = time.monotonic()
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


def _pool_manager(proxy: str, patience: Patience) -> urllib3.PoolManager:
    options: dict[str, Any] = {
        "timeout": urllib3.Timeout(connect=patience.connect, read=patience.read),
        "ssl_context": _tls(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")),
        "maxsize": _CONNECTIONS,
        # Not blocking: whoever holds downloads open may need one more connection to go on.
        "block": False,
    }
    if proxy:
        user = urllib.parse.urlsplit(proxy).netloc.rpartition("@")[0]
        login = urllib3.make_headers(proxy_basic_auth=urllib.parse.unquote(user)) if user else None
        manager: urllib3.PoolManager = urllib3.ProxyManager(proxy, proxy_headers=login, **options)
    else:
        manager = urllib3.PoolManager(**options)
    classes: dict[str, Any] = {
        "http": functools.partial(_PlainPool, patience=patience),
        "https": functools.partial(_TlsPool, patience=patience),
    }
    manager.pool_classes_by_scheme = classes
    return manager


@functools.lru_cache
def _tls(file: str | None, folder: str | None) -> ssl.SSLContext:
    """Loading certificates takes a while; OpenSSL reads the two variables itself."""
    return ssl.create_default_context()


def _frames(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The chunked transfer encoding (RFC 9112, section 7.1) without touching the chunks."""
    end = b""
    for chunk in chunks:
        if chunk:
            yield b"%s%x\r\n" % (end, len(chunk))
            yield chunk
            end = b"\r\n"
    yield end + b"0\r\n\r\n"


def _has_answered(sock: socket.socket) -> bool:
    """Whether the peer speaks already; with TLS it may be the protocol that does."""
    if isinstance(sock, ssl.SSLSocket):
        return False
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def is_loopback(host: str) -> bool:
    """Whether a host (with or without port) is this machine, where plain http is used."""
    name = urllib.parse.urlsplit(f"//{host}").hostname or ""
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def is_plain(host: str) -> bool:
    """Whether plain http is used: this machine, and what `INSECURE_VARIABLE` lists."""
    listed = os.environ.get(INSECURE_VARIABLE, "").split(",")
    return is_loopback(host) or host in {item.strip() for item in listed}


def _is_private(name: str) -> bool:
    """Whether a host is known to have an address that is not a public one."""
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
    """Whether a host looks like one inside a cluster, where TLS is often left out."""
    name = urllib.parse.urlsplit(f"//{host}").hostname or ""
    try:
        return not ipaddress.ip_address(name).is_global
    except ValueError:
        return "." not in name or name.endswith(_INTERNAL)


def _signed(headers: dict[str, str] | None, authorization: str | None) -> dict[str, str]:
    signed = {**(headers or {}), "User-Agent": "kfp-bento"}
    return {**signed, "Authorization": authorization} if authorization else signed


def _origin(url: str) -> tuple[str, str]:
    return urllib.parse.urlsplit(url)[:2]


def _challenges(answer: Answer) -> dict[str, dict[str, str]]:
    """The ways to log in that a 401 offers: ``bearer``, ``basic`` and their parameters."""
    offered: dict[str, dict[str, str]] = {}
    for header in answer.headers.getlist("WWW-Authenticate"):
        parts = _KINDS.split(header)
        for kind, rest in zip(parts[1::2], parts[2::2], strict=True):
            parameters = {name.lower(): a or b for name, a, b in _PARAMETER.findall(rest)}
            offered.setdefault(kind.lower(), parameters)
    return offered


def _further(challenged: str, scopes: Scopes) -> Scopes:
    """Scopes of a challenge for other repositories than ours: a mirror may know them otherwise."""
    ours = {scope.rpartition(":")[0] for scope in scopes}
    return tuple(item for item in challenged.split() if item.rpartition(":")[0] not in ours)


def _retry_after(answer: Answer) -> float:
    """The seconds that an answer asks to wait for, given as such or as a date."""
    text = answer.headers.get("Retry-After", "")
    if text.isdecimal():
        return float(text)
    try:
        return email.utils.parsedate_to_datetime(text).timestamp() - time.time()
    except ValueError:
        return 0.0


def _is_full(answer: Answer) -> bool:
    # docker-registry gives the error of the system call as its number.
    text = answer.content[:CHUNK].lower()
    return answer.status >= 500 and (
        b"no space" in text or re.search(rb'"err":28\b', text) is not None
    )


def _hint(answer: Answer, known: str) -> str:
    if _is_full(answer) or answer.status == 507:
        return "The registry's storage is full: its administrator has to make room."
    if "quota" in answer.detail.lower():
        return "The registry's quota is used up: remove images, or ask for more."
    if "DENIED" in answer.codes:
        return f"The request was made {known} credentials. Ask for the right to do this."
    return {
        401: f"The request was made {known} credentials. Log in, for example with "
        "`podman login`, or point DOCKER_CONFIG or REGISTRY_AUTH_FILE to a login file.",
        403: f"The request was made {known} credentials. Ask for the right to do this.",
        404: "Check the repository's name and tag; some registries want it created first.",
        405: "The registry does not take uploads: it is read-only or a mere mirror.",
        413: "A proxy before the registry limits the size of requests: have the limit lifted.",
        429: "The registry limits requests: wait, or log in to get a higher limit.",
    }.get(answer.status, "Try again later, or look at the registry's own log.")


def _unreachable(host: str, error: HTTPError) -> tuple[RegistryError, bool]:
    """What to say about a connection that failed, and whether it will always fail."""
    cause: Any = error
    while isinstance(cause, HTTPError) and cause.args and isinstance(cause.args[-1], Exception):
        cause = cause.args[-1]
    tls = isinstance(cause, ssl.SSLError)
    known = isinstance(cause, OSError) and cause.strerror
    reason = (known or str(cause).rpartition(": ")[2] or type(cause).__name__).rstrip(".")
    hint = "Check the host name, the network and, for your own certificates, SSL_CERT_FILE."
    if tls and _is_internal(host):
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
