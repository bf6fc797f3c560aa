"""A proxy in front of a registry that breaks the exchanges it is told to break.

Unlike a TCP proxy it knows which request goes by, so that a fault can be aimed at the upload of a
blob, at its closing, or at the manifest. A fault is a function that carries out one exchange.
"""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import re
import socket
import struct
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

PIECE = 64 << 10
# What a proxy must not pass on: it belongs to one connection.
_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "proxy-connection"}
_PATHS = (
    (re.compile(r"/v2/?"), "ping"),
    (re.compile(r"/v2/.+/manifests/sha256:[0-9a-f]+"), "manifest"),
    (re.compile(r"/v2/.+/manifests/.+"), "tag"),
    (re.compile(r"/v2/.+/blobs/uploads/.*"), "upload"),
    (re.compile(r"/v2/.+/blobs/.+"), "blob"),
    (re.compile(r"/v2/.+/referrers/.+"), "referrers"),
    (re.compile(r"/token.*"), "token"),
)
Headers = dict[str, str]


class HungUp(Exception):
    """The exchange ends here, in the middle."""


class Gone(HungUp):
    """It ends with a reset, as of a machine that is gone, and not with an orderly end."""


@dataclass
class Answer:
    """What the registry answered, its body not read yet."""

    status: int
    headers: Headers
    body: Iterator[bytes]
    size: int


Fault = Callable[["Exchange"], None]


@dataclass
class Rule:
    """A fault for the requests whose ``METHOD kind`` matches.

    Attributes:
        pattern: For ``PATCH upload``, ``PUT manifest`` (by digest), ``PUT tag`` and the like.
        fault: What happens to them.
        skip: How many of them go through before.
        times: How many it happens to.
    """

    pattern: re.Pattern[str]
    fault: Fault
    skip: int
    times: float
    hits: int = 0


@dataclass
class Guard:
    """Asks for bearer tokens that soon wear out, and looks at what they are for.

    Attributes:
        uses: Says how many requests the next token is good for.
        granted: The scopes of every token that was given out.
    """

    uses: Callable[[], float] = lambda: float("inf")
    granted: list[frozenset[str]] = field(default_factory=list)
    _left: dict[str, tuple[frozenset[str], float]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def issue(self, query: str) -> str:
        scopes = urllib.parse.parse_qs(query).get("scope", [])
        rights: set[str] = set()
        for scope in " ".join(scopes).split():
            _, name, actions = scope.split(":")
            rights |= {f"{name}:{action}" for action in actions.split(",")}
        with self._lock:
            token = f"token-{len(self.granted)}"
            self.granted.append(frozenset(rights))
            self._left[token] = (frozenset(rights), self.uses())
        return token

    def revoke(self) -> None:
        """Every token given out so far has expired."""
        with self._lock:
            self._left.clear()

    def admits(self, authorization: str, wanted: set[str]) -> bool:
        with self._lock:
            token = authorization.removeprefix("Bearer ")
            rights, left = self._left.get(token, (frozenset(), 0.0))
            if left <= 0 or not wanted <= rights:
                return False
            self._left[token] = (rights, left - 1)
            return True


class FaultProxy:
    """Stands in front of one registry; `host` is what to call it.

    Args:
        upstream: ``host:port`` of the registry.
        guard: Lets nobody in without a token.
    """

    def __init__(self, upstream: str, guard: Guard | None = None) -> None:
        self.upstream = upstream
        self.guard = guard
        self.seen: list[str] = []
        self.failures: list[str] = []
        self._rules: list[Rule] = []
        self._lock = threading.Lock()
        proxy = self

        class Handler(_Handler):
            owner = proxy

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        # Little is on its way: a slow reader holds up the writer soon.
        self._server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, PIECE)
        self.host = f"127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> FaultProxy:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def on(self, pattern: str, fault: Fault, *, skip: int = 0, times: float = 1) -> Rule:
        """Lets the fault happen to requests that match; of several rules the first one counts."""
        rule = Rule(re.compile(pattern), fault, skip, times)
        self._rules.append(rule)
        return rule

    def count(self, pattern: str) -> int:
        """How many requests of the kind came in."""
        return sum(bool(re.fullmatch(pattern, name)) for name in list(self.seen))

    def fault_for(self, name: str) -> Fault:
        with self._lock:
            self.seen.append(name)
            for rule in self._rules:
                if not re.fullmatch(rule.pattern, name):
                    continue
                if rule.skip > 0:
                    rule.skip -= 1
                elif rule.hits < rule.times:
                    rule.hits += 1
                    return rule.fault
        return pass_on


class Exchange:
    """One request and its answer, in the hands of a fault."""

    def __init__(self, handler: _Handler, proxy: FaultProxy) -> None:
        self._handler = handler
        self.proxy = proxy
        self.method: str = handler.command
        self.path: str = handler.path
        self.headers: Headers = dict(handler.headers.items())
        kind = next((kind for shape, kind in _PATHS if shape.fullmatch(self._plain)), "other")
        self.name = f"{self.method} {kind}"
        self._body = self._read()
        self._upstream: http.client.HTTPConnection | None = None

    @property
    def _plain(self) -> str:
        return self.path.partition("?")[0]

    @property
    def repository(self) -> str:
        return re.sub(r"^/v2/(.+?)/(manifests|blobs|referrers)/.*", r"\1", self._plain)

    def body(self) -> Iterator[bytes]:
        """What is left of the request's body, piece by piece as it comes in."""
        return self._body

    def _read(self) -> Iterator[bytes]:
        file = self._handler.rfile
        if self._handler.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while size := int(file.readline().split(b";")[0] or b"0", 16):
                yield self._exactly(size)
                file.readline()
            file.readline()
            return
        left = int(self._handler.headers.get("Content-Length", 0))
        while left:
            data = file.read1(min(left, PIECE))
            if not data:
                raise HungUp
            left -= len(data)
            yield data

    def _exactly(self, size: int) -> bytes:
        data = self._handler.rfile.read(size)
        if len(data) < size:
            raise HungUp
        return data

    def forward(
        self, body: Iterable[bytes] | None = None, *, more: Headers | None = None
    ) -> Answer:
        """Sends the request to the registry, with another body if one is given."""
        connection = http.client.HTTPConnection(self.proxy.upstream, timeout=60)
        self._upstream = connection
        headers = {k: v for k, v in self.headers.items() if k.lower() not in _HOP}
        # Docker's registry makes its Locations of the Host that it was asked for.
        headers.update(more or {})
        fixed = self._handler.headers.get("Content-Length")
        if body is None and fixed is not None:
            headers["Content-Length"] = fixed
        pieces: Iterable[bytes] | None = self._body if body is None else body
        if self.method not in {"PATCH", "PUT", "POST"}:
            pieces = None
        chunked = "Content-Length" not in headers and pieces is not None
        if chunked:
            headers["Transfer-Encoding"] = "chunked"
        try:
            connection.request(self.method, self.path, pieces, headers, encode_chunked=chunked)
        except OSError:
            # The registry may have answered already, and closed.
            with contextlib.suppress(OSError, ValueError):
                return self._answer(connection)
            raise
        return self._answer(connection)

    def _answer(self, connection: http.client.HTTPConnection) -> Answer:
        response = connection.getresponse()
        headers = {k: v for k, v in response.getheaders() if k.lower() not in _HOP}
        length = response.getheader("Content-Length")
        pieces = iter(lambda: response.read(PIECE), b"")
        if length is None:
            content = b"".join(pieces)
            return Answer(response.status, headers, iter((content,)), len(content))
        return Answer(response.status, headers, pieces, int(length))

    def relay(self, answer: Answer, *, most: float = float("inf")) -> None:
        """Passes an answer on, and breaks the connection after so many bytes of it."""
        reason = http.client.responses.get(answer.status, "")
        lines = [f"HTTP/1.1 {answer.status} {reason}"]
        lines += [f"{name}: {value}" for name, value in answer.headers.items()]
        lines += [f"Content-Length: {answer.size}", "", ""]
        self._write("\r\n".join(lines).encode(), most)
        most -= len("\r\n".join(lines))
        if self.method == "HEAD":
            return
        for data in answer.body:
            self._write(data, most)
            most -= len(data)

    def _write(self, data: bytes, most: float) -> None:
        if len(data) > most:
            self._handler.wfile.write(data[: max(int(most), 0)])
            raise HungUp
        self._handler.wfile.write(data)

    def reply(self, status: int, headers: Headers | None = None, content: bytes = b"") -> None:
        """Answers in the registry's place; a body that was not read is thrown away afterwards."""
        self.relay(Answer(status, headers or {}, iter((content,)), len(content)))
        with contextlib.suppress(HungUp, OSError, ValueError):
            for _ in self._body:
                pass

    def hang_up(self, *, reset: bool) -> None:
        self._handler.close_connection = True
        with contextlib.suppress(OSError):
            if reset:
                linger = struct.pack("ii", 1, 0)
                self._handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self._handler.connection.close()

    def close(self) -> None:
        if self._upstream is not None:
            self._upstream.close()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: FaultProxy
    timeout = 60
    disable_nagle_algorithm = True

    def _serve(self) -> None:
        exchange = Exchange(self, self.owner)
        try:
            if self._is_admitted(exchange):
                self.owner.fault_for(exchange.name)(exchange)
        except (HungUp, OSError) as end:
            exchange.hang_up(reset=isinstance(end, Gone))
        except Exception as error:
            self.owner.failures.append(f"{exchange.name}: {error!r}")
            exchange.hang_up(reset=True)
        finally:
            exchange.close()

    do_GET = do_HEAD = do_POST = do_PATCH = do_PUT = do_DELETE = _serve  # noqa: N815

    def _is_admitted(self, exchange: Exchange) -> bool:
        guard = self.owner.guard
        if guard is None:
            return True
        if exchange.path.startswith("/token"):
            token = guard.issue(urllib.parse.urlsplit(exchange.path).query)
            exchange.reply(200, {}, json.dumps({"token": token}).encode())
            return False
        name = exchange.repository
        reading = exchange.method in {"GET", "HEAD"}
        wanted = {f"{name}:pull"} if reading else {f"{name}:pull", f"{name}:push"}
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(exchange.path).query)
        wanted |= {f"{source}:pull" for source in query.get("from", [])}
        if guard.admits(exchange.headers.get("Authorization", ""), wanted):
            return True
        self.owner.seen.append(f"401 {exchange.name}")
        challenge = (
            f'Bearer realm="http://{self.owner.host}/token",service="registry",'
            f'scope="repository:{name}:{"pull" if reading else "pull,push"}"'
        )
        body = b'{"errors": [{"code": "UNAUTHORIZED", "message": "token expired"}]}'
        exchange.reply(401, {"WWW-Authenticate": challenge}, body)
        return False

    def log_message(self, *arguments: Any) -> None:
        pass


# --- The faults ---------------------------------------------------------------------------------


def pass_on(exchange: Exchange) -> None:
    exchange.relay(exchange.forward())


def refuse(status: int, headers: Headers | None = None, content: bytes = b"") -> Fault:
    """The request does not arrive; its body is read, as most servers do."""

    def fault(exchange: Exchange) -> None:
        for _ in exchange.body():
            pass
        exchange.reply(status, headers, content)

    return fault


def refuse_early(status: int, headers: Headers | None = None) -> Fault:
    """Answers before the body has come in, and resets the connection: rude, but some do."""

    def fault(exchange: Exchange) -> None:
        exchange.relay(Answer(status, headers or {}, iter(()), 0))
        raise Gone

    return fault


def cut_request(after: int) -> Fault:
    """Both connections break after so many bytes of the body; the registry sees the beginning."""

    def fault(exchange: Exchange) -> None:
        exchange.forward(_broken(exchange.body(), after))
        raise Gone  # a request without a body gets no answer

    return fault


def cut_answer(after: int) -> Fault:
    """The registry did its work, but only so many bytes of its answer come through, head first."""

    def fault(exchange: Exchange) -> None:
        exchange.relay(exchange.forward(), most=after)
        raise HungUp

    return fault


def clip_request(size: int) -> Fault:
    """The registry gets the beginning of the body as if it were all of it."""

    def fault(exchange: Exchange) -> None:
        kept = b"".join(exchange.body())[:size]
        exchange.relay(exchange.forward((kept,), more={"Content-Length": str(len(kept))}))

    return fault


def clip_answer(size: int) -> Fault:
    """The beginning of the answer's body arrives as if it were all of it."""

    def fault(exchange: Exchange) -> None:
        answer = exchange.forward()
        kept = b"".join(answer.body)[:size]
        exchange.relay(Answer(answer.status, answer.headers, iter((kept,)), len(kept)))

    return fault


def damage_answer(position: int) -> Fault:
    """One bit of the answer's body is another one."""

    def fault(exchange: Exchange) -> None:
        answer = exchange.forward()
        content = bytearray(b"".join(answer.body))
        if content:
            content[position % len(content)] ^= 1
        exchange.relay(Answer(answer.status, answer.headers, iter((bytes(content),)), answer.size))

    return fault


def edit_answer(edit: Callable[[Answer], Any]) -> Fault:
    """The answer's status or headers are others."""

    def fault(exchange: Exchange) -> None:
        answer = exchange.forward()
        edit(answer)
        exchange.relay(answer)

    return fault


def before(action: Callable[[], Any]) -> Fault:
    """Something happens just before the request arrives."""

    def fault(exchange: Exchange) -> None:
        action()
        pass_on(exchange)

    return fault


def after(action: Callable[[], Any]) -> Fault:
    """Something happens when the registry has done its work, and before anybody hears of it."""

    def fault(exchange: Exchange) -> None:
        answer = exchange.forward()
        action()
        exchange.relay(answer)

    return fault


def drip_request(piece: int, pause: float) -> Fault:
    """The body trickles to the registry; the builder is held up by full buffers."""

    def fault(exchange: Exchange) -> None:
        exchange.relay(exchange.forward(_dripping(exchange.body(), piece, pause)))

    return fault


def drip_answer(piece: int, pause: float) -> Fault:
    """The answer's body trickles in."""

    def fault(exchange: Exchange) -> None:
        answer = exchange.forward()
        answer.body = _dripping(answer.body, piece, pause)
        exchange.relay(answer)

    return fault


def fall_silent(seconds: float) -> Fault:
    """Takes the request, says nothing for a while, and hangs up."""

    def fault(exchange: Exchange) -> None:
        time.sleep(seconds)
        raise HungUp

    return fault


def limit_body(most: int, status: int) -> Fault:
    """Bodies above the limit are refused as soon as they exceed it, others go through."""

    def fault(exchange: Exchange) -> None:
        if int(exchange.headers.get("Content-Length", 0)) > most:
            exchange.reply(status)
            return
        taken = bytearray()
        for data in exchange.body():
            taken += data
            if len(taken) > most:
                exchange.reply(status)
                return
        size = {"Content-Length": str(len(taken))}
        exchange.relay(exchange.forward((bytes(taken),), more=size))

    return fault


class ForgetfulUploads:
    """Keeps the first PATCH of an upload, drops the others and reports success: as ECR does."""

    def __init__(self) -> None:
        self._ranges: dict[str, str] = {}

    def __call__(self, exchange: Exchange) -> None:
        session = exchange.path.partition("?")[0]
        if exchange.method == "PUT":
            for _ in exchange.body():
                pass
            answer = exchange.forward(())
            if answer.status != 201:  # it takes the blob for whole, whatever it holds
                answer.status = 201
            exchange.relay(answer)
            return
        if session not in self._ranges:
            answer = exchange.forward()
            self._ranges[session] = answer.headers.get("Range", "")
            exchange.relay(answer)
            return
        for _ in exchange.body():
            pass
        location = {"Location": exchange.path, "Range": self._ranges[session]}
        exchange.reply(202, location)


def _broken(pieces: Iterator[bytes], after: int) -> Iterator[bytes]:
    for data in pieces:
        if len(data) >= after:
            yield data[:after]
            raise Gone
        after -= len(data)
        yield data
    raise Gone


def _dripping(pieces: Iterator[bytes], piece: int, pause: float) -> Iterator[bytes]:
    for data in pieces:
        for start in range(0, len(data), piece):
            yield data[start : start + piece]
            time.sleep(pause)
