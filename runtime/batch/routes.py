"""How rows of a table become requests to one API of a bento.

Of a generated service the signature of the model says it; of one's own service BentoML's
description of the API in `bento.yaml` does (`_bentoml_sdk/method.py`, `schema`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.bentos import is_generated, read_bento_file
from kfp_bento.runtime.errors import InvalidInput
from kfp_bento.runtime.models import Column, ModelSignature, Tensor, read_mlmodel_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from kfp_bento.runtime.bentos import Bento
    from kfp_bento.runtime.models import ModelSignature as Signature

JSON = "json"
"""The kind of a value that has no one type: a list, an object, or anything."""

_PLAIN = ("boolean", "integer", "long", "float", "double", "string", "binary", "datetime")
_OF_DTYPES = {
    **{"bool": "boolean", "float64": "double", "float32": "float", "int64": "long"},
    **{"int32": "integer", "str": "string", "bytes": "binary"},
}
_OF_SCHEMAS = {"number": "double", "integer": "long", "boolean": "boolean", "string": "string"}


@dataclass(frozen=True)
class Field:
    """A column that a model takes or gives: `kind` is one of MLflow's types of a value, or "json".

    `required` says that the column has to be there.
    """

    name: str
    kind: str
    required: bool = True


@dataclass(frozen=True)
class Route:
    """One API, and the form of its requests.

    Attributes:
        path: Its path.
        form: "records" (a list of objects), "vectors" (a list of lists, or of values where there is
            one column), "tensors" (an object with a list for each column), or "single" (one object,
            so that each row is a request).
        key: The key under which that stands in the body; "" where it is the body.
        fields: The columns it takes; () where it takes what there is.
        answers: The columns of its answer as far as they are declared.
        own: Whether the service is the user's own.
        infer: Where the same is asked in tensors, if the service speaks the protocol; "" where it
            does not.
    """

    path: str
    form: str
    key: str
    fields: tuple[Field, ...] = ()
    answers: tuple[Field, ...] = ()
    own: bool = False
    infer: str = ""


def find_route(bento: Bento, api: str) -> Route:
    """Give the API of a bento that is asked.

    Args:
        bento: The bento.
        api: Its name, its path or, of a generated service, its model; "" where there is one only.

    Raises:
        InvalidInput: There is no such API, there are several, or rows cannot be sent to it.
    """
    described = _described(bento, api)
    path = str(described.get("route") or f"/{described.get('name')}")
    if is_generated(bento):
        name = path.removeprefix("/predict").strip("/") or bento.models[0].tag.partition(":")[0]
        return route_of(path, name, _signature(bento, path))
    return _of_schema(path, described.get("input"))


def route_of(path: str, name: str, signature: Signature | None) -> Route:
    """Give the API of a generated service that asks one model.

    Args:
        path: Its path, `/predict` or `/predict/NAME`.
        name: The model's name in the bento.
        signature: The model's signature.
    """
    route = signature_route(path, signature or ModelSignature())
    return replace(route, infer=f"/v2/models/{name}/infer")


def _described(bento: Bento, api: str) -> dict[str, Any]:
    routes = read_bento_file(bento.directory).routes
    if not routes:
        raise InvalidInput(
            f"The bento {bento.tag} does not describe its APIs, as bentos of BentoML before 1.4.",
            hint="Build it again with BentoML 1.4, or serve it and ask it by HTTP.",
        )
    names = [str(route.get("route", "")).lstrip("/") for route in routes]
    known = dict(zip(names, routes, strict=True))
    known |= {str(route.get("name")): route for route in routes}
    known |= {name.rpartition("/")[2]: route for name, route in zip(names, routes, strict=True)}
    wanted = api.strip("/")
    if wanted in known:
        return known[wanted]
    if not wanted and len(routes) == 1:
        return routes[0]
    problem = f"has no API {api!r}" if wanted else "has several APIs"
    raise InvalidInput(
        f"The bento {bento.tag} {problem}.", hint=f"Choose one with api: {', '.join(names)}."
    )


def _signature(bento: Bento, path: str) -> Signature:
    directory = _model_directory(bento, path.rpartition("/")[2])
    return read_mlmodel_of(directory).signature or ModelSignature()


def _model_directory(bento: Bento, segment: str) -> Path:
    """Give the folder of the model that a generated service asks at `/predict/<segment>`."""
    models = list(bento.models)
    names = {model.tag.partition(":")[0]: model for model in models}
    names |= {
        f"{model.tag.partition(':')[0]}-{model.provenance.get('version', '')}": model
        for model in models
    }
    model = models[0] if len(models) == 1 else names.get(segment)
    if model is None:
        raise InvalidInput(
            f"The bento {bento.tag} does not say which of its models {segment} is.",
            hint="Build it again; the record of its models is missing.",
        )
    name, _, version = model.tag.partition(":")
    return bento.directory / "models" / name / version


def signature_route(path: str, signature: Signature) -> Route:
    """Give the API of a generated service that asks a model with a signature."""
    answers = tuple(map(_field, signature.outputs))
    record = _record(signature)
    if record:  # rows are objects
        return Route(path, "records", "inputs", tuple(map(_field, record)), answers)
    form = {"columns": "records", "tensors": "tensors", "": "records"}.get(
        signature.kind, "vectors"
    )
    named = signature.kind in ("columns", "tensors")
    fields = tuple(map(_field, signature.inputs)) if named else _positions(signature)
    return Route(path, form, "inputs", fields, answers)


def _record(signature: Signature) -> tuple[Column, ...]:
    """Give the fields of the objects that a model with type hints takes as rows."""
    only = signature.inputs[0] if len(signature.inputs) == 1 else None
    if signature.kind == "unnamed" and isinstance(only, Column) and only.type.kind == "object":
        return only.type.properties
    return ()


def _positions(signature: Signature) -> tuple[Field, ...]:
    """Give columns without names, in their order; () for a tensor, which may have any number."""
    columns = [field for field in signature.inputs if isinstance(field, Column)]
    return tuple(Field("", _kind(column), column.required) for column in columns)


def _field(field: Column | Tensor) -> Field:
    name = "" if field.name is None else field.key
    return Field(name, _kind(field), getattr(field, "required", True))


def _kind(field: Column | Tensor) -> str:
    if isinstance(field, Column):
        return field.type.kind if field.type.kind in _PLAIN else JSON
    flat = len(field.shape) == 1 or (len(field.shape) == 2 and field.shape[1] == 1)
    return _OF_DTYPES.get(field.dtype, JSON) if flat and len(field.shape) == 1 else JSON


def _of_schema(path: str, schema: Any) -> Route:
    """Read what BentoML says of the input of an API: one list of rows, or the parts of one row."""
    schema = schema if isinstance(schema, dict) else {}
    definitions = schema.get("$defs", {})
    if schema.get("type") == "array":
        return Route(path, *_rows(schema, definitions, ""), own=True)
    properties = schema.get("properties")
    if not isinstance(properties, dict) or not properties:
        raise InvalidInput(
            f"The API {path} takes no rows.", hint="Give one that takes a list, or a row."
        )
    needed = [name for name in properties if name in schema.get("required", ())]
    kinds = {name: _resolved(one, definitions).get("type") for name, one in properties.items()}
    lists = [name for name in needed or properties if kinds[name] in _LISTS]
    if len(lists) == 1:
        rows = _resolved(properties[lists[0]], definitions)
        return Route(path, *_rows(rows, definitions, lists[0]), own=True)
    objects = [name for name in needed if kinds[name] == "object"]
    if len(needed) == 1 and objects and not schema.get("root_input"):
        inner = _resolved(properties[objects[0]], definitions)
        return Route(path, "single", objects[0], _fields(inner, definitions), own=True)
    return Route(path, "single", "", _fields(schema, definitions), own=True)


_LISTS = ("array", "dataframe", "tensor")


def _rows(schema: dict[str, Any], definitions: Any, key: str) -> tuple[str, str, tuple[Field, ...]]:
    if schema.get("type") == "dataframe":
        return ("records", key, ())
    items = _resolved(schema.get("items", {}), definitions)
    if items.get("type") == "object":
        return ("records", key, _fields(items, definitions))
    kind = _OF_SCHEMAS.get(items.get("type", ""))
    return ("vectors", key, (Field("", kind),) if kind else ())


def _fields(schema: dict[str, Any], definitions: Any) -> tuple[Field, ...]:
    required = schema.get("required", ())
    properties = schema.get("properties", {})
    return tuple(
        Field(
            str(name),
            _OF_SCHEMAS.get(_resolved(one, definitions).get("type", ""), JSON),
            name in required,
        )
        for name, one in properties.items()
    )


def _resolved(schema: Any, definitions: Any) -> dict[str, Any]:
    """Follow a reference, and look through what may be null besides."""
    if not isinstance(schema, dict):
        return {}
    if isinstance(schema.get("$ref"), str) and isinstance(definitions, dict):
        found = definitions.get(schema["$ref"].rpartition("/")[2], {})
        return found if isinstance(found, dict) else {}
    choices = schema.get("anyOf")
    if isinstance(choices, list):
        left = [one for one in choices if one != {"type": "null"}]
        return _resolved(left[0], definitions) if len(left) == 1 else {}
    return schema


def check_columns(route: Route, columns: Sequence[str], shown: str) -> None:
    """Refuse a table that lacks a column which the API needs.

    Raises:
        InvalidInput: Columns are missing; they are named.
    """
    if route.form == "vectors":
        if route.fields and len(columns) != len(route.fields):
            raise InvalidInput(
                f"The model takes {len(route.fields)} columns by their order, and {shown} has "
                f"{len(columns)}.",
                hint="Name those that it gets with inputs, in its order.",
            )
        return
    missing = [one.name for one in route.fields if one.required and one.name not in columns]
    if missing:
        some = ", ".join(missing[:10]) + (" …" if len(missing) > 10 else "")
        raise InvalidInput(
            f"{shown} lacks {'columns' if len(missing) > 1 else 'the column'} that the model "
            f"needs: {some}.",
            hint=f"It has: {', '.join(list(columns)[:20])}.",
        )
