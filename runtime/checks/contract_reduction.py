"""An OpenAPI document without what clients do not depend on: small, canonical, worth keeping.

What is reduced is an OpenAPI document again (3.0 or 3.1), and reduces to itself. Parameters,
bodies and answers are written out; references stay between schemas alone, which may contain
themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
SCHEMAS = "#/components/schemas/"
MOST_NODES = 200_000

_DEEPEST = 100
_MOST_REFERENCES = 16
_TEMPLATE = re.compile(r"\{[^{}]*\}")
# The Open Inference Protocol has a route for each version of a model, which no other version has.
_VERSION = re.compile(r"(/v2/models/[^/]+/versions)/[^/]+")
# JSON Schema draft 2020-12 as OpenAPI 3.1 has it, `nullable` of 3.0, and how BentoML describes
# tensors and tables. What is not listed says nothing about which JSON is taken or given.
_PLAIN = (
    *("$ref", "type", "format", "enum", "const", "nullable", "required", "pattern"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    *("minLength", "maxLength", "minItems", "maxItems", "contentMediaType", "contentEncoding"),
    *("dtype", "dim"),
)
_ONE, _LIST, _NAMED = ("items", "additionalProperties"), ("anyOf", "oneOf", "allOf"), "properties"
_PARAMETERS = ("query", "header", "path", "cookie")

Document = Mapping[str, Any]


class NoContract(ValueError):
    """A document describes no API, or is too large or too tangled to be compared."""


def reduced(document: Document) -> dict[str, Any]:
    """Give an OpenAPI document with what clients depend on, in a canonical order.

    Raises:
        NoContract: It is none, or larger or deeper than any real one.
    """
    return _Reduction(document).result()


def path_key(path: str) -> str:
    """Give a path as it is found again: without names of parameters and versions of models."""
    return _TEMPLATE.sub("{}", _VERSION.sub(r"\1/{}", path))


class _Reduction:
    """One document on its way; counts what it has seen."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._seen = 0
        self._named: list[str] = []

    def result(self) -> dict[str, Any]:
        paths = self._document.get("paths") if isinstance(self._document, Mapping) else None
        if not isinstance(paths, Mapping):
            raise NoContract("it has no paths")
        routes = {str(path): self._path(paths[path]) for path in sorted(paths)}
        schemas: dict[str, Any] = {}
        while self._named:  # what is found brings more along
            name = self._named.pop()
            if name not in schemas:
                schemas[name] = {}
                schemas[name] = self._schema(self._component("schemas", name))
        found: dict[str, Any] = {
            "openapi": "3.1.0",
            "paths": {path: route for path, route in routes.items() if route},
        }
        if schemas:
            found["components"] = {"schemas": dict(sorted(schemas.items()))}
        return found

    def _path(self, item: Any) -> dict[str, Any]:
        item = self._resolved(item, "pathItems")
        shared = item.get("parameters", [])
        return {
            method: self._operation(item[method], shared)
            for method in METHODS
            if isinstance(item.get(method), Mapping)
        }

    def _operation(self, operation: Document, shared: Any) -> dict[str, Any]:
        found: dict[str, Any] = {}
        parameters = dict(self._parameters([*_list(shared), *_list(operation.get("parameters"))]))
        if parameters:
            found["parameters"] = [parameters[key] for key in sorted(parameters)]
        if "requestBody" in operation:
            body = self._resolved(operation["requestBody"], "requestBodies")
            found["requestBody"] = {
                "content": self._content(body),
                "required": body.get("required") is True,
            }
        answers = operation.get("responses")
        found["responses"] = {
            str(status): {"content": self._content(self._resolved(answer, "responses"))}
            for status, answer in sorted(_mapping(answers).items(), key=lambda one: str(one[0]))
        }
        return found

    def _parameters(self, given: list[Any]) -> Iterator[tuple[tuple[str, str], dict[str, Any]]]:
        for one in given:
            parameter = self._resolved(one, "parameters")
            place, name = parameter.get("in"), parameter.get("name")
            if place not in _PARAMETERS or not isinstance(name, str):
                continue
            schema = parameter.get("schema")
            if schema is None:  # or it has a media type
                medias = [*_mapping(parameter.get("content")).values()]
                schema = _mapping(medias[0]).get("schema", {}) if medias else {}
            yield (
                (place, name),
                {
                    "name": name,
                    "in": place,
                    "required": parameter.get("required") is True or place == "path",
                    "schema": self._schema(schema),
                },
            )

    def _content(self, owner: Document) -> dict[str, Any]:
        found = {}
        for media_type, media in sorted(_mapping(owner.get("content")).items()):
            name = str(media_type).partition(";")[0].strip().lower()
            found[name] = {"schema": self._schema(_mapping(media).get("schema", {}))}
        return found

    def _schema(self, schema: Any, depth: int = 0) -> Any:
        self._count(depth)
        if not isinstance(schema, Mapping):
            return schema if isinstance(schema, bool) else {}
        found: dict[str, Any] = {key: schema[key] for key in _PLAIN if key in schema}
        if isinstance(found.get("required"), list):
            found["required"] = sorted({str(name) for name in found["required"]})
            if not found["required"]:
                del found["required"]
        for key in _ONE:
            if isinstance(schema.get(key), Mapping | bool):
                found[key] = self._schema(schema[key], depth + 1)
        for key in _LIST:
            if isinstance(schema.get(key), list):
                found[key] = [self._schema(one, depth + 1) for one in schema[key]]
        if isinstance(schema.get(_NAMED), Mapping):
            names = sorted(map(str, schema[_NAMED]))
            found[_NAMED] = {name: self._schema(schema[_NAMED][name], depth + 1) for name in names}
        reference = found.get("$ref")
        if isinstance(reference, str) and reference.startswith(SCHEMAS):
            self._named.append(reference.removeprefix(SCHEMAS))
        elif reference is not None:
            del found["$ref"]  # it leads out of the document, where nobody looks
        return dict(sorted(found.items()))

    def _count(self, depth: int) -> None:
        self._seen += 1
        if self._seen > MOST_NODES or depth > _DEEPEST:
            raise NoContract("it is larger or deeper than can be compared")

    def _resolved(self, value: Any, kind: str) -> Document:
        """Follow references to a named part of a kind, a few of them."""
        for _ in range(_MOST_REFERENCES):
            found = _mapping(value)
            reference = found.get("$ref")
            if not isinstance(reference, str):
                return found
            value = self._component(kind, reference.removeprefix(f"#/components/{kind}/"))
        raise NoContract("its references lead to each other")

    def _component(self, kind: str, name: str) -> Any:
        components = _mapping(self._document.get("components"))
        named = _mapping(components.get(kind))
        # A name with a slash or a tilde in it is written as a JSON pointer writes it.
        plain = name.replace("~1", "/").replace("~0", "~")
        return named.get(name, named.get(plain, {}))


def _mapping(value: Any) -> Document:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
