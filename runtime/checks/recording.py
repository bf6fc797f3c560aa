"""Golden requests out of a running service: what people and programs ask it, written down.

A proxy on the loopback address hands every request on and keeps it; what identifies who asks is
handed on as well, and kept nowhere.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import yaml

from kfp_bento.runtime.checks.api_examples import api_examples
from kfp_bento.runtime.checks.recorded_request import LARGEST_BODY, KeptFile, recorded_request
from kfp_bento.runtime.checks.served_model import LARGEST_ANSWER, service_root, service_token
from kfp_bento.runtime.errors import CheckError, InvalidInput
from kfp_bento.runtime.files import write_whole
from kfp_bento.runtime.http import HttpAnswer, NoAnswerError, NoConnectionError, ask
from kfp_bento.runtime.programs import names_secret
from kfp_bento.runtime.proof import Content, request_headers

MOST_REQUESTS = 1000
LARGEST_RECORDING = 48 << 20
"""Bytes of all bodies, and answers where they are kept: `given_requests` takes a little more."""

_SECONDS = 300.0
_OWN_PAGES = ("/", "/livez", "/readyz", "/healthz", "/metrics", "/docs.json", "/favicon.ico")
# Of the connection to us, or what would make the answer unreadable.
_NOT_HANDED_ON = frozenset(
    (
        *("accept-encoding", "connection", "content-length", "expect", "host", "keep-alive"),
        *("proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding"),
        "upgrade",
    )
)


@dataclass
class Recording:
    """Requests that are kept in a file, whole after each of them.

    Attributes:
        file: JSON where its name ends so, else YAML; other files lie in a folder beside it.
        answers: Whether the answers are kept as well, as the right ones.
        headers: Names of headers to keep.
        kept: The requests so far.
        left_out: Why others were not kept, each reason once.
    """

    file: Path
    answers: bool = False
    headers: Sequence[str] = ()
    kept: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    _size: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        """Refuse headers that say who asks."""
        for name in self.headers:
            try:
                request_headers({name: ""})
                allowed = not names_secret(name.replace("-", "_"))
            except ValueError:
                allowed = False
            if not allowed:
                raise InvalidInput(
                    f"The header {name} is not kept: it is of the connection, or says who asks.",
                    hint="The checks send the service's token themselves (KFP_BENTO_API_TOKEN).",
                )

    def add(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | None,
        answer: HttpAnswer,
    ) -> None:
        """Keep a request and write the file, unless it is one that should not be asked again."""
        if _is_own_page(path):
            return
        with self._lock:
            reason = _reason_against(path, answer) or self._too_much(body, answer)
            if reason:
                self._leave_out(reason)
                return
            folder = f"{self.file.stem}-files"
            number = len(self.kept) + 1
            try:
                request, files = recorded_request(method, path, headers, body, f"{folder}/", number)
            except InvalidInput as error:
                self._leave_out(error.message)
                return
            chosen = {name: headers[name] for name in self.headers if name in headers}
            if chosen:
                request["headers"] = chosen
            if any(_same(request, one) for one in self.kept):
                return
            if self.answers:
                content = Content.of(answer.body, answer.media_type).to_dict()
                request["answer"] = {"status": answer.status, **content}
            self._write(request, files)

    def _leave_out(self, reason: str) -> None:
        self.left_out += [reason] if reason not in self.left_out else []

    def _too_much(self, body: bytes | None, answer: HttpAnswer) -> str:
        size = len(body or b"") + (len(answer.body) if self.answers else 0)
        if len(self.kept) >= MOST_REQUESTS or self._size + size > LARGEST_RECORDING:
            return f"more than {MOST_REQUESTS} requests or {LARGEST_RECORDING} bytes are not kept"
        self._size += size
        return ""

    def _write(self, request: dict[str, Any], files: Sequence[KeptFile]) -> None:
        for kept in files:
            write_whole(kept.content, self.file.parent / kept.name)
        self.kept.append(request)
        if self.file.suffix.lower() == ".json":
            text = (json.dumps(self.kept, indent=2) + "\n").encode()
        else:
            text = yaml.safe_dump(self.kept, sort_keys=False, allow_unicode=True).encode()
        write_whole(text, self.file)


@contextmanager
def recording_proxy(url: str, recording: Recording, *, port: int = 0) -> Iterator[Proxy]:
    """Stand between a service and whoever asks it, for the length of a block.

    Args:
        url: The service.
        recording: Keeps what it is asked.
        port: Where to listen on the loopback address; 0 takes a free port.

    Raises:
        CheckError: The URL is none, or nothing answers there.
        InvalidInput: The port is taken.
    """
    root = service_root(url)
    _asked(root, "GET", "/readyz", {}, None)
    try:
        server = _Server(("127.0.0.1", port), _Handler)
    except OSError as error:
        raise InvalidInput(
            f"The port {port} cannot be listened on: {error.strerror}.", hint="Choose another one."
        ) from error
    server.root, server.recording = root, recording
    thread = threading.Thread(target=server.serve_forever, name="recording", daemon=True)
    thread.start()
    try:
        yield Proxy(f"http://127.0.0.1:{server.server_address[1]}", server.changed, recording)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass(frozen=True)
class Proxy:
    """A proxy that records.

    Attributes:
        url: Where it listens.
        changed: Is told of every request.
        recording: What it keeps.
    """

    url: str
    changed: threading.Condition
    recording: Recording

    def wait_for(self, count: int) -> None:
        """Wait until so many requests are kept; 0 waits until it is interrupted."""
        with self.changed:
            while not count or len(self.recording.kept) < count:
                self.changed.wait(timeout=1.0)


def record_examples(url: str, recording: Recording) -> list[str]:
    """Ask a service the examples of its own API description, and keep them.

    Returns:
        The paths for which it has none.

    Raises:
        CheckError: The URL is none, the service gives no answer, or describes no API.
    """
    root = service_root(url)
    token = service_token()
    headers = {"Content-Type": "application/json"}
    login = {"Authorization": f"Bearer {token}"} if token else {}
    found = api_examples(_asked(root, "GET", "/docs.json", login, None))
    for method, path, value in found.requests:
        body = json.dumps(value).encode()
        answer = _asked(root, method, path, {**headers, **login}, body)
        recording.add(method, path, headers, body, answer)
    return found.without


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    root: str
    recording: Recording

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.changed = threading.Condition()


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _SECONDS

    def _hand_on(self) -> None:
        length = self.headers.get("Content-Length", "0")
        if self.headers.get("Transfer-Encoding") or not length.isdecimal():
            self._say(411, b"This proxy takes bodies with a Content-Length only.\n")
            return
        if int(length) > LARGEST_BODY:
            self._say(413, f"This proxy takes {LARGEST_BODY} bytes.\n".encode())
            return
        body = self.rfile.read(int(length)) if int(length) else None
        headers = {
            name: text for name, text in self.headers.items() if name.lower() not in _NOT_HANDED_ON
        }
        try:
            answer = _asked(self.server.root, self.command, self.path, headers, body)
        except CheckError as error:
            self._say(502, f"{error.message}\n".encode())
            return
        self.server.recording.add(self.command, self.path, headers, body, answer)
        self._say(answer.status, answer.body, answer.media_type)
        with self.server.changed:
            self.server.changed.notify_all()

    # As the library names them.
    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _hand_on  # noqa: N815

    def _say(self, status: int, body: bytes, media_type: str = "text/plain") -> None:
        self.send_response(status)
        if media_type:
            self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing: paths may hold what is not for a log."""


def _asked(
    root: str, method: str, path: str, headers: Mapping[str, str], body: bytes | None
) -> HttpAnswer:
    try:
        return ask(
            method,
            f"{root}{path}",
            seconds=_SECONDS,
            largest=LARGEST_ANSWER,
            body=body,
            headers=headers,
        )
    except (NoConnectionError, NoAnswerError) as error:
        raise CheckError(
            f"The service at {root} gives no answer: {error}.", hint="Check its URL, and start it."
        ) from error


def _is_own_page(path: str) -> bool:
    """Say whether a path is one of BentoML itself, which every service has."""
    plain = urlsplit(path).path
    return plain in _OWN_PAGES or plain.startswith("/static_content/")


def _reason_against(path: str, answer: HttpAnswer) -> str:
    """Say why a request should not be asked again by the checks; "" where it may."""
    parts = urlsplit(path)
    if any(names_secret(name.replace("-", "_")) for name, _ in parse_qsl(parts.query)):
        return f"{parts.path} has a secret in its query, and is not kept"
    if answer.status >= 500 or answer.status in (401, 403):
        return f"{parts.path} was answered with {answer.status}, and is not kept"
    return ""


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    ours = {key: value for key, value in other.items() if key != "answer"}
    return dict(one) == ours
