"""A proxy before the API server that notes what is asked and does harm when told to."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import urllib3


@dataclass(frozen=True)
class Asked:
    """One request, in the words of RBAC."""

    method: str
    verb: str
    group: str
    resource: str
    query: dict[str, str]

    @property
    def is_trial(self) -> bool:
        return self.query.get("dryRun") == "All"


@dataclass(frozen=True)
class Answer:
    """What the proxy says instead of the API server; status 0 cuts the connection."""

    status: int
    reason: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    # Whether the API server gets the request all the same, and only its answer is lost.
    after: bool = False


@dataclass
class ApiProxy:
    """Forwards to the API server whose kubeconfig it is given.

    Attributes:
        harm: Gives what to say instead, None to forward.
        watch_seconds: After how long a watch is cut.
        token: The only token that is let through; any when empty.
        asked: All requests, in the order in which they came.
        created: Those of them, as PATCH, that the API server answered with 201.
    """

    kubeconfig: Path
    harm: Callable[[Asked], Answer | None] = lambda asked: None
    watch_seconds: float = 0.0
    token: str = ""
    asked: list[Asked] = field(default_factory=list)
    created: list[Asked] = field(default_factory=list)
    url: str = ""
    watches_cut: int = 0
    tokens_refused: int = 0

    def write_kubeconfig(self, path: Path, token: str = "") -> Path:
        config = json.loads(self.kubeconfig.read_text())
        config["clusters"][0]["cluster"] = {"server": self.url}
        if token:
            config["users"][0]["user"] = {"token": token}
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(config))
        partial.replace(path)
        return path

    def permissions(self) -> set[tuple[str, str, str]]:
        """Group, resource and verb of all that was asked, but for discovery.

        A server-side apply that made its object, or tried to, used the right to `create` too.
        """
        asked = {(one.group, one.resource, one.verb) for one in self.asked if one.resource}
        return asked | {(one.group, one.resource, "create") for one in self.created}


def understood(method: str, target: str) -> Asked:
    parts = urlsplit(target)
    query = {key: values[0] for key, values in parse_qs(parts.query).items()}
    words = parts.path.strip("/").split("/")
    group = words[1] if words[0] == "apis" and len(words) > 1 else ""
    rest = words[3:] if words[0] == "apis" else words[2:]
    if rest[:1] == ["namespaces"] and len(rest) > 2:
        rest = rest[2:]
    if not rest:
        return Asked(method, "get", group, "", query)
    resource = "/".join([rest[0], *rest[2:3]])
    named = len(rest) > 1
    verb = {"PATCH": "patch", "POST": "create", "PUT": "update", "DELETE": "delete"}.get(method, "")
    if not verb:
        verb = "watch" if query.get("watch") == "true" else "get" if named else "list"
    return Asked(method, verb, group, resource, query)


@contextmanager
def serve_proxy(proxy: ApiProxy) -> Iterator[ApiProxy]:
    config = json.loads(proxy.kubeconfig.read_text())
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    http = urllib3.PoolManager(
        ca_certs=cluster["certificate-authority"], retries=False, maxsize=16, timeout=30.0
    )

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length) if length else None
            asked = understood(self.command, self.path)
            given = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
            if proxy.token and given != proxy.token:
                proxy.tokens_refused += 1
                self._say(Answer(401, "Unauthorized"))
                return
            proxy.asked.append(asked)
            harm = proxy.harm(asked)
            if harm and not harm.after:
                self._say(harm)
                return
            token = user["token"] if proxy.token else given
            headers = {"Authorization": f"Bearer {token}"}
            if kind := self.headers.get("Content-Type"):
                headers["Content-Type"] = kind
            try:
                answer = http.request(
                    self.command,
                    cluster["server"] + self.path,
                    body=body,
                    headers=headers,
                    preload_content=False,
                )
            except urllib3.exceptions.HTTPError:
                self._say(Answer(0))
                return
            if asked.verb == "patch" and answer.status == 201:
                proxy.created.append(asked)
            if harm:
                answer.read()
                answer.release_conn()
                self._say(harm)
            elif asked.verb == "watch" and answer.status == 200:
                self._stream(answer)
            else:
                self._forward(answer)

        do_GET = do_PATCH = do_POST = do_PUT = do_DELETE = handle_any  # noqa: N815

        def _forward(self, answer: Any) -> None:
            raw = answer.read()
            answer.release_conn()
            self.send_response(answer.status)
            for name in ("Content-Type", "Retry-After"):
                if name in answer.headers:
                    self.send_header(name, answer.headers[name])
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def _stream(self, answer: Any) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Connection", "close")
            self.end_headers()
            self.close_connection = True
            begun = time.monotonic()
            if proxy.watch_seconds:
                timer = threading.Timer(proxy.watch_seconds, self._cut, (answer,))
                timer.daemon = True
                timer.start()
            with suppress(OSError, urllib3.exceptions.HTTPError, ValueError, AttributeError):
                while piece := answer.read1(4096):
                    self.wfile.write(piece)
                    self.wfile.flush()
            if proxy.watch_seconds and time.monotonic() - begun >= proxy.watch_seconds:
                proxy.watches_cut += 1

        @staticmethod
        def _cut(answer: Any) -> None:
            with suppress(OSError, AttributeError):
                answer.shutdown() if hasattr(answer, "shutdown") else answer.close()

        def _say(self, answer: Answer) -> None:
            self.close_connection = True
            if not answer.status:
                return
            body = {
                "kind": "Status",
                "apiVersion": "v1",
                "status": "Failure",
                "code": answer.status,
                "reason": answer.reason,
                "message": f"the proxy says {answer.status}",
            }
            raw = json.dumps(body).encode()
            self.send_response(answer.status)
            for name, value in answer.headers:
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    proxy.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        http.clear()
