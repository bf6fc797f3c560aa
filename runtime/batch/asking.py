"""Batches of rows asked of a started bento; what is refused is found row by row."""

from __future__ import annotations

import contextlib
import json
import queue
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from kfp_bento.runtime.batch.cells import (
    arrow_to_json,
    object_lines,
    text_to_json,
)
from kfp_bento.runtime.batch.options import FAIL
from kfp_bento.runtime.batch.routes import JSON, Field, Route
from kfp_bento.runtime.batch.tensors import answer_in_tensors, asked_in_tensors
from kfp_bento.runtime.errors import BatchError
from kfp_bento.runtime.files import parse_json_value
from kfp_bento.runtime.programs import cleaned
from kfp_bento.runtime.proof import started

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

    from kfp_bento.runtime.batch.tables import Rows
    from kfp_bento.runtime.bentos import Bento
    from kfp_bento.runtime.http import HttpAnswer

PREDICTION = "prediction"
_LONGEST_REASON = 300
_REFUSED = (400, 422)
_TOO_LARGE = 413
_FAILED = 500
_NOT_SPOKEN = (404, 415)
_LIMITS = {
    # They guard a service that strangers ask; here nobody else does.
    **{"KFP_BENTO_MAX_BODY_BYTES": str(1 << 30), "KFP_BENTO_MAX_VALUES": str(10**9)},
    **{"KFP_BENTO_MAX_ROWS": str(10**7), "KFP_BENTO_MAX_SECONDS": "3600"},
}


@dataclass(frozen=True)
class Question:
    """How rows are asked about.

    Attributes:
        route: The API.
        form: The format of the table, which says how its cells are read.
        columns: The columns that the model gets, each with its kind.
        params: What goes with each request.
        on_error: See `BatchOptions`.
    """

    route: Route
    form: str
    columns: tuple[Field, ...]
    params: Mapping[str, Any]
    on_error: str


@dataclass
class Answered:
    """What a bento answers to a batch.

    Attributes:
        count: How many rows it has.
        columns: The answers by column, one for each row: a list of JSON's values, None where there
            is none, or a column of numbers.
        errors: Why rows have no answer, by their place.
    """

    count: int
    columns: dict[str, list[Any] | pa.Array] = field(default_factory=dict)
    errors: dict[int, str] = field(default_factory=dict)

    def put(self, places: Sequence[int], found: Mapping[str, list[Any] | pa.Array]) -> None:
        """Take the answers for the rows at some places."""
        if len(places) == self.count:
            self.columns.update(found)
            return
        for name, values in found.items():
            column = self.columns.setdefault(name, [None] * self.count)
            for place, value in zip(places, values, strict=True):
                column[place] = value


class Asked(Protocol):
    """What takes requests: a process of a bento, or a service at an address."""

    def post(self, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> HttpAnswer:
        """Send JSON to a path, or what the headers say that it is."""


class Services:
    """Several processes of one bento, each asked by one thread at a time.

    Attributes:
        count: How many.
        take_tensors: Whether they take rows in bytes, as far as is known.
    """

    take_tensors = True

    def __init__(self, served: Sequence[Asked]) -> None:
        self._free: queue.SimpleQueue[Asked] = queue.SimpleQueue()
        for one in served:
            self._free.put(one)
        self.count = len(served)

    def post(self, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> HttpAnswer:
        """Ask whichever is free."""
        served = self._free.get()
        try:
            return served.post(path, body, headers)
        finally:
            self._free.put(served)

    def in_order(
        self, question: Question, batches: Iterator[Rows]
    ) -> Generator[tuple[Rows, Answered], None, None]:
        """Ask about batches, some at a time, and give them with their answers in order.

        Raises:
            BatchError: A row is refused and `on_error` is "fail", or the bento fails.
        """
        waiting = []
        with ThreadPoolExecutor(self.count) as pool:
            try:
                for rows in batches:
                    waiting.append((rows, pool.submit(ask, self, question, rows)))
                    if len(waiting) > 2 * self.count:
                        first, answer = waiting.pop(0)
                        yield first, answer.result()
                while waiting:
                    first, answer = waiting.pop(0)
                    yield first, answer.result()
            finally:
                for _, left in waiting:
                    left.cancel()


@contextlib.contextmanager
def services(bento: Bento, environment: Path, scratch: Path, count: int) -> Iterator[Services]:
    """Start a bento several times for the length of a block, without network and credentials.

    Args:
        bento: The bento.
        environment: See `locked_environment`.
        scratch: A directory of ours.
        count: How many processes.

    Raises:
        BentoError: It does not start.
    """
    with contextlib.ExitStack() as stack:
        found = []
        for number in range(count):
            folder = scratch / f"service-{number}"
            folder.mkdir()
            found.append(stack.enter_context(started(bento, environment, folder, **_LIMITS)))
        for one in found:
            one.wait()
        yield Services(found)


def ask(services: Services, question: Question, rows: Rows) -> Answered:
    """Ask about a batch.

    Raises:
        BatchError: A row is refused and `on_error` is "fail", or the bento fails.
        BentoError: The bento gives no answer.
    """
    whole = _asked_in_tensors(services, question, rows) if services.take_tensors else None
    if whole is not None:
        return whole
    cells, errors = json_cells(question, rows)
    if errors and question.on_error == FAIL:
        place = min(errors)
        raise _refused(rows, place, errors[place])
    answered = Answered(rows.count, errors=dict(errors))
    places = [place for place in range(rows.count) if place not in errors]
    size = 1 if question.route.form == "single" else max(1, len(places))
    for start in range(0, len(places), size):
        _ask_some(services, question, rows, cells, places[start : start + size], answered)
    return answered


def _asked_in_tensors(services: Services, question: Question, rows: Rows) -> Answered | None:
    """Ask about a batch in bytes; None where it has to be asked in JSON."""
    message = asked_in_tensors(question, rows)
    if message is None:
        return None
    answer = services.post(question.route.infer, message.body, message.headers)
    if answer.status in _NOT_SPOKEN:  # it was built without this protocol, or before it took bytes
        services.take_tensors = False
    if answer.status != 200:
        return None
    answered = Answered(rows.count)
    try:
        value = answer_in_tensors(answer)
    except (ValueError, LookupError, TypeError, AttributeError) as failure:
        raise BatchError(
            f"The bento answers with tensors that cannot be read ({failure}).",
            hint="Build it again with --protocol mlflow --protocol v1; then it is asked in JSON.",
        ) from failure
    answered.put(range(rows.count), rows_of(value, rows.count, question))
    return answered


def json_cells(question: Question, rows: Rows) -> tuple[dict[str, pa.Array], dict[int, str]]:
    """Give the cells that the model gets as JSON, and what is wrong with rows by their place."""
    import pyarrow as pa

    cells, errors = dict[str, pa.Array](), dict[int, str]()
    for column in question.columns:
        given = rows.columns.get(column.name)
        if given is None:  # of JSONL: no row here has it
            cells[column.name] = pa.nulls(rows.count, pa.string())
            continue
        made, wrong = _json_of(question.form, given, column.kind)
        for place in wrong:
            kind = "JSON" if column.kind == JSON else column.kind
            errors.setdefault(place, f"{column.name}: no {kind} that JSON can hold")
        leave_out = question.route.own and not column.required
        cells[column.name] = made if leave_out or question.form == "jsonl" else _nulls(made)
    return cells, errors


def _json_of(form: str, given: pa.Array, kind: str) -> tuple[pa.Array, list[int]]:
    if form == "jsonl":
        return given, []
    return (text_to_json if form == "csv" else arrow_to_json)(given, kind)


def _nulls(cells: pa.Array) -> pa.Array:
    import pyarrow.compute as pc

    return pc.fill_null(cells, "null") if cells.null_count else cells


def _ask_some(
    services: Services,
    question: Question,
    rows: Rows,
    cells: Mapping[str, pa.Array],
    places: Sequence[int],
    answered: Answered,
) -> None:
    """Ask about rows at some places; halve them until what is refused is one row."""
    answer = services.post(question.route.path, body_of(question, cells, places, rows.count))
    if answer.status == 200:
        answered.put(places, rows_of(_parsed(answer), len(places), question))
        return
    refused = answer.status in _REFUSED or (answer.status == _FAILED and question.route.own)
    if not refused and answer.status != _TOO_LARGE:
        raise BatchError(
            f"The bento fails at rows {rows.start + places[0] + 1} to "
            f"{rows.start + places[-1] + 1}: {answer.shown()}.",
            hint="Look whether it needs what it has not here (network, memory). Where it takes too "
            "long, give fewer rows to a request with batch_rows. What was finished stays.",
        )
    if len(places) > 1:
        half = (len(places) + 1) // 2
        for part in (places[:half], places[half:]):
            _ask_some(services, question, rows, cells, part, answered)
        return
    reason = reason_of(answer)
    if question.on_error == FAIL:
        raise _refused(rows, places[0], reason)
    answered.errors[places[0]] = reason


def _refused(rows: Rows, place: int, reason: str) -> BatchError:
    return BatchError(
        f"Row {rows.start + place + 1} is refused: {reason}.",
        hint="Mend the row, or set on_error to row: then it gets an error instead of an answer.",
    )


def reason_of(answer: HttpAnswer) -> str:
    """Give why one row was refused, without its place in a request."""
    try:
        told = parse_json_value(answer.body)
        found = told.get("detail") or told.get("error") if isinstance(told, dict) else told
        if isinstance(found, list):
            found = "; ".join(
                f"{'.'.join(str(part) for part in one['loc'] if part not in ('inputs', 0))}: "
                f"{one['msg']}".removeprefix(": ")
                for one in found
            )
        text = str(found).replace("inputs.0.", "")
    except (ValueError, KeyError, TypeError):
        text = answer.shown()
    return " ".join(cleaned(text).split())[:_LONGEST_REASON].rstrip(".")


def body_of(
    question: Question, cells: Mapping[str, pa.Array], places: Sequence[int], count: int
) -> bytes:
    """Give the body that asks about the rows at some places."""
    import pyarrow as pa

    if len(places) < count:
        at = pa.array(places, pa.int64())
        cells = {name: column.take(at) for name, column in cells.items()}
    route = question.route
    if route.form == "single":
        inner = object_lines(cells, len(places))[0]
    elif route.form == "records":
        inner = f"[{','.join(object_lines(cells, len(places)))}]"
    elif route.form == "tensors":
        lists = (f"{json.dumps(name)}:[{_listed(column)}]" for name, column in cells.items())
        inner = f"{{{','.join(lists)}}}"
    else:
        inner = f"[{','.join(_vectors(list(cells.values())))}]"
    return _with_params(route.key, inner, question.params).encode()


def _with_params(key: str, inner: str, params: Mapping[str, Any]) -> str:
    more = "".join(f",{json.dumps(name)}:{json.dumps(value)}" for name, value in params.items())
    if key:
        return f"{{{json.dumps(key)}:{inner}{more}}}"
    if more and inner.endswith("}"):
        return f"{inner[:-1]}{more if inner != '{}' else more[1:]}}}"
    return inner


def _listed(column: pa.Array) -> str:
    return ",".join(text or "null" for text in column.to_pylist())


def _vectors(columns: Sequence[pa.Array]) -> list[str]:
    import pyarrow.compute as pc

    filled = [pc.fill_null(column, "null") for column in columns]
    if len(filled) == 1:
        return filled[0].to_pylist()  # type: ignore[no-any-return]
    rows = pc.binary_join_element_wise(*filled, ",")
    return pc.binary_join_element_wise("[", rows, "]", "").to_pylist()  # type: ignore[no-any-return]


def _parsed(answer: HttpAnswer) -> Any:
    try:
        if answer.media_type.startswith("text/"):
            return answer.body.decode()
        return parse_json_value(answer.body, nan=True)
    except ValueError as failure:
        raise BatchError(
            f"The bento answers with {answer.media_type or 'something'} that is no JSON "
            f"({failure}).",
            hint="Choose an API that answers with JSON.",
        ) from failure


def rows_of(value: Any, count: int, question: Question) -> dict[str, list[Any] | pa.Array]:
    """Give an answer as columns: of a list, of objects, of an object of lists, or one alone.

    A column of numbers may stand for a list.

    Raises:
        BatchError: It has not one answer for each row.
    """
    if question.route.form == "single":
        value = [value]
    if isinstance(value, dict) and value and all(_has(one, count) for one in value.values()):
        return dict(value)
    if not _has(value, count):
        raise BatchError(
            f"The answer to {count} rows has not one value for each of them.",
            hint="A batch needs an API that answers each row: a list as long as that of the rows.",
        )
    if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
        names = dict.fromkeys(name for one in value for name in one)
        return {name: [one.get(name) for one in value] for name in names}
    declared = question.route.answers
    name = declared[0].name if len(declared) == 1 and declared[0].name else PREDICTION
    return {name: value}


def _has(value: Any, count: int) -> bool:
    import pyarrow as pa

    return isinstance(value, list | pa.Array) and len(value) == count
