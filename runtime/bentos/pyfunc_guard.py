"""The border of a generated service: who may ask, how much at once, and what is told.

This file lies beside the service in every bento that kfp-bento generates, and needs BentoML only.
`Guard` stands before everything that is answered. Environment variables:

- `KFP_BENTO_API_TOKEN`, `KFP_BENTO_API_TOKEN_FILE`: what callers have to present as
  `Authorization: Bearer <token>`, except at `/livez`, `/readyz` and `/healthz`. Several tokens are
  separated by white space; the file is read again when it changes.
- `KFP_BENTO_MAX_BODY_BYTES` and the others of `Limits`: what one request may cost.
- `KFP_BENTO_ALLOWED_HOSTS`: the names that the `Host` header may hold, separated by white space.
- `KFP_BENTO_SHOW_EXAMPLE=false`: the API page shows no row of the model's input example.
- `KFP_BENTO_LOG_VALUES=true`: the log quotes the texts of exceptions, which may quote requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import hmac
import ipaddress
import logging
import os
import re
import traceback
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterator,
    Mapping,
    MutableMapping,
)
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

import anyio
from bentoml.exceptions import BentoMLConfigException, BentoMLException
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

SHORTEST_TOKEN = 16
LARGEST_HEADERS = 32 * 2**10
LONGEST_DRAIN = 5.0
HEALTH = ("livez", "readyz", "healthz", "health")

TIMEOUTS = (TimeoutError, asyncio.TimeoutError)  # two classes in Python 3.10

log = logging.getLogger("bentoml.kfp_bento")


def switch(name: str, default: bool) -> bool:
    """Gives an environment variable that is either true or false.

    Raises:
        BentoMLConfigException: It is neither.
    """
    text = os.environ.get(name, "").strip().lower()
    if text in ("", "1", "true", "yes", "on"):
        return default if not text else True
    if text in ("0", "false", "no", "off"):
        return False
    raise BentoMLConfigException(f"{name} is neither 'true' nor 'false'.")


@dataclass(frozen=True)
class Limits:
    """What one request may cost; the variable of each is `KFP_BENTO_<NAME>`.

    Attributes:
        max_body_bytes: Bytes of a body.
        max_rows: Rows of `inputs` where it is a list of rows.
        max_values: JSON values in a body; lists and objects are at most an eighth of them.
        max_keys: Keys of one object.
        max_seconds: For a body to arrive, for its turn to come, for each part of an answer to go.
    """

    max_body_bytes: int = 16 * 2**20
    max_rows: int = 100_000
    max_values: int = 4_000_000
    max_keys: int = 100_000
    max_seconds: int = 60

    @classmethod
    def from_environment(cls) -> Limits:
        """Gives the limits that hold here.

        Raises:
            BentoMLConfigException: A variable is no whole number above 0.
        """
        given: dict[str, int] = {}
        for field in fields(cls):
            name = f"KFP_BENTO_{field.name.upper()}"
            text = os.environ.get(name, "").strip()
            if text and not re.fullmatch(r"[1-9][0-9]{0,14}", text, re.ASCII):
                raise BentoMLConfigException(f"{name} is not a whole number above 0.")
            if text:
                given[field.name] = int(text)
        return cls(**given)


LIMITS = Limits.from_environment()


# --- who may ask ---------------------------------------------------------------------------------


class Tokens:
    """The tokens that open a service; those of a file are read again when it changes."""

    def __init__(self) -> None:
        """Reads them.

        Raises:
            BentoMLConfigException: A variable is set, but gives no token, or one that is too short.
        """
        name = "KFP_BENTO_API_TOKEN"
        self._fixed = frozenset[bytes]()
        if name in os.environ:
            self._fixed = _digests(os.environ[name].encode(), name)
        file = os.environ.get(f"{name}_FILE")
        self._file = None if file is None else Path(file)
        self._seen: tuple[int, ...] = ()
        self._read = frozenset[bytes]()
        if self._file is not None:
            try:
                self._read = _digests(self._file.read_bytes(), f"{name}_FILE")
            except OSError as error:
                reason = error.strerror or "it cannot be read"
                raise BentoMLConfigException(f"{name}_FILE: {reason}.") from None
        self._needed = name in os.environ or file is not None

    def admit(self, authorization: bytes) -> bool:
        """Says whether a request with this header may pass."""
        if not self._needed:
            return True
        scheme, _, token = authorization.partition(b" ")
        digest = hashlib.sha256(token.strip()).digest()
        known = self._fixed | self._current()
        # All are compared, so that time tells nothing.
        found = sum(hmac.compare_digest(digest, one) for one in known)
        return scheme.lower() == b"bearer" and found > 0

    def _current(self) -> frozenset[bytes]:
        """Gives the file's tokens: none when it is gone or holds none that can be used."""
        if self._file is None:
            return self._read
        try:
            stat = self._file.stat()
            seen = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
            if seen != self._seen:
                self._read, self._seen = frozenset(), seen
                self._read = _digests(self._file.read_bytes(), "KFP_BENTO_API_TOKEN_FILE")
        except (OSError, BentoMLConfigException) as error:
            if self._read or self._seen:
                log.error("Nobody is let in by KFP_BENTO_API_TOKEN_FILE: %s", type(error).__name__)
            self._read, self._seen = frozenset(), ()
        return self._read


def _digests(text: bytes, name: str) -> frozenset[bytes]:
    tokens = text.split()
    if not tokens:
        raise BentoMLConfigException(f"{name} is set, but holds no token.")
    if min(map(len, tokens)) < SHORTEST_TOKEN:
        raise BentoMLConfigException(
            f"{name} holds a token of less than {SHORTEST_TOKEN} characters; "
            "make one with: openssl rand -hex 32"
        )
    return frozenset(hashlib.sha256(token).digest() for token in tokens)


class Hosts:
    """The names under which a service may be asked.

    A web page can give its own name the address 127.0.0.1 and then ask what listens there, as its
    own origin. A service on loopback outside of a cluster therefore answers only to addresses and
    to `localhost`, unless `KFP_BENTO_ALLOWED_HOSTS` says otherwise.
    """

    def __init__(self) -> None:
        self._named = frozenset(os.environ.get("KFP_BENTO_ALLOWED_HOSTS", "").lower().split())
        self._in_cluster = "KUBERNETES_SERVICE_HOST" in os.environ

    def admit(self, host: bytes, listens_on: str) -> bool:
        """Says whether a request with this header may pass."""
        name = host.decode("latin-1").lower()
        bare = name if name.endswith("]") else re.sub(r":\d*$", "", name)
        bare = bare.strip("[]").rstrip(".")
        if self._named:
            return bare in self._named or name in self._named
        if self._in_cluster or not name or not _is_loopback(listens_on):
            return True
        return bare == "localhost" or bare.endswith(".localhost") or _is_address(bare)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_loopback(text: str) -> bool:
    return _is_address(text) and ipaddress.ip_address(text).is_loopback


# --- how much at once ----------------------------------------------------------------------------


class Refusal(Exception):
    """An answer that the guard gives by itself."""

    def __init__(self, status: int, reason: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status, self.reason, self.headers = status, reason, headers


class Turns:
    """Lets requests work, in order, as long as their bodies together stay below a bound."""

    def __init__(self, most: int) -> None:
        self._most, self._used = most, 0
        self._queue, self._left = asyncio.Lock(), asyncio.Event()

    def enter_at_once(self, size: int) -> bool:
        """Says whether a body of `size` bytes may be worked on without waiting; if so, it is."""
        free = not self._queue.locked() and (not self._used or self._used + size <= self._most)
        self._used += size if free else 0
        return free

    async def enter(self, size: int) -> None:
        """Waits until a body of `size` bytes may be worked on; one alone always may."""
        async with self._queue:
            while self._used and self._used + size > self._most:
                self._left.clear()
                await self._left.wait()
            self._used += size

    def leave(self, size: int) -> None:
        """Gives the room back."""
        self._used -= size
        self._left.set()


class Request:
    """One request on its way through the guard."""

    def __init__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        self.scope, self._receive, self._send = scope, receive, send
        self.headers: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:  # what comes twice is a list, which nothing here takes
            known = self.headers.get(name)
            self.headers[name] = value if known is None else known + b"," + value
        self.method, self.path = scope["method"], scope["path"]
        self.body: bytes | None = None
        self.media = b""
        self.answered = self._ended = False
        self.when_answered: Callable[[], None] = _nothing

    async def pieces(self) -> AsyncIterator[bytes]:
        """Gives the body as it comes."""
        while not self._ended:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ConnectionError
            self._ended = not message.get("more_body", False)
            yield message.get("body", b"")

    async def receive(self) -> Message:
        """Gives the body that was read, in one piece, then what follows it."""
        if self.body is None:
            return await self._receive()
        message = {"type": "http.request", "body": self.body, "more_body": False}
        self.body = None
        return message

    async def send(self, message: Message) -> None:
        """Sends a part of an answer, with what every answer says to browsers."""
        if message["type"] == "http.response.start":
            self.answered = True
            self.when_answered()
            message = {**message, "headers": [*message["headers"], *_browser_headers(message)]}
        with anyio.fail_after(LIMITS.max_seconds):
            await self._send(message)

    def __str__(self) -> str:
        """Gives the request for the log: nothing that breaks a line or goes on for ever."""
        client = (self.scope.get("client") or ("somebody",))[0]
        return f"{self.method[:20]} {ascii(self.path)[1:101]} of {client}"


def _nothing() -> None:
    pass


def _browser_headers(message: Message) -> Iterator[tuple[bytes, bytes]]:
    """Gives the headers that keep an answer out of caches, frames and the reach of other sites.

    BentoML's API page asks a stranger's server for a script; it works as well without.
    """
    page = any(value.startswith(b"text/html") for _, value in message["headers"])
    policy = b"default-src 'none'; frame-ancestors 'none'"
    if page:
        policy = b"default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; "
        policy += b"frame-ancestors 'none'"
    yield b"content-security-policy", policy
    yield b"x-content-type-options", b"nosniff"
    yield b"referrer-policy", b"no-referrer"
    yield b"cache-control", b"no-store"


Shortcut = Callable[[Request], Awaitable[bool]]
Last = Callable[[], Awaitable[None]]


class Guard:
    """ASGI middleware before everything else: lets a request in, or answers it shortly."""

    def __init__(
        self,
        app: Starlette,
        shortcut: Shortcut | None = None,
        media: Mapping[str, Collection[bytes]] = MappingProxyType({}),
        last: Last | None = None,
    ) -> None:
        """Stands before an application.

        Args:
            app: What answers.
            shortcut: What answers some requests before `app` and says whether it did.
            media: The media types, besides JSON, that a path takes.
            last: What is done when all requests are answered, before the service ends.
        """
        self._last = last
        self._app, self._shortcut, self._media = app, shortcut, media
        self._tokens, self._hosts = Tokens(), Hosts()
        self._health = {
            route.path for route in app.routes if isinstance(route, Route) and route.name in HEALTH
        }
        self._paths = set(_paths(app))
        self._turns = Turns(LIMITS.max_body_bytes)
        self._held = 0

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Answers a request."""
        if scope["type"] == "lifespan":
            await self._app(scope, _ending(receive, self._last), _freezing(send))
        elif scope["type"] == "http":
            await self._answer(Request(scope, receive, send))
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _answer(self, request: Request) -> None:
        try:
            if request.path in self._health:
                await self._app(request.scope, request.receive, request.send)
            else:
                self._check_head(request)
                await self._work(request)
        except Refusal as refusal:
            await self._refuse(request, refusal)
        except (ConnectionError, *TIMEOUTS):
            log.warning("Gave up %s: it went away, or took the answer too slowly", request)
        except Exception as error:
            log.error("Exception on %s\n%s", request, traced(error))
            if not request.answered:
                told = "An unexpected error has occurred, please check the server log."
                await _reply(request, 500, told)

    def _check_head(self, request: Request) -> None:
        """Refuses what can be refused before anything of the body is read."""
        headers = request.headers
        if sum(len(name) + len(value) for name, value in headers.items()) > LARGEST_HEADERS:
            raise Refusal(431, f"the headers are larger than {LARGEST_HEADERS} bytes")
        server = request.scope.get("server") or ("", None)
        if not self._hosts.admit(headers.get(b"host", b""), server[0]):
            told = "this name is not served here; KFP_BENTO_ALLOWED_HOSTS has those that are"
            raise Refusal(421, told)
        if not self._tokens.admit(headers.get(b"authorization", b"")):
            told = "a token is needed: Authorization: Bearer <token>"
            raise Refusal(401, told, {"WWW-Authenticate": "Bearer"})
        if not {request.path, request.path.rstrip("/")} & self._paths:
            raise Refusal(404, "there is nothing at this path")
        if headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise Refusal(415, "a body must not be compressed")
        _check_media_type(request, self._media.get(request.path, ()))
        length = headers.get(b"content-length", b"0")
        if not length.isdigit():
            raise Refusal(400, "Content-Length is no number")
        if len(length) > 15 or int(length) > LIMITS.max_body_bytes:
            raise _too_large()

    async def _work(self, request: Request) -> None:
        """Reads the body, waits for a turn, and lets it be answered."""
        body = bytearray()
        try:
            try:
                with anyio.fail_after(LIMITS.max_seconds):
                    async for piece in request.pieces():
                        body += piece
                        self._held += len(piece)
                        if len(body) > LIMITS.max_body_bytes:
                            raise _too_large()
                        if self._held > 8 * LIMITS.max_body_bytes:
                            raise _busy()
            except TimeoutError:
                told = f"the body did not arrive within {LIMITS.max_seconds} seconds"
                raise Refusal(408, told) from None
            request.body = bytes(body)
            await self._in_turn(request, len(body))
        finally:
            self._held -= len(body)

    async def _in_turn(self, request: Request, size: int) -> None:
        if not self._turns.enter_at_once(size):
            try:
                with anyio.fail_after(LIMITS.max_seconds):
                    await self._turns.enter(size)
            except TimeoutError:
                raise _busy() from None

        def leave() -> None:  # as soon as there is an answer: who takes it slowly holds up nobody
            request.when_answered = _nothing
            self._turns.leave(size)

        request.when_answered = leave
        try:
            await self._pass_on(request)
        finally:
            request.when_answered()

    async def _pass_on(self, request: Request) -> None:
        if self._shortcut is None or not await self._shortcut(request):
            await self._app(request.scope, request.receive, request.send)

    async def _refuse(self, request: Request, refusal: Refusal) -> None:
        log.warning("Refused %d %s: %s", refusal.status, request, refusal.reason)
        if b"expect" not in request.headers:
            # Many clients read the answer only when they have sent everything.
            drained = 0
            with contextlib.suppress(ConnectionError), anyio.move_on_after(LONGEST_DRAIN):
                async for piece in request.pieces():
                    drained += len(piece)
                    if drained > 8 * LIMITS.max_body_bytes:
                        break
        await _reply(request, refusal.status, refusal.reason, refusal.headers)


def _ending(receive: Receive, last: Last | None) -> Receive:
    """Lets the last thing be done while everything is still there."""

    async def passing() -> Message:
        message = await receive()
        if message["type"] == "lifespan.shutdown" and last is not None:
            await last()
        return message

    return passing


def _freezing(send: Send) -> Send:
    """Takes what is there after the start out of garbage collection.

    A large request makes it run several times, and looking through all modules and the model each
    time would hold up everything else for longer than the request itself.
    """

    async def passing(message: Message) -> None:
        if message["type"] == "lifespan.startup.complete":
            gc.collect()
            gc.freeze()
        await send(message)

    return passing


def _paths(app: Starlette) -> Iterator[str]:
    """Gives what can be asked for: metrics are kept by path, so others must not get there."""
    for route in app.routes:
        if isinstance(route, Route):
            yield route.path
        elif isinstance(route, Mount) and isinstance(route.app, StaticFiles):
            root = Path(str(route.app.directory))
            for file in root.rglob("*"):
                yield f"{route.path}/{file.relative_to(root).as_posix()}"


def _check_media_type(request: Request, others: Collection[bytes]) -> None:
    """Lets only JSON pass, and what a path takes besides.

    A web page cannot send any of them to another site without being allowed to.
    """
    headers = request.headers
    media = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    is_json = media == b"application/json" or media.endswith(b"+json")
    of_a_page = b"origin" in headers or b"sec-fetch-site" in headers
    if request.method == "POST" and not is_json and media not in others and (media or of_a_page):
        raise Refusal(415, "a body has to be JSON, with Content-Type: application/json")
    request.media = b"application/json" if is_json or not media else media
    kept = [pair for pair in request.scope["headers"] if pair[0] != b"content-type"]
    kept += [(b"content-type", request.media)] if media else []
    request.scope = {**request.scope, "headers": kept}


def _too_large() -> Refusal:
    return Refusal(413, f"the body is larger than {LIMITS.max_body_bytes} bytes")


def _busy() -> Refusal:
    return Refusal(503, "too much is being worked on; try again", {"Retry-After": "1"})


async def _reply(
    request: Request, status: int, told: str, headers: dict[str, str] | None = None
) -> None:
    response = JSONResponse({"error": told}, status, headers)
    await response(request.scope, request.receive, request.send)


# --- what is told --------------------------------------------------------------------------------


def traced(error: BaseException) -> str:
    """Gives a traceback without the exceptions' own texts, which may quote what was sent."""
    if switch("KFP_BENTO_LOG_VALUES", default=False):
        return "".join(traceback.format_exception(type(error), error, error.__traceback__))
    lines: list[str] = []
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        own = traceback.format_tb(link.__traceback__, limit=-20)
        lines[:0] = [*own, f"{type(link).__module__}.{type(link).__qualname__}\n"]
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return "".join([*lines, "(KFP_BENTO_LOG_VALUES=true adds what the exceptions say)"])


class WithoutValues(logging.Filter):
    """Keeps what was sent out of BentoML's log: a line for a refusal, places for a failure."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrites a record that has an exception."""
        error = record.exc_info[1] if record.exc_info else None
        if error is None:
            return True
        record.exc_info = None
        if isinstance(error, ValidationError):
            found = error.errors(include_url=False, include_context=False, include_input=False)
            kinds = ", ".join(sorted({problem["type"] for problem in found}))
            self._refusal(record, f"{len(found)} problems ({kinds})")
        elif isinstance(error, BentoMLException) and error.error_code < 500:
            self._refusal(record, type(error).__name__)
        else:
            record.exc_text = traced(error)
        return True

    def _refusal(self, record: logging.LogRecord, reason: str) -> None:
        record.levelno, record.levelname = logging.WARNING, "WARNING"
        record.msg, record.args = f"Refused: {record.getMessage()}: {reason}", ()
