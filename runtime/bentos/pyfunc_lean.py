"""What BentoML does around a request, in a small part of the time.

This file lies beside the service in every bento that kfp-bento generates. BentoML sends a request
through eight middlewares, which takes longer than most models need for a row. `Lean` does what they
do (metrics under their names, access log, request id, timeout, most requests at once) with what
they have been configured with, and the span of a trace where traces are exported. Where they do
more, since other origins are let in, or this is another BentoML than it knows, it leaves the
request to them.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from random import getrandbits
from timeit import default_timer
from typing import Any

import anyio
from bentoml._internal.container import BentoMLContainer
from bentoml._internal.context import server_context, trace_context
from opentelemetry import propagate, trace
from pyfunc_guard import Request  # type: ignore[import-not-found]
from pyfunc_tracing import excluded, note_status, request_span, tracer  # type: ignore[import-not-found]
from starlette.applications import Starlette

log = logging.getLogger("bentoml.kfp_bento")

KNOWN = {
    *("ServerErrorMiddleware", "RunnerTrafficMetricsMiddleware", "OpenTelemetryMiddleware"),
    *("AccessLogMiddleware", "TimeoutMiddleware", "MaxConcurrencyMiddleware", "ContextMiddleware"),
    "ExceptionMiddleware",
}


@dataclass(frozen=True)
class Asked:
    """A request as those see it who answer it.

    Attributes:
        body: Its body.
        media: The media type of it.
        headers: Its headers by lower-case name.
    """

    body: bytes
    media: bytes = b"application/json"
    headers: Mapping[bytes, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """An answer.

    Attributes:
        body: Its body.
        status: Its status.
        media: The media type of it.
        headers: More headers.
    """

    body: bytes
    status: int = 200
    media: bytes = b"application/json"
    headers: tuple[tuple[bytes, bytes], ...] = ()


Handler = Callable[[Asked], Awaitable[Answer]]
Routes = Mapping[tuple[str, str], Handler]
"""What answers, by method and path."""


def encoded(value: Any) -> str:
    """Gives plain values as JSON; piece by piece, so that other threads get their turn."""
    if isinstance(value, dict):
        pairs = (f"{json.dumps(key)}: {encoded(item)}" for key, item in value.items())
        return "{" + ", ".join(pairs) + "}"
    if not isinstance(value, list) or not value:
        return json.dumps(value)
    if len(value) < 1000:
        return "[" + ", ".join(map(encoded, value)) + "]"
    parts = (json.dumps(value[start : start + 1000])[1:-1] for start in range(0, len(value), 1000))
    return "[" + ", ".join(parts) + "]"


class Lean:
    """Answers requests to some paths as BentoML would, and leaves the others to it."""

    def __init__(self, app: Starlette, routes: Routes, name: str) -> None:
        """Stands beside BentoML's application.

        Args:
            app: The application.
            routes: What is answered here.
            name: The name of the service.
        """
        self._app, self._routes = app, routes
        self._server = f"BentoML Service/{name}".encode("latin-1", "replace")
        self._surroundings: Surroundings | None = None
        self._looked = False

    async def __call__(self, request: Request) -> bool:
        """Answers a request, or says that it is left to BentoML."""
        handler = self._routes.get((request.method, request.path))
        around = self._around() if handler is not None else None
        if handler is None or around is None:
            return False
        start = default_timer()
        asked = Asked(request.body or b"", request.media, request.headers)
        with around.counted(request.path) as done, around.identified(request) as identity:
            answer = await around.answered(handler, asked)
            note_status(answer.status)
            length = str(len(answer.body)).encode()
            head = [
                (b"content-length", length),
                (b"content-type", answer.media),
                (b"server", self._server),
                *answer.headers,
                *identity,
            ]
            start_message = {"type": "http.response.start", "status": answer.status}
            await request.send({**start_message, "headers": head})
            await request.send({"type": "http.response.body", "body": answer.body})
            taken = max(default_timer() - start, 0)
            done(answer.status, taken)
            around.log_access(request, answer, length, taken)
        return True

    def _around(self) -> Surroundings | None:
        if not self._looked:
            self._looked = True
            try:
                self._surroundings = Surroundings.of(self._app)
            except AttributeError as error:
                log.warning("BentoML's own, slower way is taken: %s", error)
        return self._surroundings


class Surroundings:
    """What BentoML's middlewares have been configured with."""

    def __init__(self, found: Mapping[str, Any]) -> None:
        """Takes it out of the middlewares, by the names of their classes.

        Raises:
            AttributeError: They are not as this module knows them.
        """
        metrics = found.get("RunnerTrafficMetricsMiddleware")
        if metrics is not None and not metrics._is_setup:
            metrics._setup()
        self._metrics = None if metrics is None else Metrics(metrics)
        self._access = found.get("AccessLogMiddleware")
        if self._access is not None:
            self._skipped = tuple(self._access.skip_paths)
            self._logger: logging.Logger = self._access.logger
        timeout, most = found.get("TimeoutMiddleware"), found.get("MaxConcurrencyMiddleware")
        self._timeout = None if timeout is None else timeout.timeout
        self._turns = None if most is None else most._semaphore
        self._tells_trace = bool(BentoMLContainer.http.response.trace_id.get())
        self._formats = BentoMLContainer.logging_formatting.get()
        self._tracer = tracer()

    @classmethod
    def of(cls, app: Starlette) -> Surroundings | None:
        """Gives what is around an application; None where that cannot be done here."""
        if excluded():
            return None
        found: dict[str, Any] = {}
        layer: Any = app.middleware_stack
        while type(layer).__name__.endswith("Middleware"):
            found[type(layer).__name__] = layer
            layer = layer.app
        return None if set(found) - KNOWN or layer is not app.router else cls(found)

    def counted(self, path: str) -> contextlib.AbstractContextManager[Callable[[int, float], None]]:
        """Counts a request at a path; gives what its status and seconds are told to."""
        if self._metrics is None:
            return contextlib.nullcontext(lambda _status, _seconds: None)
        return self._metrics.counted(path)

    @contextlib.contextmanager
    def identified(self, request: Request) -> Iterator[list[tuple[bytes, bytes]]]:
        """Gives a request its ids, in the log too; and the headers that tell them."""
        with self._span(request) as span:
            own = span.get_span_context()
            trace_context.request_id = own.span_id
            number = format(own.span_id, self._formats["span_id"]).encode()
            told = [(b"x-bentoml-request-id", number)]
            if self._tells_trace:
                whole = format(own.trace_id, self._formats["trace_id"]).encode()
                told.append((b"x-bentoml-trace-id", whole))
            yield told

    def _span(self, request: Request) -> contextlib.AbstractContextManager[trace.Span]:
        headers = request.headers
        if self._tracer is not None and request.method == "POST":
            span: contextlib.AbstractContextManager[trace.Span]
            span = request_span(self._tracer, request.path, headers)
            return span
        parent = trace.INVALID_SPAN_CONTEXT
        if b"traceparent" in headers:
            carrier = {k.decode("latin-1"): v.decode("latin-1") for k, v in headers.items()}
            parent = trace.get_current_span(propagate.extract(carrier)).get_span_context()
        own = trace.SpanContext(
            parent.trace_id or getrandbits(128) or 1,
            getrandbits(64) or 1,
            is_remote=False,
            trace_flags=parent.trace_flags,
        )
        return trace.use_span(trace.NonRecordingSpan(own))

    async def answered(self, handler: Handler, asked: Asked) -> Answer:
        """Lets a request be answered, in time and not too many at once."""
        if self._turns is None:
            return await self._in_time(handler, asked)
        if self._turns.locked():
            return Answer(b'{"error":"Too many requests"}', 429)
        async with self._turns:
            return await self._in_time(handler, asked)

    async def _in_time(self, handler: Handler, asked: Asked) -> Answer:
        if not self._timeout:
            return await handler(asked)
        with anyio.move_on_after(self._timeout):
            return await handler(asked)
        told = f'{{"error":"Not able to process the request in {self._timeout} seconds"}}'
        return Answer(told.encode(), 504)

    def log_access(self, request: Request, answer: Answer, length: bytes, seconds: float) -> None:
        """Writes the line of the access log."""
        access = self._access
        if access is None or request.path.startswith(self._skipped):
            return
        scope = request.scope
        client = scope.get("client")
        asked = [f"scheme={scope['scheme']}", f"method={request.method}", f"path={request.path}"]
        told = [f"status={answer.status}"]
        if access.has_request_content_type:
            given = request.media if b"content-type" in request.headers else b""
            asked.append(f"type={given.decode('latin-1')}")
        if access.has_request_content_length:
            given = request.headers.get(b"content-length", b"")
            asked.append(f"length={given.decode('latin-1')}")
        if access.has_response_content_type:
            told.append(f"type={answer.media.decode()}")
        if access.has_response_content_length:
            told.append(f"length={length.decode()}")
        address = f"{client[0]}:{client[1]}" if client else "_"
        line = "%s (%s) (%s) %.3fms"
        self._logger.info(line, address, ",".join(asked), ",".join(told), seconds * 1000)


class Metrics:
    """BentoML's metrics of requests; what belongs to a path is looked up once."""

    def __init__(self, middleware: Any) -> None:
        self._about = {
            "service_name": server_context.bento_name,
            "service_version": server_context.bento_version,
            "runner_name": server_context.service_name,
        }
        self._last = middleware.metrics_last_request_timestamp.labels(**self._about)
        self._in_progress = middleware.metrics_request_in_progress
        self._total = middleware.metrics_request_total
        self._duration = middleware.metrics_request_duration
        self._of_path: dict[str, Any] = {}
        self._of_answer: dict[tuple[str, int], tuple[Any, Any]] = {}

    @contextlib.contextmanager
    def counted(self, path: str) -> Iterator[Callable[[int, float], None]]:
        """Counts a request; gives what its status and seconds are told to."""
        self._last.set_to_current_time()
        gauge = self._of_path.get(path)
        if gauge is None:
            gauge = self._in_progress.labels(endpoint=path, **self._about)
            self._of_path[path] = gauge
        gauge.inc()
        try:
            yield lambda status, seconds: self._count(path, status, seconds)
        finally:
            gauge.dec()

    def _count(self, path: str, status: int, seconds: float) -> None:
        found = self._of_answer.get((path, status))
        if found is None:
            about = {**self._about, "endpoint": path, "http_response_code": status}
            found = (self._total.labels(**about), self._duration.labels(**about))
            self._of_answer[path, status] = found
        total, duration = found
        total.inc()
        duration.observe(seconds)
