"""The source of a generated service: typed after the models' signatures, made to be read."""

from __future__ import annotations

import json
import textwrap
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.bentos.naming import class_name, identifier, unique
from kfp_bento.runtime.bentos.requests import prediction_request
from kfp_bento.runtime.bentos.service_types import ServiceTypes, docstring, literal
from kfp_bento.runtime.errors import BentoError
from kfp_bento.runtime.files import parse_json_value, read_small_file, reading
from kfp_bento.runtime.models import Column, ModelSignature, read_mlmodel_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kfp_bento.runtime.bentos.bento import Bento, BentoModel
    from kfp_bento.runtime.models import ModelVersion

SUPPORT_MODULE = "pyfunc_json.py"
"""The module of this package that travels with every generated service."""

GUARD_MODULE = "pyfunc_guard.py"
"""The same, for the border of the service: tokens, limits, what is logged."""

BODY_MODULE = "pyfunc_body.py"
"""The same, for reading what is sent."""

LARGEST_SERVICE = 16 * 1024 * 1024
"""Bytes of a `service.py` that is looked at; a signature may have many thousand columns."""

TRAVELLERS = (SUPPORT_MODULE, BODY_MODULE, GUARD_MODULE)

EXAMPLE_FILE = "example{suffix}.json"

LARGEST_EXAMPLE = 64 * 1024
"""Bytes; a longer input example stays out of the service's API page."""


@dataclass(frozen=True)
class Route:
    """One model of a service and the route that asks it.

    Attributes:
        model: The model.
        tag: Its BentoML tag.
        path: The HTTP path.
        suffix: What tells this model's names from the others': "" when there is one model only.
        prefix: The same for class names.
    """

    model: ModelVersion
    tag: str
    path: str
    suffix: str
    prefix: str

    @property
    def example_file(self) -> str:
        """Name of the file with one real request body."""
        return EXAMPLE_FILE.format(suffix=self.suffix)


@dataclass(frozen=True)
class _Section:
    """What one route adds to the module: its types, the request body, the method."""

    types: str
    attribute: str
    load: str
    method: str


def sample_request(bento: Bento | None) -> Any:
    """Give the request body that a generated service of one model has as its example.

    Args:
        bento: The bento; None where a stored model is served.

    Returns:
        The body of `POST /predict`; None where the service is not a generated one, or where its
        model has no input example.
    """
    if bento is None or not (bento.directory / "src" / SUPPORT_MODULE).is_file():
        return None
    example = bento.directory / "src" / EXAMPLE_FILE.format(suffix="")
    if not example.is_file():
        return None
    problem = f"The example {example.name} of the bento {bento.tag} cannot be read"
    with reading(problem, BentoError, hint="Build the bento again."):
        return parse_json_value(read_small_file(example, 2 * LARGEST_EXAMPLE), nan=True)


def can_require_token(bento: Bento) -> bool:
    """Say whether a bento's service lets only callers with a token in, where it is given one.

    Generated services do, through `KFP_BENTO_API_TOKEN` or `KFP_BENTO_API_TOKEN_FILE`; those of
    users, and those that were generated before there were tokens, do not know these variables.
    """
    source = bento.directory / "src"
    try:
        service = read_small_file(source / "service.py", LARGEST_SERVICE).decode()
    except (OSError, ValueError):
        return False
    return (source / GUARD_MODULE).is_file() and f"\n    {_GUARDED},\n" in service


def service_class_name(name: str) -> str:
    """Give the class name of the generated service of a bento, such as `WineService`."""
    return class_name(name, "Service")


def generated_files(
    name: str,
    models: Sequence[ModelVersion],
    bento_models: Sequence[BentoModel],
    *,
    show_example: bool = True,
) -> dict[str, bytes]:
    """Give the source files of a generated service by name.

    One model is asked at `POST /predict`; each of several models at `POST /predict/<model name>`.

    Args:
        name: The bento's name.
        models: The models, in the order the caller gave them.
        bento_models: Their tags in the bento, in the same order.
        show_example: Whether the API page shows the first row of each model's input example.

    Raises:
        BentoError: A signature has a type that no service can be made for.
    """
    routes = _routes(models, bento_models)
    examples = {route.example_file: _example(route.model) for route in routes if show_example}
    shown = {file: body for file, body in examples.items() if body}
    source = _module(name, routes, frozenset(shown))
    here = resources.files(__package__)
    support = {file: here.joinpath(file).read_bytes() for file in TRAVELLERS}
    return {"service.py": source.encode(), **support, **shown}


def _routes(models: Sequence[ModelVersion], bento_models: Sequence[BentoModel]) -> list[Route]:
    if len(models) == 1:
        return [Route(models[0], bento_models[0].tag, "/predict", "", "")]
    names = [model.tag.partition(":")[0] for model in bento_models]
    segments = unique(
        f"{name}-{model.version}" if names.count(name) > 1 and model.version else name
        for name, model in zip(names, models, strict=True)
    )
    fields = unique(identifier(segment, fallback="model") for segment in segments)
    prefixes = unique(class_name(segment) for segment in segments)
    return [
        Route(model, bento_model.tag, f"/predict/{segment}", f"_{field}", prefix)
        for model, bento_model, segment, field, prefix in zip(
            models, bento_models, segments, fields, prefixes, strict=True
        )
    ]


def _module(name: str, routes: list[Route], examples: frozenset[str]) -> str:
    types = ServiceTypes()
    sections = [_section(route, types, route.example_file in examples) for route in routes]
    parts = [
        docstring(_description(name, routes, examples)),
        _imports(types),
        *(section.types for section in sections),
        _service(name, sections),
    ]
    return "\n\n\n".join(parts).replace('"""\n\n\nfrom __future__', '"""\n\nfrom __future__') + "\n"


def _section(route: Route, types: ServiceTypes, has_example: bool) -> _Section:
    signature = route.model.signature or ModelSignature()
    known = len(types.classes)
    inputs, data = _inputs(route, signature, types)
    params = (
        types.params_class(f"{route.prefix}Params", signature.params) if signature.params else ""
    )
    answer = types.answer(signature.outputs, route.prefix)
    examples = ""
    if has_example:
        types.imports.add("example")
        examples = f"examples=example({literal(route.example_file)})"
    request = f"{route.prefix}PredictRequest"
    body = [f"class {request}(Body):", f"    {docstring(f'The body of POST {route.path}.')}", ""]
    many = "min_length=1" if inputs.startswith("list[") else ""
    field = ", ".join(filter(None, [many, examples]))
    body.append(f"    inputs: {inputs}" + (f" = Field({field})" if field else ""))
    if params:
        body.append(f"    params: {params} = Field(default_factory={params})")
    method = _method(route, request, inputs, data, params, answer)
    return _Section(
        types="\n\n\n".join([*types.classes[known:], "\n".join(body)]),
        attribute=f"    model{route.suffix} = bentoml.models.BentoModel({literal(route.tag)})",
        load=f"        self.pyfunc{route.suffix} = "
        f"mlflow.pyfunc.load_model(self.model{route.suffix}.path)",
        method=method,
    )


def _inputs(route: Route, signature: ModelSignature, types: ServiceTypes) -> tuple[str, str]:
    """Give the type of `inputs` and the expression that hands them to the model."""
    columns = [field for field in signature.inputs if isinstance(field, Column)]
    if signature.kind == "columns":
        record = f"{route.prefix}Record"
        doc = "One row of input: the columns of the model's signature."
        name = types.row_class(record, doc, columns)
        types.imports.add("frame")
        return f"list[{name}]", "frame(inputs)"
    if signature.kind == "unnamed":
        types.imports.add("table")
        kinds = [types.value(column.type, f"{route.prefix} row") for column in columns]
        if _has_type_hints(route.model):
            types.imports = types.imports - {"table"} | {"native"}
            return f"list[{kinds[0]}]", "native(inputs)"
        if len(kinds) == 1:
            return f"list[{kinds[0]}]", f"table(inputs, {kinds[0]})"
        record = f"{route.prefix}Record"
        filled = textwrap.fill(
            ", ".join(kinds), 90, initial_indent="    ", subsequent_indent="    "
        )
        types.classes.append(f"{record} = tuple[  # one row of input\n{filled}\n]")
        return f"list[{record}]", f"table(inputs, {record})"
    if signature.kind == "tensor":
        types.classes.append(f"{route.prefix}Inputs = {types.tensor(signature.tensors[0])}")
        return f"{route.prefix}Inputs", "inputs"
    if signature.kind == "tensors":
        doc = "The tensors of the model's signature, each as nested lists."
        name = types.tensors_class(f"{route.prefix}Inputs", doc, signature.tensors)
        types.imports.add("arrays")
        return name, "arrays(inputs)"
    types.typing_names.add("Any")
    types.imports.add("free_form")
    return "Any", "free_form(inputs)"


def _has_type_hints(model: ModelVersion) -> bool:
    """Say whether MLflow hands the input on as it is, for the model's own hints to check."""
    return read_mlmodel_of(model.directory).has_type_hints


def _method(route: Route, request: str, inputs: str, data: str, params: str, answer: str) -> str:
    defaults = f", params: {params} = {params}()" if params else ""
    passed = f"{data}, params" if params else data
    of_model = f" of {route.tag.partition(':')[0]}" if route.suffix else ""
    path = f", route={literal(route.path)}" if route.suffix else ""
    wide = answer == "Any"
    return "\n".join(
        [
            f"    @bentoml.api(input_spec={request}{path})",
            f"    def predict{route.suffix}(self, inputs: {inputs}{defaults})"
            f" -> {answer if wide else f'SkipValidation[{answer}]'}:",
            f"        {docstring(f'The predictions{of_model}, in the order of the inputs.')}",
            f"        return answer(self.pyfunc{route.suffix}, {passed})",
        ]
    )


def _imports(types: ServiceTypes) -> str:
    standard = ["from datetime import datetime"] if "datetime" in types.imports else []
    if types.typing_names:
        standard.append(f"from typing import {', '.join(sorted(types.typing_names))}")
    outside = ["import bentoml", "from pydantic import Field, SkipValidation"]
    guard = "from pyfunc_guard import GuardedService"
    if "TypedDict" in types.imports:
        outside.append("from typing_extensions import TypedDict")
    names = types.imports - {"datetime", "TypedDict"} | {"Body", "answer"}
    ours = "from pyfunc_json import " + ", ".join(sorted(names, key=lambda n: (n.islower(), n)))
    if len(ours) > 100:
        wrapped = textwrap.fill(ours.partition("import ")[2], 94)
        ours = f"from pyfunc_json import (\n{textwrap.indent(wrapped, '    ')},\n)"
    groups = ["from __future__ import annotations", *(["\n".join(standard)] if standard else [])]
    groups.append("\n".join([*outside, guard, ours]))
    groups.append("with bentoml.importing():\n    import mlflow.pyfunc")
    return "\n\n".join(groups)


_TRAFFIC = 'traffic={"timeout": 60, "max_concurrency": 256}'
_GUARDED = "service_class=GuardedService"


def _service(name: str, sections: list[_Section]) -> str:
    lines = [
        "@bentoml.service(",
        f"    name={literal(name)},",
        "    description=__doc__,",
        "    envs=[",
        '        {"name": "BENTOML_DO_NOT_TRACK", "value": "true"},',
        '        {"name": "MLFLOW_DISABLE_TELEMETRY", "value": "true"},',
        "    ],",
        f"    {_TRAFFIC},",
        f"    {_GUARDED},",
        ")",
        f"class {service_class_name(name)}:",
        *(section.attribute for section in sections),
        "",
        "    def __init__(self) -> None:",
        *(section.load for section in sections),
    ]
    return "\n".join(lines) + "".join(f"\n\n{section.method}" for section in sections)


_SHAPES = {
    "columns": "a list of records, one object per row, with the column names as keys",
    "unnamed": "a list of rows, one value or one list of values per row",
    "tensor": "one tensor as nested lists",
    "tensors": "an object with each tensor as nested lists",
    "": "any JSON: a list of objects becomes a DataFrame, other lists an array",
}


def _description(name: str, routes: list[Route], examples: frozenset[str]) -> str:
    models = "an MLflow model" if len(routes) == 1 else f"{len(routes)} MLflow models"
    lines = [f"# {name}: a typed service for {models}", ""]
    for route in routes:
        signature = route.model.signature or ModelSignature()
        keys = '{"inputs": ..., "params": {...}}' if signature.params else '{"inputs": ...}'
        lines += [
            f"- `POST {route.path}` asks the model `{route.tag}`. The body is `{keys}`;",
            f"  `inputs` is {_SHAPES[signature.kind]}.",
        ]
    lines += ["", _RULES.strip()]
    for route in routes:
        if route.example_file in examples:
            lines += [
                "",
                f"A real request for `{route.path}`, from the model's own input example:",
                "",
                "    curl -H 'Content-Type: application/json' "
                f"-d @src/{route.example_file} localhost:3000{route.path}",
            ]
    lines += ["", "Generated by kfp-bento from what MLflow knows. Same models, same bytes.", ""]
    return "\n".join(lines)


_RULES = """
The answer is plain JSON: a list with one value or one record per row. NaN, infinity and missing
values are null, datetimes ISO 8601, binary data base64, in both directions.

A body that does not fit the signature is answered with status 400 and the name of the field.
Values are not converted: "5" is no number, 1.5 no integer. An optional column may be null or left
out. Datetimes with an offset are turned into UTC. A body is JSON, not compressed, of at most 16 MiB
and 100,000 rows, unless the service was started with other limits.

Where the service was started with a token, every request but those for its health needs the header
`Authorization: Bearer <token>`.

`GET /livez` and `GET /readyz` answer 200 as soon as every model is loaded. `GET /` in a browser
shows the API, to try it out.
"""


def _example(model: ModelVersion) -> bytes | None:
    try:
        body = json.dumps(prediction_request(model, rows=1), indent=2, ensure_ascii=False)
    except (BentoError, ValueError):
        return None
    encoded = (body + "\n").encode("utf-8", "replace")
    return encoded if len(encoded) <= LARGEST_EXAMPLE else None
