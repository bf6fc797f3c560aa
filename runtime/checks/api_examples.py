"""The examples in a service's own description of its API (OpenAPI 3), which BentoML serves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kfp_bento.runtime.errors import CheckError
from kfp_bento.runtime.files import parse_json
from kfp_bento.runtime.http import HttpAnswer

_DEEPEST = 20
_JSON = "application/json"
_METHODS = ("post", "put", "patch")


@dataclass(frozen=True)
class ApiExamples:
    """What an API can be asked.

    Attributes:
        requests: Method, path and JSON value of each example.
        without: Paths that take a body and have no example of one.
    """

    requests: list[tuple[str, str, Any]]
    without: list[str]


def api_examples(answer: HttpAnswer) -> ApiExamples:
    """Read the examples of a description.

    Raises:
        CheckError: It is none.
    """
    try:
        if answer.status != 200:
            raise ValueError(answer.shown())
        document = parse_json(answer.body)
        operations = list(_operations(document))
    except (ValueError, AttributeError, TypeError) as error:
        raise CheckError(
            f"The service does not describe its API at /docs.json: {error}.",
            hint="Record what it is asked instead, without --examples.",
        ) from error
    found, without = [], []
    for method, path, media in operations:
        values = list(_examples(media, document)) if "{" not in path else []
        found += [(method.upper(), path, value) for value in values]
        without += [] if values else [path]
    return ApiExamples(found, without)


def _operations(document: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Give method, path, and how a JSON body is described, of what takes a body."""
    for path, item in document["paths"].items():
        for method in _METHODS:
            body = item.get(method, {}).get("requestBody")
            if body is not None:
                yield method, path, body.get("content", {}).get(_JSON, {})


def _examples(media: Mapping[str, Any], document: Mapping[str, Any]) -> Iterator[Any]:
    if "example" in media:
        yield media["example"]
    elif media.get("examples"):
        yield from (one["value"] for one in media["examples"].values() if "value" in one)
    elif media.get("schema"):
        yield from _of_schema(media["schema"], document, 0)


def _of_schema(schema: Any, document: Mapping[str, Any], depth: int) -> Iterator[Any]:
    """Give the example of a schema, if it has one, or each of its fields has."""
    if depth > _DEEPEST or not isinstance(schema, Mapping):
        return
    name = str(schema.get("$ref", "")).removeprefix("#/components/schemas/")
    if name:
        schemas = document.get("components", {}).get("schemas", {})
        yield from _of_schema(schemas.get(name), document, depth + 1)
    elif "example" in schema:
        yield schema["example"]
    elif schema.get("examples"):
        yield schema["examples"][0]
    elif "default" in schema:
        yield schema["default"]
    elif schema.get("properties"):
        fields = {
            key: next(_of_schema(one, document, depth + 1), None)
            for key, one in schema["properties"].items()
        }
        known = {key: value for key, value in fields.items() if value is not None}
        if set(schema.get("required", ())) <= known.keys():
            yield known
