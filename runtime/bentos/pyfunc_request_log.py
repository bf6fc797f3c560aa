"""The log of requests and answers: a line of JSON for each, or for a sample of them.

This file lies beside the service in every bento that kfp-bento generates. Nothing is logged unless
a variable says where to; `Settings` has the others. The answer waits for nothing: what was sent and
answered goes into a queue of bounded size, and a thread makes lines of it. What finds no room there
or cannot be written is dropped and counted (`kfp_bento_request_log_lines_total`).

A line holds no header, no query and no client. The fields that `KFP_BENTO_REQUEST_LOG_REDACT` names
are replaced. With it the body of a request that was refused is left out, since it may be anything.
"""

from __future__ import annotations

import json
import logging
import os
import random
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import anyio.to_thread
from bentoml._internal.container import BentoMLContainer
from bentoml._internal.context import server_context
from bentoml.exceptions import BentoMLConfigException
from opentelemetry import trace
from pyfunc_binary import LENGTH, OCTETS  # type: ignore[import-not-found]
from pyfunc_lean import Answer, Asked, Handler, Routes  # type: ignore[import-not-found]
from pyfunc_log_places import (  # type: ignore[import-not-found]
    STANDARD_OUTPUT,
    Bucket,
    File,
    Output,
    Place,
)
from pyfunc_redaction import Redaction, read_plain, read_table  # type: ignore[import-not-found]

NAME = "KFP_BENTO_REQUEST_LOG"
PAUSE = 0.5
MOST_WAITING = 16 * 2**20
MOST_AT_ONCE = 8 * 2**20
SECONDS_TO_END = 20.0
SECONDS_BETWEEN_COMPLAINTS = 60.0

KEYS = (
    *("inputs", "params", "instances", "dataframe_records", "dataframe_split", "parameters"),
    *("predictions", "outputs", "data", "index", "detail", "error", "message"),
)
"""What protocols have around the values of a model's fields."""

WRITTEN, DROPPED, FAILED = "written", "dropped", "failed"

log = logging.getLogger("bentoml.kfp_bento")


# --- settings ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    """What is logged, and where; the variables are `KFP_BENTO_REQUEST_LOG` and `..._<NAME>`.

    Attributes:
        place: `KFP_BENTO_REQUEST_LOG`: the path of a file, `stdout` or `s3://bucket/prefix`.
        rate: The share of requests that are logged, from 0 to 1. It is decided by the id of the
            trace, as OpenTelemetry's samplers do it: services with the same rate log the same ones.
        redact: The fields whose values are replaced: names with commas between, or a JSON list.
        max_bytes: Bytes of a body that is logged; of a larger one only the size is.
        file_bytes: How large a file becomes before it is put aside.
        files: How many of those are kept.
        seconds: How long lines are gathered for one object in a bucket.
    """

    place: str
    rate: float = 1.0
    redact: tuple[str, ...] = ()
    max_bytes: int = 64 * 2**10
    file_bytes: int = 64 * 2**20
    files: int = 4
    seconds: int = 60

    @classmethod
    def from_environment(cls) -> Settings | None:
        """Gives what holds here; None where nothing is logged.

        Raises:
            BentoMLConfigException: A variable cannot be, or there is none of its name.
        """
        prefix = f"{NAME}_"
        known = {f"{prefix}{name.upper()}": name for name in cls.__dataclass_fields__}
        given = {name: text.strip() for name, text in os.environ.items() if name.startswith(prefix)}
        for name in sorted(set(given) - set(known) | {f"{prefix}PLACE"} & set(given)):
            raise BentoMLConfigException(f"{name[:100]} is no variable of the log of requests.")
        place = os.environ.get(NAME, "").strip()
        values: dict[str, Any] = {
            known[name]: _READ.get(known[name], _whole_number)(name, text)
            for name, text in given.items()
            if text
        }
        return cls(place, **values) if place else None

    def open(self) -> Place:
        """Gives where lines are written.

        Raises:
            BentoMLConfigException: Nothing can be written there.
        """
        if self.place == STANDARD_OUTPUT:
            return Output()
        if self.place.startswith("s3://"):
            return Bucket(self.place, self.seconds)
        if not self.place.startswith("/"):
            raise BentoMLConfigException(
                f"{NAME} is no absolute path, s3://bucket/prefix or stdout."
            )
        return File(Path(self.place), self.file_bytes, self.files)


def _whole_number(name: str, text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,14}", text, re.ASCII):
        raise BentoMLConfigException(f"{name} is not a whole number above 0.")
    return int(text)


def _share(name: str, text: str) -> float:
    if not re.fullmatch(r"0|1|[01]?\.[0-9]{1,15}", text, re.ASCII) or float(text) > 1:
        raise BentoMLConfigException(f"{name} is no number from 0 to 1.")
    return float(text)


def _names(name: str, text: str) -> tuple[str, ...]:
    if not text.startswith("["):
        return tuple(filter(None, (part.strip() for part in text.split(","))))
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, list) or not all(isinstance(one, str) and one for one in found):
        raise BentoMLConfigException(f"{name} is no JSON list of names.")
    return tuple(found)


_READ: dict[str, Callable[[str, str], Any]] = {"rate": _share, "redact": _names}


# --- what is logged ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Exchange:
    """A request and its answer, as they came and went.

    Attributes:
        at: When it was asked, in seconds since 1970.
        path: The path.
        trace: The id of its trace.
        request: Its own id, as the answer tells it.
        seconds: How long it took.
        asked: What was asked.
        answer: What was answered; None where it took too long, or nobody waited for it.
    """

    at: float
    path: str
    trace: int
    request: int
    seconds: float
    asked: Asked
    answer: Answer | None

    @property
    def size(self) -> int:
        """Bytes of both bodies."""
        return len(self.asked.body) + (len(self.answer.body) if self.answer else 0)


class Writer:
    """Makes a line of an exchange."""

    def __init__(self, most_bytes: int, redaction: Redaction) -> None:
        self._most, self._redaction = most_bytes, redaction
        self._form = BentoMLContainer.logging_formatting.get()["span_id"]  # that of the answers

    def line(self, one: Exchange) -> bytes:
        """Gives the line."""
        at = datetime.fromtimestamp(one.at, timezone.utc)  # noqa: UP017 (Python 3.10)
        told: dict[str, Any] = {
            "time": at.isoformat(timespec="microseconds"),
            "bento": server_context.bento_name,
            "version": server_context.bento_version,
            "path": one.path,
            "trace_id": format(one.trace, "032x"),
            "request_id": format(one.request, self._form),
            "seconds": round(one.seconds, 6),
            "status": one.answer.status if one.answer else None,
        }
        told |= self._request(one)
        if one.answer is not None:
            told |= self._answer(one.answer)
        return json.dumps(told, separators=(",", ":")).encode() + b"\n"

    def _request(self, one: Exchange) -> dict[str, Any]:
        asked, refused = one.asked, one.answer is None or one.answer.status >= 400
        if refused and not self._redaction.is_empty:
            return {"request_bytes": len(asked.body), "request_left_out": "refused"}
        head = _head(asked.body, asked.media, dict(asked.headers))
        read = read_table if asked.media == b"text/csv" else read_plain
        redact = partial(self._redaction.request, of_tensors=one.path.endswith("/infer"))
        return self._body("request", head, read, redact) | {"request_bytes": len(asked.body)}

    def _answer(self, answer: Answer) -> dict[str, Any]:
        head = _head(answer.body, answer.media, dict(answer.headers))
        found = self._body("answer", head, read_plain, self._redaction.answer)
        return found | {"answer_bytes": len(answer.body)}

    def _body(
        self,
        name: str,
        raw: bytes,
        read: Callable[[bytes], Any],
        redact: Callable[[Any], Any],
    ) -> dict[str, Any]:
        if len(raw) > self._most:
            return {f"{name}_left_out": "large"}
        try:
            return {name: redact(read(raw))}
        except (ValueError, RecursionError):
            return {f"{name}_left_out": "unreadable"}


def _head(body: bytes, media: bytes, headers: dict[bytes, bytes]) -> bytes:
    """Gives a body without the bytes of tensors behind its JSON."""
    length = headers.get(LENGTH, b"") if media == OCTETS else b""
    return body[: int(length)] if length.isdigit() else body


# --- the log -------------------------------------------------------------------------------------


class RequestLog:
    """Takes exchanges without waiting, and writes them in a thread."""

    def __init__(self, settings: Settings, models: Callable[[], Sequence[Any]]) -> None:
        """Makes ready to log.

        Args:
            settings: What is logged, and where.
            models: Gives the models, once they are loaded.

        Raises:
            BentoMLConfigException: Nothing can be written there.
        """
        self._settings, self._models = settings, models
        self._place = settings.open()
        self._bound = int(settings.rate * 2**64)
        self._waiting: deque[Exchange] = deque()
        self._size, self._lock, self._over = 0, threading.Lock(), threading.Event()
        self._lines: list[bytes] = []
        self._length = 0
        self._since = self._complained = 0.0
        counter = BentoMLContainer.metrics_client.get().Counter(
            name="kfp_bento_request_log_lines_total",
            documentation="Lines of the log of requests, by what became of them",
            labelnames=["service_name", "service_version", "outcome"],
        )
        about = (server_context.bento_name, server_context.bento_version)
        self._counted = {
            outcome: counter.labels(*about, outcome) for outcome in (WRITTEN, DROPPED, FAILED)
        }
        self._thread = threading.Thread(target=self._work, name="request log", daemon=True)
        self._thread.start()

    def over(self, routes: Routes) -> Routes:
        """Gives the same routes; what goes through those that ask a model is logged."""
        return {
            (method, path): self._logged(path, handler) if method == "POST" else handler
            for (method, path), handler in routes.items()
        }

    def _logged(self, path: str, handler: Handler) -> Handler:
        async def answering(asked: Asked) -> Answer:
            own = trace.get_current_span().get_span_context()
            # BentoML has none for paths that its own settings leave out.
            trace_id = own.trace_id or random.getrandbits(128)
            if trace_id & (2**64 - 1) >= self._bound:
                return await handler(asked)
            span_id = own.span_id or random.getrandbits(64)
            at, start, answer = time.time(), time.perf_counter(), None
            try:
                answer = await handler(asked)
                return answer
            finally:
                taken = time.perf_counter() - start
                self.add(Exchange(at, path, trace_id, span_id, taken, asked, answer))

        return answering

    def add(self, exchange: Exchange) -> None:
        """Takes an exchange, or drops it where too much waits."""
        with self._lock:
            fits = self._size + exchange.size <= MOST_WAITING and not self._over.is_set()
            if fits:
                self._size += exchange.size
                self._waiting.append(exchange)
        if not fits:
            self._counted[DROPPED].inc()

    async def end(self) -> None:
        """Writes what waits; afterwards everything is dropped."""
        self._over.set()
        await anyio.to_thread.run_sync(self._thread.join, SECONDS_TO_END)

    def _work(self) -> None:
        writer: Writer | None = None
        while True:
            over = self._over.wait(PAUSE)
            while (exchange := self._next()) is not None:
                writer = writer or self._writer()
                self._take(writer, exchange)
                time.sleep(0)  # whoever answers requests goes first
            if self._lines and (over or time.monotonic() - self._since >= self._place.seconds):
                self._write()
            if over:
                return

    def _next(self) -> Exchange | None:
        with self._lock:
            return self._waiting.popleft() if self._waiting else None

    def _writer(self) -> Writer:
        redact = self._settings.redact
        models = self._models() if redact else ()
        for field in sorted(unknown_fields(redact, models)):
            log.warning("%s_REDACT: no signature has a field %s", NAME, ascii(field)[:100])
        return Writer(self._settings.max_bytes, Redaction(redact, input_names(models)))

    def _take(self, writer: Writer, exchange: Exchange) -> None:
        if not self._lines:
            self._since = time.monotonic()
        try:
            line = writer.line(exchange)
        except Exception as error:
            self._counted[FAILED].inc()
            self._complain("A line of the log of requests cannot be made", error)
        else:
            self._lines.append(line)
            self._length += len(line)
        with self._lock:
            self._size -= exchange.size
        if self._length > MOST_AT_ONCE:
            self._write()

    def _write(self) -> None:
        lines, self._lines, self._length = self._lines, [], 0
        try:
            self._place.write(lines)
        except Exception as error:
            self._counted[FAILED].inc(len(lines))
            self._complain("The log of requests cannot be written", error)
        else:
            self._counted[WRITTEN].inc(len(lines))

    def _complain(self, told: str, error: Exception) -> None:
        now = time.monotonic()
        if not self._complained or now - self._complained > SECONDS_BETWEEN_COMPLAINTS:
            self._complained = now
            log.error("%s: %s", told, _reason(error))


def _reason(error: Exception) -> str:
    """Gives why something cannot be written: an error of the system, a code of S3, or its kind."""
    told = getattr(error, "response", {}).get("Error", {}).get("Code")
    return str(told or getattr(error, "strerror", "") or type(error).__name__)


def input_names(models: Sequence[Any]) -> frozenset[str]:
    """Gives the names of the inputs of some models; those without names have none."""
    schemas = [model.metadata.get_input_schema() for model in models]
    named = [schema for schema in schemas if schema is not None and schema.has_input_names()]
    return frozenset(str(name) for schema in named for name in schema.input_names())


def unknown_fields(fields: Collection[str], models: Sequence[Any]) -> set[str]:
    """Gives the fields that stand in no signature, where every model has one."""
    signatures = [model.metadata.signature for model in models]
    if not signatures or None in signatures:
        return set()
    found = set(KEYS)
    for signature in signatures:
        for text in filter(None, signature.to_dict().values()):
            left = [json.loads(text)]
            while left:
                item = left.pop()
                if isinstance(item, dict):
                    found |= set(item)
                    left += item.values()
                elif isinstance(item, list):
                    left += item
                else:
                    found.add(str(item))
    return set(fields) - found
