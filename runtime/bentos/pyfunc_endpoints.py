"""What a generated service answers, before any protocol: models, typed requests, and errors.

This file lies beside the service in every bento that kfp-bento generates.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import anyio.to_thread
from bentoml.exceptions import BentoMLException
from pydantic import BaseModel, ValidationError
from pyfunc_body import read_body  # type: ignore[import-not-found]
from pyfunc_enforcement import Direct  # type: ignore[import-not-found]
from pyfunc_guard import traced  # type: ignore[import-not-found]
from pyfunc_json import answer  # type: ignore[import-not-found]
from pyfunc_lean import Answer, Asked, Handler, encoded  # type: ignore[import-not-found]
from pyfunc_tracing import traced as with_spans  # type: ignore[import-not-found]
from pyfunc_workers import Batching, Desk, Workers  # type: ignore[import-not-found]
from starlette.exceptions import HTTPException

SMALL = 8 * 2**10
"""Bytes of a body, or values of an answer, that take less time than going to a thread and back."""

log = logging.getLogger("bentoml.kfp_bento")


class Served:
    """A model that is served.

    Attributes:
        name: Its name in paths.
        version: The version in BentoML's store: the start of the digest of its content.
        digest: The digest of its content.
        body: The class of the body of its own route.
        workers: The threads in which it works.
    """

    def __init__(
        self,
        tag: Any,
        digest: str,
        body: type[Any],
        loaded: Callable[[], Any],
        workers: Workers,
        batching: Batching,
    ) -> None:
        """Describes a model that may not be there yet.

        Args:
            tag: Its name in paths and its version.
            digest: The digest of its content.
            body: The class of the body of its own route.
            loaded: Gives the model, once it is loaded.
            workers: The threads in which it works.
            batching: How requests to it are put together.
        """
        self.name, self.version = tag
        self.digest, self.body, self.workers = digest, body, workers
        self._loaded, self._batching = loaded, batching

    @cached_property
    def model(self) -> Any:
        """The loaded model."""
        return self._loaded()

    @cached_property
    def asked_mlflows_way(self) -> Any:
        """The loaded model, with a span each time that it is asked, where spans are wanted."""
        return self._with_spans(self.model)

    @cached_property
    def desk(self) -> Desk:
        """Where it is asked."""
        return Desk(self._with_spans(Direct(self.model)), self.workers, self._batching)

    def _with_spans(self, model: Any) -> Any:
        return with_spans(model, name=self.name, version=self.version, digest=self.digest)

    async def read(self, raw: bytes) -> Any:
        """Gives a request in the form of the model's own route, checked.

        Raises:
            ValidationError: It does not fit.
        """
        if len(raw) <= SMALL:
            return read_body(self.body, raw)
        return await anyio.to_thread.run_sync(read_body, self.body, raw)

    async def asked(self, request: Any, ask: Callable[[Any, Any, Any], Any] = answer) -> Any:
        """Gives what the model answers to a request.

        Args:
            request: What `read` gave.
            ask: Asks a model with data and parameters, and makes something of what it says.
        """
        params: BaseModel | None = getattr(request, "params", None)

        def asking(model: Any, data: Any) -> Any:
            return ask(model, data, params)

        rows = _rows(request.inputs)
        return await self.desk.asked(request.model_input, rows, params, asking)


class Renamed:
    """A served model under another name."""

    def __init__(self, served: Served, name: str) -> None:
        self._served, self.name = served, name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._served, name)


def _rows(inputs: Any) -> int:
    """Gives how many rows the inputs have, as far as that is clear; else 0."""
    if isinstance(inputs, BaseModel):
        lengths = {_rows(getattr(inputs, name)) for name in type(inputs).model_fields}
        return lengths.pop() if len(lengths) == 1 else 0
    try:
        return 0 if isinstance(inputs, (str, bytes, dict)) else len(inputs)
    except TypeError:
        return 0


def predict(served: Served) -> Handler:
    """Gives what answers the model's own route: plain JSON in, plain JSON out."""

    async def handler(asked: Asked) -> Answer:
        found = await served.asked(await served.read(asked.body))
        return Answer(await as_json(found))

    return handled(handler)


async def as_json(value: Any) -> bytes:
    """Gives plain values as JSON, in a thread where they may be many."""
    if isinstance(value, list) and len(value) <= SMALL // 64 and not _nested(value):
        return json.dumps(value).encode()
    text: str = await anyio.to_thread.run_sync(encoded, value)
    return text.encode()


def _nested(value: list[Any]) -> bool:
    return bool(value) and isinstance(value[0], (list, dict)) and len(value[0]) > 64


# --- errors --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Problem:
    """Why a request was not answered.

    Attributes:
        status: The status.
        told: What is told.
        detail: Places and reasons, where fields do not fit.
        code: What a protocol calls it, if it does.
    """

    status: int
    told: str
    detail: tuple[dict[str, Any], ...] = ()
    code: str = ""

    @property
    def sentence(self) -> str:
        """What is told, in one sentence."""
        places = (f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in self.detail)
        return "; ".join([*places]) or self.told


class Refused(Exception):
    """A request that a protocol does not take; what is told quotes nothing of it."""

    def __init__(self, status: int, told: str, code: str = "") -> None:
        super().__init__(told)
        self.status, self.told, self.code = status, told, code


def problem_of(error: Exception) -> Problem:
    """Gives what may be told about an error, and logs what may be logged."""
    if isinstance(error, Refused):
        log.warning("Refused %d: %s", error.status, error.told)
        return Problem(error.status, error.told, code=error.code)
    if isinstance(error, ValidationError):
        found = error.errors(include_url=False, include_context=False, include_input=False)
        kinds = ", ".join(sorted({problem["type"] for problem in found}))
        log.warning("Refused 400: %d problems (%s)", len(found), kinds)
        told = f"{error.error_count()} validation error for {error.title}"
        return Problem(400, told, tuple(dict(problem) for problem in found))
    if isinstance(error, BentoMLException) and error.error_code.value < 500:
        log.warning("Refused %d: %s", error.error_code.value, type(error).__name__)
        return Problem(error.error_code.value, str(error))
    if isinstance(error, HTTPException) and error.status_code < 500:
        log.warning("Refused %d: %s", error.status_code, type(error).__name__)
        return Problem(error.status_code, error.detail)
    log.error("A model or the service failed\n%s", traced(error))
    told = "An unexpected error has occurred, please check the server log."
    return Problem(500, told)


def _plainly(problem: Problem) -> dict[str, Any]:
    detail = {"detail": problem.detail} if problem.detail else {}
    return {"error": problem.told, **detail}


def handled(
    handler: Handler, form: Callable[[Problem], dict[str, Any]] = _plainly
) -> Callable[[Asked], Awaitable[Answer]]:
    """Lets what goes wrong be an answer too.

    Args:
        handler: What answers.
        form: Gives a problem in the form of a protocol.
    """

    async def answering(asked: Asked) -> Answer:
        try:
            return await handler(asked)
        except Exception as error:
            problem = problem_of(error)
            return Answer(json.dumps(form(problem)).encode(), problem.status)

    return answering


def fixed(content: Any) -> Handler:
    """Gives what always answers the same."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()

    async def handler(_: Asked) -> Answer:
        return Answer(body)

    return handler
