"""What a bento is asked: its models' own examples, the user's requests, or made-up ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.bentos import is_generated, model_paths, prediction_request
from kfp_bento.runtime.errors import BentoError, InvalidInput
from kfp_bento.runtime.files import (
    parse_json_value,
    parse_yaml,
    read_small_file,
    reading,
)
from kfp_bento.runtime.proof.answer_types import count_rows
from kfp_bento.runtime.proof.content import Content
from kfp_bento.runtime.proof.golden import GoldenRequest, request_headers, request_path
from kfp_bento.runtime.proof.synthetic import synthetic_inputs

if TYPE_CHECKING:
    from kfp_bento.runtime.bentos import Bento
    from kfp_bento.runtime.models import ModelVersion

MOST_SINGLE_ROWS = 20
LARGEST_REQUESTS = 64 << 20
EXAMPLE, SYNTHETIC, GIVEN = "input example", "synthetic", "given"

_FIELDS = frozenset(
    ("label", "method", "path", "body", "json", "text", "base64", "media_type", "headers", "expect")
)
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_HOW = (
    "Give a list of objects with path, and body (JSON), text or base64 with media_type; method, "
    "headers, label and expect (model or service) as need be."
)


def read_requests(file: Path) -> list[Any]:
    """Read a file of requests: a list in JSON or YAML.

    Raises:
        InvalidInput: It cannot be read, or holds no list.
    """
    with reading(f"The requests in {file} cannot be read", InvalidInput, hint=_HOW):
        text = read_small_file(file, LARGEST_REQUESTS)
        is_json = file.suffix.lower() == ".json"
        found = parse_json_value(text) if is_json else parse_yaml(text)
        if not isinstance(found, list):
            raise ValueError("it holds no list")
    return found


def requests_for(
    bento: Bento, models: Sequence[ModelVersion], given: Sequence[Any] = ()
) -> list[GoldenRequest]:
    """Give the requests that a bento is proven with, without answers.

    Those that were given; else for each model all rows of its input example at once, and the first
    20 one by one; where it has none, rows that are made from its signature.

    Args:
        bento: The bento.
        models: Its models, in the order in which it was built of them.
        given: What `read_requests` gives.

    Raises:
        InvalidInput: A given request is none.
        BentoError: There is nothing to ask: neither requests, nor an example, nor a signature.
    """
    paths = model_paths(models) if models else {}
    generated = is_generated(bento) and bool(models)
    if given:
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
        if unknown := sorted(set(data) - _FIELDS):
            raise ValueError(f"it has a field {unknown[0][:80]!r} that is none of a request")
        facts = {("json" if name == "body" else name): value for name, value in data.items()}
        has_body = bool({"json", "text", "base64"} & facts.keys())
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
        label = str(facts.get("label") or f"given {number}")
        headers = request_headers(facts.get("headers", {}))
    except ValueError as error:
        raise InvalidInput(f"Request {number} cannot be sent: {error}.", hint=_HOW) from None
    return GoldenRequest(
        label, GIVEN, method, path, content, headers, "" if expect == "service" else model
    )
