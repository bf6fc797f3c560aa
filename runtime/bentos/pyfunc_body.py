"""A request's body to typed values: row by row, within limits, with few and short errors.

This file lies beside the service in every bento that kfp-bento generates. A parser lets nothing
else run while it works, and lists every error that it finds. So a body is parsed in a thread, a few
rows at a time, and nothing is looked at behind the first errors. What is told names the field, and
never what was given.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any, ClassVar, get_origin

import anyio.to_thread
import bentoml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import PydanticCustomError, core_schema
from pyfunc_columns import read_columns  # type: ignore[import-not-found]
from pyfunc_guard import LIMITS  # type: ignore[import-not-found]

MOST_PROBLEMS = 20
MOST_LISTED = 200_000
LARGEST_COPIES = 64 * 2**20
LONGEST_NAME = 100
LONGEST_TEXT = 300
BATCH = 50
LARGEST_AT_ONCE = 4 * 2**20
LARGEST_BY_ROW = 8 * 2**10
_SPACE = re.compile(r"[ \t\n\r]*")
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)', re.DOTALL)
_decode = json.JSONDecoder().raw_decode
_FAILING_FAST = frozenset(
    kind
    for kind in ("list", "tuple", "set", "dict")
    if "fail_fast" in inspect.signature(getattr(core_schema, f"{kind}_schema")).parameters
)


def _failing_fast(schema: Any) -> Any:
    """Lets every list of a schema end at its first error: each of a million would be kept."""
    if isinstance(schema, dict):
        if schema.get("type") in _FAILING_FAST:
            schema["fail_fast"] = True
        for item in schema.values():
            _failing_fast(item)
    elif isinstance(schema, (list, tuple)):
        for item in schema:
            _failing_fast(item)
    return schema


class Row(BaseModel):
    """A JSON object with known keys and exact types: "5" is no number, 1.5 no integer."""

    model_config = ConfigDict(extra="forbid", strict=True, protected_namespaces=())

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """Lets the check of each list end at its first error."""
        return _failing_fast(handler(source))


class Body(bentoml.IODescriptor):  # type: ignore[misc]
    """A request body with known keys."""

    model_config = ConfigDict(extra="forbid", strict=True)
    by_column: ClassVar[bool] = False

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """Lets the check of each list end at its first error."""
        return _failing_fast(super().__get_pydantic_core_schema__(source, handler))

    @classmethod
    @cache
    def number_of_fields(cls) -> int:
        """Gives how many fields this and all objects in it have."""
        left, number = [cls.__pydantic_core_schema__], 0
        while left:
            item = left.pop()
            if isinstance(item, dict):
                number += item.get("type") == "model-field"
                left += item.values()
            elif isinstance(item, (list, tuple)):
                left += item
        return number

    @classmethod
    @cache
    def has_known_keys(cls) -> bool:
        """Says whether the inputs are rows, and no object in them has keys of its own."""
        rows = get_origin(cls.model_fields["inputs"].annotation) is list
        left = [cls.__pydantic_core_schema__]
        while rows and left:
            item = left.pop()
            if isinstance(item, dict):
                if item.get("type") in ("any", "dict"):
                    return False
                left += item.values()
            elif isinstance(item, (list, tuple)):
                left += item
        return rows

    @classmethod
    async def from_http_request(cls, request: Any, _serde: Any) -> Any:
        """Reads a request's body where it keeps nothing else from being answered."""
        return await anyio.to_thread.run_sync(read_body, cls, await request.body())


def read_body(body: type[Any], raw: bytes) -> Any:
    """Reads a body; its rows a few at a time, since a thread that parses lets no other run.

    Args:
        body: A subclass of `Body`.
        raw: JSON.

    Raises:
        ValidationError: It is no JSON, exceeds a limit, or does not fit; the first problems only.
    """
    raw = raw or b"{}"
    _check_number_of_values(body, raw)
    quickly = _read_at_once(body, raw)
    if quickly is not None:
        return quickly
    rows = get_origin(body.model_fields["inputs"].annotation) is list
    try:
        text = raw.decode()
        simple = not rows and text.count(":") <= LIMITS.max_keys  # for too many keys in one object
        outline = None if simple else Outline(text, "inputs" if rows else None)
    except RecursionError:
        raise _misfit(body, "json_invalid", "the JSON is nested too deeply") from None
    except UnicodeDecodeError as error:
        raise _misfit(body, "json_invalid", f"byte {error.start} is not UTF-8") from None
    except json.JSONDecodeError as error:
        told = f"invalid JSON at character {error.pos}: {error.msg}"
        raise _misfit(body, "json_invalid", told) from None
    except ValueError as error:  # also a number with too many digits
        raise _misfit(body, "json_invalid", str(error)[:LONGEST_TEXT]) from None
    except _TooMuch as error:
        raise _misfit(body, "too_long", str(error), "inputs") from None
    if outline is None or not outline.batches:
        return _checked(body, text)
    return _checked_in_batches(body, outline)


def _read_at_once(body: type[Any], raw: bytes) -> Any:
    """Reads a body without a second look at it; None where it needs one.

    It does where there is anything wrong with it, where errors could be large, and where objects
    may have keys of their own, which the parser does not count.
    """
    if len(raw) > LARGEST_AT_ONCE or not body.has_known_keys() or raw.count(b'"inputs"') > 1:
        return None
    try:
        found = read_columns(body, raw) if len(raw) > LARGEST_BY_ROW else None
        if found is None and _is_heavy(body, len(raw)):
            return None
        found = found or body.model_validate_json(raw)
    except ValidationError:
        return None
    return None if len(found.inputs) > LIMITS.max_rows else found


class _TooMuch(Exception):
    pass


class Outline:
    """Where the rows of a JSON document begin and end.

    Attributes:
        text: The document.
        batches: Begin and end of every `BATCH` rows; none where there are no rows.
    """

    def __init__(self, text: str, rows: str | None) -> None:
        """Walks through a document once.

        Args:
            text: The document.
            rows: The key of the top-level object that holds the rows, if there is one.

        Raises:
            ValueError: It is no JSON.
            _TooMuch: It has too many rows, or an object with too many keys.
        """
        self.text, self.at, self.batches = text, 0, list[tuple[int, int]]()
        if rows is None or self._next() != "{":
            self._value()
        else:
            self._walk(rows)
        if self._next():
            raise self._error("something follows")

    def rows(self, batch: tuple[int, int]) -> Iterator[str]:
        """Gives the rows of a batch one by one, as JSON."""
        self.at, end = batch
        while True:
            start = self.at
            self._value()
            yield self.text[start : self.at]
            if self.at >= end:
                return
            self._next()
            self.at += 1  # the comma
            self._next()

    def _walk(self, rows: str) -> None:
        found = False
        for _ in self._series("}"):
            key = self._value()
            if self._next() != ":" or not isinstance(key, str):
                raise self._error("a key and a colon are missing")
            self.at += 1
            if self._next() != "[" or key != rows:
                self._value()
                continue
            if found:
                raise self._error("a key comes twice")
            found = True
            self._walk_rows()

    def _walk_rows(self) -> None:
        start = end = number = 0
        for _ in self._series("]"):
            if number % BATCH == 0:
                if number:
                    self.batches.append((start, end))
                start = self.at
            number += 1
            if number > LIMITS.max_rows:
                raise _TooMuch(f"more than {LIMITS.max_rows} rows; send them in several requests")
            self._value()
            end = self.at
        if number:
            self.batches.append((start, end))

    def _series(self, closing: str) -> Iterator[None]:
        """Stops before each item of the list or object that begins here."""
        self.at += 1
        if self._next() == closing:
            self.at += 1
            return
        while True:
            self._next()
            yield
            sign = self._next()
            self.at += 1
            if sign == closing:
                return
            if sign != ",":
                raise self._error("a comma is missing")

    def _next(self) -> str:
        """Gives the next character that is no white space, and stops there."""
        self.at = _SPACE.match(self.text, self.at).end()  # type: ignore[union-attr]
        return self.text[self.at : self.at + 1]

    def _value(self) -> Any:
        self._next()
        start = self.at
        value, self.at = _decode(self.text, start)
        if self.at - start > LIMITS.max_keys:  # shorter ones cannot hold so many
            _check_number_of_keys(value)
        return value

    def _error(self, told: str) -> ValueError:
        return json.JSONDecodeError(told, self.text, self.at)


def _check_number_of_keys(value: Any) -> None:
    left = [value]
    while left:
        item = left.pop()
        if isinstance(item, dict):
            if len(item) > LIMITS.max_keys:
                raise _TooMuch(f"an object has more than {LIMITS.max_keys} keys")
            left += item.values()
        elif isinstance(item, list):
            left += item


def _check_number_of_values(body: type[Any], raw: bytes) -> None:
    """Refuses what would become far larger in memory than it is as text."""
    for exactly in (False, True):  # most bodies pass already when the texts in them are counted too
        text = _STRING.sub(b'""', raw) if exactly else raw
        opened = text.count(b"[") + text.count(b"{")
        if text.count(b",") + opened <= LIMITS.max_values and opened <= LIMITS.max_values // 8:
            return
    told = f"more than {LIMITS.max_values} values, or {LIMITS.max_values // 8} lists and objects"
    raise _misfit(body, "too_long", told, "inputs")


def _checked(body: type[Any], text: str) -> Any:
    try:
        return _validated(body, text)
    except ValidationError as error:
        raise _misfits(body, _problems(error)) from None


def _checked_in_batches(body: type[Any], outline: Outline) -> Any:
    result: Any = None
    for number, batch in enumerate(outline.batches):
        for content in _pieces(body, outline, batch):
            try:
                part = _validated(body, _document(outline, content, with_rest=result is None))
            except ValidationError:
                raise _misfits(body, _first_problems(body, outline, number)) from None
            if result is None:
                result = part
            else:
                result.inputs.extend(part.inputs)
    return result


def _pieces(body: type[Any], outline: Outline, batch: tuple[int, int]) -> Iterator[str]:
    start, end = batch
    if _is_heavy(body, end - start):
        yield from outline.rows(batch)
    else:
        yield outline.text[start:end]


def _first_problems(body: type[Any], outline: Outline, number: int) -> list[dict[str, Any]]:
    """Gives the first problems from a batch on, row by row: one row alone has not too many."""
    found: list[dict[str, Any]] = []
    for index in range(number, len(outline.batches)):
        for row, content in enumerate(outline.rows(outline.batches[index]), index * BATCH):
            try:
                _validated(body, _document(outline, content, with_rest=row == 0))
            except ValidationError as error:
                found += _problems(error, row)
            if len(found) >= MOST_PROBLEMS:
                return found
    return found


def _document(outline: Outline, rows: str, *, with_rest: bool) -> str:
    """Gives some of the rows as a document of their own: the first with all that is beside them."""
    if not with_rest:
        return f'{{"inputs":[{rows}]}}'
    first, last = outline.batches[0][0], outline.batches[-1][1]
    return f"{outline.text[:first]}{rows}{outline.text[last:]}"


def _validated(body: type[Any], text: str) -> Any:
    """Parses and checks a document.

    pydantic gives every error about a missing key a copy of the whole object. Only where it looks
    at Python's objects there is no copy, but there it takes no texts for datetimes.
    """
    if _is_heavy(body, len(text)):
        try:
            body.model_validate(json.loads(text))
        except ValidationError as error:
            missing = _problems(error, only=("missing", "too_many_errors"))
            if missing:
                raise _misfits(body, missing) from None
    return body.model_validate_json(text)


def _is_heavy(body: type[Any], length: int) -> bool:
    return bool(length * body.number_of_fields() > LARGEST_COPIES)


def _problems(
    error: ValidationError, row: int = 0, only: tuple[str, ...] = ()
) -> list[dict[str, Any]]:
    """Gives what does not fit, shortly, and never what was given."""
    if error.error_count() > MOST_LISTED:  # listing them takes far more than finding them
        place = ("inputs", row) if row else ("inputs",)
        return [{"type": "too_many_errors", "loc": place, "msg": f"{error.error_count()} problems"}]
    found = error.errors(include_url=False, include_context=False, include_input=False)
    if only:
        found = [problem for problem in found if problem["type"] in only]
    problems: list[dict[str, Any]] = []
    for problem in found[:MOST_PROBLEMS]:
        where: list[Any] = list(problem["loc"])
        if row and len(where) > 1 and isinstance(where[1], int):
            where[1] += row
        problems.append({**problem, "loc": tuple(where)})
    return problems


def _misfit(body: type[Any], kind: str, told: str, *place: str) -> ValidationError:
    return _misfits(body, [{"type": kind, "loc": place, "msg": told}])


def _misfits(body: type[Any], problems: list[dict[str, Any]]) -> ValidationError:
    errors: list[Any] = [
        {
            "type": PydanticCustomError(problem["type"], problem["msg"][:LONGEST_TEXT]),
            "loc": tuple(
                part if isinstance(part, int) else part[:LONGEST_NAME] for part in problem["loc"]
            ),
            "input": None,
        }
        for problem in problems[:MOST_PROBLEMS]
    ]
    return ValidationError.from_exception_data(body.__name__, errors)


def read_json(raw: bytes, rows: tuple[str, ...] = ()) -> Any:
    """Reads JSON of no known form, within the limits.

    Args:
        raw: JSON.
        rows: Keys of the top-level object that hold rows.

    Raises:
        ValidationError: It is no JSON, or exceeds a limit.
    """
    _check_number_of_values(Body, raw)
    try:
        value = json.loads(raw.decode())
        if len(raw) > LIMITS.max_keys:  # shorter ones cannot hold so many
            _check_number_of_keys(value)
    except RecursionError:
        raise _misfit(Body, "json_invalid", "the JSON is nested too deeply") from None
    except UnicodeDecodeError as error:
        raise _misfit(Body, "json_invalid", f"byte {error.start} is not UTF-8") from None
    except json.JSONDecodeError as error:
        told = f"invalid JSON at character {error.pos}: {error.msg}"
        raise _misfit(Body, "json_invalid", told) from None
    except ValueError as error:  # also a number with too many digits
        raise _misfit(Body, "json_invalid", str(error)[:LONGEST_TEXT]) from None
    except _TooMuch as error:
        raise _misfit(Body, "too_long", str(error)) from None
    for name in rows:
        _check_rows(name, value.get(name) if isinstance(value, dict) else None)
    return value


def _check_rows(name: str, rows: Any) -> None:
    """Refuses rows that are too many, or whose different keys would make a vast table."""
    if not isinstance(rows, list):
        return
    if len(rows) > LIMITS.max_rows:
        told = f"more than {LIMITS.max_rows} rows; send them in several requests"
        raise _misfit(Body, "too_long", told, name)
    records = [row for row in rows if isinstance(row, dict)]
    names = set().union(*records)
    if len(rows) * len(names) > max(LIMITS.max_values, sum(map(len, records))):
        raise _misfit(Body, "too_long", "the rows have too many different keys", name)
