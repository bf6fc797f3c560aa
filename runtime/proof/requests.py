"""What a bento is asked: its models' own examples, the user's requests, or made-up ones."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.bentos import is_generated, model_paths, prediction_request
from kfp_bento.runtime.errors import BentoError, InvalidInput
from kfp_bento.runtime.programs import cleaned
from kfp_bento.runtime.proof.answer_types import count_rows
from kfp_bento.runtime.proof.comparing import KIND, VALUE
from kfp_bento.runtime.proof.content import FORMS, Content
from kfp_bento.runtime.proof.golden import (
    REQUEST,
    GoldenAnswer,
    GoldenRequest,
    read_status,
    request_headers,
    request_path,
)
from kfp_bento.runtime.proof.request_files import HOW, given_requests
from kfp_bento.runtime.proof.synthetic import synthetic_inputs

if TYPE_CHECKING:
    from kfp_bento.runtime.bentos import Bento
    from kfp_bento.runtime.models import ModelVersion

MOST_SINGLE_ROWS = 20
EXAMPLE, SYNTHETIC, GIVEN = "input example", "synthetic", "given"

_FIELDS = frozenset(
    (
        *("label", "method", "path", "body", "media_type", "headers", "expect", "answer"),
        *("compare", *FORMS),
    )
)
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


def requests_for(
    bento: Bento, models: Sequence[ModelVersion], given: Sequence[Any] = ()
) -> list[GoldenRequest]:
    """Give the requests that a bento is proven with, without answers.

    Those that were given; else for each model all rows of its input example at once, and the first
    20 one by one; where it has none, rows that are made from its signature.

    Args:
        bento: The bento.
        models: Its models, in the order in which it was built of them.
        given: What `given_requests` takes.

    Raises:
        InvalidInput: A given request is none.
        BentoError: There is nothing to ask: neither requests, nor an example, nor a signature.
    """
    paths = model_paths(models) if models else {}
    generated = is_generated(bento) and bool(models)
    if given := given_requests(given):
        by_path = {path: tag for tag, path in paths.items()} if generated else None
        only = next(iter(paths)) if len(paths) == 1 else ""
        return [_given(one, number, by_path, only) for number, one in enumerate(given, 1)]
    found: list[GoldenRequest] = []
    for model, (tag, path) in zip(models, paths.items(), strict=True):
        before = f"{path}, " if len(models) > 1 else ""
        found += _of_model(model, path if generated else "/predict", tag, before)
    return found


def _of_model(model: ModelVersion, path: str, tag: str, before: str) -> list[GoldenRequest]:
    try:
        body, source = prediction_request(model), EXAMPLE
    except BentoError as error:
        made = synthetic_inputs(model.signature)
        if made is None:
            raise BentoError(
                f"There is nothing to prove the bento with: {error.message}",
                hint="Log the model with input_example=... or a signature, give requests, or "
                "switch verify off.",
            ) from None
        body, source = {"inputs": made}, SYNTHETIC
    _require_finite(model, body)
    rows = count_rows(body["inputs"], model.signature)
    whole = GoldenRequest(
        f"{before}all rows", source, path=path, content=Content.json(body), model=tag, rows=rows
    )
    if rows is None or rows < 2:
        return [whole]
    return [
        whole,
        *(
            GoldenRequest(
                f"{before}row {index}",
                source,
                path=path,
                content=Content.json(one),
                model=tag,
                rows=1,
                row=index,
            )
            for index, one in enumerate(single_rows(body, rows, MOST_SINGLE_ROWS))
        ),
    ]


def _require_finite(model: ModelVersion, body: Mapping[str, Any]) -> None:
    """Refuse an example that no client can send."""
    if (place := _infinite(body)) is not None:
        raise BentoError(
            f"The input example of the model {cleaned(model.uri)} has an infinite number at "
            f"{cleaned(place)}: JSON has none, so no client can send it.",
            hint="Give requests with finite numbers to prove the bento with, log the model again "
            "with such an example, or switch verify off.",
        )


def _infinite(value: Any, place: str = "") -> str | None:
    """Give where the first infinite number is; None where all are finite."""
    if isinstance(value, float) and math.isinf(value):
        return place
    inside: Iterable[tuple[object, Any]] = ()
    if isinstance(value, Mapping):
        inside = value.items()
    elif isinstance(value, list):
        inside = enumerate(value)
    found = (_infinite(item, f"{place}.{key}" if place else str(key)) for key, item in inside)
    return next((one for one in found if one is not None), None)


def single_rows(body: Mapping[str, Any], rows: int, most: int) -> list[dict[str, Any]]:
    """Give one body per row, for the first `most` of the rows of `body["inputs"]`."""
    inputs = body["inputs"]
    return [
        {
            **body,
            "inputs": inputs[index : index + 1]
            if isinstance(inputs, list)
            else {name: item[index : index + 1] for name, item in inputs.items()},
        }
        for index in range(min(rows, most))
    ]


def _given(data: Any, number: int, by_path: Mapping[str, str] | None, only: str) -> GoldenRequest:
    """Read a request that a user wrote.

    Args:
        data: The request.
        number: Its number, from 1.
        by_path: The models of a generated service by path; None for a service of one's own.
        only: The bento's one model, or "".
    """
    try:
        if not isinstance(data, Mapping) or not all(isinstance(name, str) for name in data):
            raise ValueError("it is no object")
        if "file" in data:
            raise ValueError("it names a file, and there is none beside requests that are no file")
        if unknown := sorted(set(data) - _FIELDS):
            raise ValueError(f"it has a field {unknown[0][:80]!r} that is none of a request")
        facts = {("json" if name == "body" else name): value for name, value in data.items()}
        has_body = bool(facts.keys() & set(FORMS))
        path = request_path(facts.get("path", "/predict"))
        content = Content.from_dict(facts) if has_body else None
        method = facts.get("method", "POST" if has_body else "GET")
        if method not in _METHODS:
            raise ValueError(f"method is none of {', '.join(_METHODS)}")
        expect = facts.get("expect", "")
        if expect not in ("", "model", "service"):
            raise ValueError("expect is neither model nor service")
        body = content.value if content is not None and content.form == "json" else None
        asks = method == "POST" and isinstance(body, Mapping) and "inputs" in body
        model = (by_path.get(path, "") if by_path is not None else only) if asks else ""
        if expect == "model" and not model:
            raise ValueError(
                'expect is model, but a model can only be asked what is {"inputs": ...} at the '
                "path of its prediction"
            )
        answer = _given_answer(facts["answer"]) if "answer" in facts else None
        if answer is not None and expect:
            raise ValueError("it has an answer, so expect says nothing")
        compare = facts.get("compare", VALUE)
        if compare not in (VALUE, KIND):
            raise ValueError(f"compare is neither {VALUE} nor {KIND}")
        if answer is not None and not answer.content.media_type:
            compare = KIND
        if compare == KIND and expect == "model":
            raise ValueError(f"what a model predicts is compared by {VALUE}")
        label = str(facts.get("label") or f"given {number}")
        headers = request_headers(facts.get("headers", {}))
    except ValueError as error:
        raise InvalidInput(f"Request {number} cannot be sent: {error}.", hint=HOW) from None
    asked = "" if expect == "service" or answer is not None or compare == KIND else model
    return GoldenRequest(
        label, GIVEN, method, path, content, headers, asked, answer=answer, compare=compare
    )


def _given_answer(data: Any) -> GoldenAnswer:
    """Read the right answer that a user wrote: a status, and a body as requests have it."""
    if not isinstance(data, Mapping) or not all(isinstance(name, str) for name in data):
        raise ValueError("answer is no object")
    facts = {("json" if name == "body" else name): value for name, value in data.items()}
    if unknown := sorted(set(facts) - {"status", "media_type", "json", "text", "base64"}):
        raise ValueError(f"answer has a field {unknown[0][:80]!r} that is none of an answer")
    status = read_status(facts.pop("status", 200))
    if "text" in facts:
        facts.setdefault("media_type", "text/plain")
    body = Content.from_dict(facts) if facts else Content("", "base64", "")
    return GoldenAnswer(status, body, REQUEST)
