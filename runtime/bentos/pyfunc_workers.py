"""Where models work: a bounded number of threads, and requests that are put together.

This file lies beside the service in every bento that kfp-bento generates. A model is asked in as
many threads as BentoML's setting `threads` says. Where a service was built with `max_batch_size`,
requests that wait for the model are put together, as many rows as that, asked in one call, and the
answer is split again. A request alone does not wait, unless `max_latency_ms` says how long it may
wait for others.

Only what is alike is put together: the same parameters, columns and types, so that nobody's values
change through their neighbours. Where a call for several fails, or its answer cannot be split, each
is asked alone: a request never gets another one's error.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import bentoml
from opentelemetry.context import Context, attach, detach, get_current
from pyfunc_tracing import ask_together  # type: ignore[import-not-found]

with bentoml.importing():
    import numpy as np
    import pandas as pd

Ask = Callable[[Any, Any], Any]
"""What asks a model, or what stands for it, with some data, and makes something of its answer."""


@dataclass(frozen=True)
class Batching:
    """How requests are put together.

    Attributes:
        max_batch_size: Rows of one call, at most; 0 is not at all.
        max_latency_ms: How long a request waits for others, at most.
    """

    max_batch_size: int = 0
    max_latency_ms: int = 0


class Workers:
    """The threads in which models work."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="model")

    async def run(self, work: Callable[..., Any], *given: Any) -> Any:
        """Does some work in one of the threads, in order of arrival."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, contextvars.copy_context().run, work, *given)


@dataclass(eq=False)
class _Job:
    make: Callable[[], Any]
    ask: Ask
    rows: int
    params: str
    answer: asyncio.Future[Any] = field(repr=False)
    data: Any = None
    caller: Context = field(default_factory=get_current)


class Desk:
    """Takes what a model is asked, alone or put together."""

    def __init__(self, model: Any, workers: Workers, batching: Batching) -> None:
        """Stands before a model.

        Args:
            model: What has `predict`.
            workers: The threads.
            batching: How requests are put together.
        """
        self._model, self._workers, self._batching = model, workers, batching
        self._waiting: deque[_Job] = deque()
        self._free = workers.threads
        self._more = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def asked(self, make: Callable[[], Any], rows: int, params: Any, ask: Ask) -> Any:
        """Gives what `ask` makes of the model, which may be asked together with others.

        Args:
            make: Gives the data.
            rows: How many rows the data has; 0 where that is not known.
            params: Parameters, anything with a `repr` that tells them apart.
            ask: Asks the model.
        """
        if not 0 < rows < self._batching.max_batch_size:
            return await self._workers.run(_asked_once, self._model, make, ask)
        loop = asyncio.get_running_loop()
        job = _Job(make, ask, rows, repr(params), loop.create_future())
        self._waiting.append(job)
        self._more.set()
        if self._free:
            self._free -= 1
            task = loop.create_task(self._work())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await job.answer

    async def _work(self) -> None:
        """Asks the model as long as somebody waits."""
        try:
            if self._batching.max_latency_ms:
                await self._gather()
            while jobs := self._taken():
                try:
                    answers = await self._workers.run(_asked_together, self._model, jobs)
                except BaseException as failure:
                    answers = [(None, failure)] * len(jobs)
                for job, (value, error) in zip(jobs, answers, strict=True):
                    _settle(job, value, error)
        finally:
            self._free += 1

    async def _gather(self) -> None:
        """Waits for more rows, but not too long."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self._batching.max_latency_ms / 1000
        while sum(job.rows for job in self._waiting) < self._batching.max_batch_size:
            self._more.clear()
            try:
                await asyncio.wait_for(self._more.wait(), max(0.0, end - loop.time()))
            except asyncio.TimeoutError:  # noqa: UP041 (Python 3.10)
                return

    def _taken(self) -> list[_Job]:
        """Takes those that wait, in order, as many rows as go together."""
        taken: list[_Job] = []
        rows = 0
        while self._waiting:
            job = self._waiting[0]
            if taken and rows + job.rows > self._batching.max_batch_size:
                break
            self._waiting.popleft()
            if not job.answer.done():  # else whoever asked is gone
                taken.append(job)
                rows += job.rows
        return taken


def _settle(job: _Job, value: Any, error: BaseException | None) -> None:
    if job.answer.done():
        return
    if error is not None:
        job.answer.set_exception(error)
    else:
        job.answer.set_result(value)


def _asked_once(model: Any, make: Callable[[], Any], ask: Ask) -> Any:
    return ask(model, make())


def _asked_together(model: Any, jobs: Sequence[_Job]) -> list[tuple[Any, BaseException | None]]:
    """Gives for each job what it makes of the model, or its error."""
    answers: dict[int, tuple[Any, BaseException | None]] = {}
    alike: dict[Hashable, list[_Job]] = {}
    for job in jobs:
        try:
            job.data = job.make()
            whole = rows_of(job.data) == job.rows
            key = (job.params, likeness(job.data)) if whole else id(job)
        except Exception as error:
            answers[id(job)] = (None, error)
        else:
            alike.setdefault(key, []).append(job)
    for group in alike.values():
        answers.update(zip(map(id, group), _answers_of(model, group), strict=True))
    return [answers[id(job)] for job in jobs]


def _answers_of(model: Any, jobs: Sequence[_Job]) -> list[tuple[Any, BaseException | None]]:
    """Gives the answers to jobs that are alike."""
    if len(jobs) > 1:
        shared = _Shared(model, jobs)
        with contextlib.suppress(Exception):  # whose it is, each alone will tell
            return [(job.ask(shared, job.data), None) for job in jobs]
    return [_answer_alone(model, job) for job in jobs]


def _answer_alone(model: Any, job: _Job) -> tuple[Any, BaseException | None]:
    token = attach(job.caller)
    try:
        return job.ask(model, job.data), None
    except Exception as error:
        return None, error
    finally:
        detach(token)


class _Shared:
    """Stands for the model: the first who asks asks for all, the others get their parts."""

    def __init__(self, model: Any, jobs: Sequence[_Job]) -> None:
        self._model, self._jobs = model, jobs
        self._parts: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def predict(self, data: Any, *args: Any, **kwargs: Any) -> Any:
        """Gives the next part of the answer."""
        if data is self._jobs[0].data:
            whole = together([job.data for job in self._jobs])
            callers = [(job.caller, job.rows) for job in self._jobs]
            answer = ask_together(self._model, callers, whole, *args, **kwargs)
            self._parts = apart(answer, [job.rows for job in self._jobs])[::-1]
        return self._parts.pop()


# --- rows ----------------------------------------------------------------------------------------


def rows_of(data: Any) -> int | None:
    """Gives the number of rows; None where `data` cannot be put together with others."""
    if isinstance(data, (pd.DataFrame, list)):
        return len(data)
    if isinstance(data, np.ndarray):
        return len(data) if data.ndim else None
    if isinstance(data, dict) and data:
        lengths = {
            rows_of(value) if isinstance(value, np.ndarray) else None for value in data.values()
        }
        return lengths.pop() if len(lengths) == 1 else None
    return None


def likeness(data: Any) -> Hashable:
    """Gives what has to be equal for two inputs to be put together."""
    if isinstance(data, pd.DataFrame):
        return (tuple(data.columns), tuple(data.dtypes), *map(_kinds, _objects(data)))
    if isinstance(data, np.ndarray):
        return ("U" if data.dtype.kind == "U" else data.dtype, data.shape[1:])
    if isinstance(data, dict):
        return tuple((name, likeness(value)) for name, value in data.items())
    return _kinds(data)


def _objects(data: pd.DataFrame) -> list[Any]:
    return [column for _, column in data.items() if column.dtype == object]


def _kinds(values: Any) -> frozenset[type]:
    """A column of objects is told from another by what is in it: pandas may look at it."""
    return frozenset(map(type, values))


def together(inputs: Sequence[Any]) -> Any:
    """Gives inputs that are alike as one."""
    first = inputs[0]
    if isinstance(first, pd.DataFrame):
        return pd.concat(inputs, ignore_index=True)
    if isinstance(first, np.ndarray):
        return np.concatenate(inputs)
    if isinstance(first, dict):
        return {name: np.concatenate([one[name] for one in inputs]) for name in first}
    return [row for one in inputs for row in one]


def apart(answer: Any, rows: Sequence[int]) -> list[Any]:
    """Gives the parts of an answer that belong to inputs of so many rows each.

    Raises:
        ValueError: It has not one value for each row.
    """
    if isinstance(answer, dict):
        columns = {name: apart(values, rows) for name, values in answer.items()}
        return [{name: parts[n] for name, parts in columns.items()} for n in range(len(rows))]
    sliced = isinstance(answer, (pd.DataFrame, pd.Series, np.ndarray, list, tuple))
    if not sliced or len(answer) != sum(rows):
        raise ValueError("the answer has not one value for each row")
    parts, start = [], 0
    for number in rows:
        parts.append(_slice(answer, start, start + number))
        start += number
    return parts


def _slice(answer: Any, start: int, end: int) -> Any:
    if isinstance(answer, (pd.DataFrame, pd.Series)):
        part = answer.iloc[start:end]
        if isinstance(answer.index, pd.RangeIndex):
            part = part.reset_index(drop=True)
        return part
    return answer[start:end]
