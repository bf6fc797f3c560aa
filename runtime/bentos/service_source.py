"""The source of a generated service: typed after the models' signatures, made to be read."""

from __future__ import annotations

import json
import re
import textwrap
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.bentos.naming import class_name, identifier, unique
from kfp_bento.runtime.bentos.requests import prediction_request
from kfp_bento.runtime.bentos.service_types import ServiceTypes, docstring, literal
from kfp_bento.runtime.errors import BentoError, InvalidInput
from kfp_bento.runtime.files import parse_json_value, read_small_file, reading
from kfp_bento.runtime.models import Column, ModelSignature, model_files, read_mlmodel_of

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from kfp_bento.runtime.bentos.bento import Bento, BentoModel
    from kfp_bento.runtime.models import ModelVersion

SERVICE_MODULE = "kfp_bento_service"
"""The module of a generated service; a model's own code often has a `service`."""

SUPPORT_MODULE = "pyfunc_json.py"
"""The module of this package that travels with every generated service."""

GUARD_MODULE = "pyfunc_guard.py"
"""The same, for the border of the service: tokens, limits, what is logged."""

LARGEST_SERVICE = 16 * 1024 * 1024
"""Bytes of a service's module that are looked at; a signature may have many thousand columns."""

TRAVELLERS = tuple(
    sorted(
        path.name
        for path in Path(__file__).parent.iterdir()
        if path.name.startswith("pyfunc_") and path.suffix == ".py"
    )
)
"""All modules that travel with every generated service."""

PROTOCOLS = ("mlflow", "v2", "v1")
"""What a service speaks besides JSON on `/predict`: MLflow's protocol and both of KServe's."""

MOST_ROWS = 100_000
MOST_MILLISECONDS = 30_000

EXAMPLE_FILE = "example{suffix}.json"

_TEMPLATES = Path(__file__).with_name("templates")

LARGEST_EXAMPLE = 64 * 1024
"""Bytes; a longer input example stays out of the service's API page."""


@dataclass(frozen=True)
class Speech:
    """What a generated service speaks, and how it works.

    Attributes:
        protocols: Those of `PROTOCOLS` that it speaks, in that order.
        max_batch_size: Rows of requests that are put together into one call; 0 is not at all.
        max_latency_ms: How long a request waits for others at most, in milliseconds.
    """

    protocols: tuple[str, ...] = PROTOCOLS
    max_batch_size: int = 0
    max_latency_ms: int = 0

    def __post_init__(self) -> None:
        """Refuse what no service can speak or do."""
        unknown = sorted(set(self.protocols) - set(PROTOCOLS))
        if unknown:
            raise InvalidInput(
                f"{unknown[0]!r} is no protocol of a generated service.",
                hint=f"Choose among {', '.join(PROTOCOLS)}; JSON on /predict is always there.",
            )
        in_order = tuple(name for name in PROTOCOLS if name in self.protocols)
        object.__setattr__(self, "protocols", in_order)  # what is the same has the same bytes
        if not 0 <= self.max_batch_size <= MOST_ROWS or self.max_batch_size == 1:
            raise InvalidInput(
                f"max_batch_size is {self.max_batch_size}, and not 0, or 2 to {MOST_ROWS:,}.",
                hint="0 asks the model for each request by itself.",
            )
        if not 0 <= self.max_latency_ms <= MOST_MILLISECONDS:
            raise InvalidInput(
                f"max_latency_ms is {self.max_latency_ms}, and not 0 to {MOST_MILLISECONDS:,}.",
                hint="0 lets no request wait that could be answered.",
            )
        if self.max_latency_ms and not self.max_batch_size:
            raise InvalidInput(
                "max_latency_ms is for requests that are put together, and none are.",
                hint="Give max_batch_size too, the most rows of one call.",
            )


EVERY_PROTOCOL = Speech()


@dataclass(frozen=True)
class Route:
    """One model of a service and the route that asks it.

    Attributes:
        model: The model.
        tag: Its BentoML tag.
        path: The HTTP path.
        digest: The digest of its content.
        suffix: What tells this model's names from the others': "" when there is one model only.
        prefix: The same for class names.
    """

    model: ModelVersion
    tag: str
    digest: str
    path: str
    suffix: str
    prefix: str

    @property
    def example_file(self) -> str:
        """Name of the file with one real request body."""
        return EXAMPLE_FILE.format(suffix=self.suffix)

    @property
    def signature(self) -> ModelSignature:
        """The model's signature, an empty one where it has none."""
        return self.model.signature or ModelSignature()


@dataclass(frozen=True)
class _Section:
    """What one route adds to the module.

    Attributes:
        route: The route.
        classes: Source of the classes that its types need.
        request: Name of the class of its body.
        base: Name of the base of that class.
        inputs: Type of the inputs.
        field: What is said of the inputs besides.
        params: Name of the class of its parameters, or "".
        data: The expression that hands the inputs, which are `{}` in it, to the model.
        answer: Type of the answer.
    """

    route: Route
    classes: Sequence[str]
    request: str
    base: str
    inputs: str
    field: str
    params: str
    data: str
    answer: str


def sample_request(bento: Bento | None) -> Any:
    """Give the request body that a generated service of one model has as its example.

    Args:
        bento: The bento; None where a stored model is served.

    Returns:
        The body of `POST /predict`; None where the service is not a generated one, or where its
        model has no input example.
    """
    if bento is None or not is_generated(bento):
        return None
    example = bento.directory / "src" / EXAMPLE_FILE.format(suffix="")
    if not example.is_file():
        return None
    problem = f"The example {example.name} of the bento {bento.tag} cannot be read"
    with reading(problem, BentoError, hint="Build the bento again."):
        return parse_json_value(read_small_file(example, 2 * LARGEST_EXAMPLE), nan=True)


def is_generated(bento: Bento) -> bool:
    """Say whether a bento's service was generated from the signatures of its models."""
    return (bento.directory / "src" / SUPPORT_MODULE).is_file()


def can_require_token(bento: Bento) -> bool:
    """Say whether a bento's service lets only callers with a token in, where it is given one.

    Generated services do, through `KFP_BENTO_API_TOKEN` or `KFP_BENTO_API_TOKEN_FILE`; those of
    users, and those that were generated before there were tokens, do not know these variables.
    """
    source = bento.directory / "src"
    try:
        service = read_small_file(source / f"{SERVICE_MODULE}.py", LARGEST_SERVICE).decode()
    except (OSError, ValueError):
        return False
    return (source / GUARD_MODULE).is_file() and "\n    service_class=GuardedService,\n" in service


def service_class_name(name: str) -> str:
    """Give the class name of the generated service of a bento, such as `WineService`."""
    return class_name(name, "Service")


def generated_files(
    name: str,
    models: Sequence[ModelVersion],
    bento_models: Sequence[BentoModel],
    *,
    show_example: bool = True,
    speaks: Speech = EVERY_PROTOCOL,
) -> dict[str, bytes]:
    """Give the source files of a generated service by name.

    One model is asked at `POST /predict`; each of several models at `POST /predict/<model name>`.

    Args:
        name: The bento's name.
        models: The models, in the order the caller gave them.
        bento_models: Their tags in the bento, in the same order.
        show_example: Whether the API page shows the first row of each model's input example.
        speaks: The protocols, and how requests are put together.

    Raises:
        BentoError: A signature has a type that no service can be made for, or a model brings a
            module with a name of the service's own.
    """
    _check_module_names(models)
    routes = service_routes(models, bento_models)
    examples = {route.example_file: _example(route.model) for route in routes if show_example}
    shown = {file: body for file, body in examples.items() if body}
    source = _module(name, routes, shown, speaks)
    here = resources.files(__package__)
    support = {file: here.joinpath(file).read_bytes() for file in TRAVELLERS}
    return {f"{SERVICE_MODULE}.py": source.encode(), **support, **shown}


def _check_module_names(models: Sequence[ModelVersion]) -> None:
    """Refuse a model whose code would be imported instead of the service's, or the other way."""
    own = {SERVICE_MODULE, *(file.removesuffix(".py") for file in TRAVELLERS)}
    for model in models:
        for file in sorted(model_files(model.directory)):
            folder, _, rest = file.partition("/")
            if folder == "code" and re.split(r"[./]", rest)[0] in own:
                raise BentoError(
                    f"The model {model.uri or model.name} brings the file {file}, and the service "
                    "has a module of that name too; Python would import one in place of the other.",
                    hint="Log the model again with that module under another name.",
                )


def service_routes(
    models: Sequence[ModelVersion], bento_models: Sequence[BentoModel]
) -> list[Route]:
    """Give the route of each model in a generated service."""
    if len(models) == 1:
        return [Route(models[0], bento_models[0].tag, bento_models[0].digest, "/predict", "", "")]
    names = [model.tag.partition(":")[0] for model in bento_models]
    segments = unique(
        f"{name}-{model.version}" if names.count(name) > 1 and model.version else name
        for name, model in zip(names, models, strict=True)
    )
    fields = unique(identifier(segment, fallback="model") for segment in segments)
    prefixes = unique(class_name(segment) for segment in segments)
    return [
        Route(
            model,
            bento_model.tag,
            bento_model.digest,
            f"/predict/{segment}",
            f"_{field}",
            prefix,
        )
        for model, bento_model, segment, field, prefix in zip(
            models, bento_models, segments, fields, prefixes, strict=True
        )
    ]


def _module(name: str, routes: list[Route], examples: Collection[str], speaks: Speech) -> str:
    """Give the service's source; what is not ours goes through `literal` or `docstring`."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    types = ServiceTypes()
    sections = [_section(route, types, route.example_file in examples) for route in routes]
    environment = Environment(  # noqa: S701 - the source of a program, not of a page
        loader=FileSystemLoader(_TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(literal=literal, docstring=docstring)
    description = environment.get_template("description.md.jinja").render(
        name=name, sections=sections, examples=examples, speaks=speaks
    )
    return environment.get_template("service.py.jinja").render(
        name=name,
        service_class=service_class_name(name),
        description=description,
        types=types,
        support_import=_support_import(types),
        sections=sections,
        speaks=speaks,
    )


def _section(route: Route, types: ServiceTypes, has_example: bool) -> _Section:
    known = len(types.classes)
    inputs, data = _inputs(route, types)
    params = route.signature.params
    params_class = types.params_class(f"{route.prefix}Params", params) if params else ""
    answer = types.answer(route.signature.outputs, route.prefix)
    base = "FrameBody" if data.startswith("frame(") else "Body"
    types.imports.add(base)
    limits = ["min_length=1"] if inputs.startswith("list[") else []
    if has_example:
        types.imports.add("example")
        limits.append(f"examples=example({literal(route.example_file)})")
    return _Section(
        route,
        classes=types.classes[known:],
        request=f"{route.prefix}PredictRequest",
        base=base,
        inputs=inputs,
        field=f" = Field({', '.join(limits)})" if limits else "",
        params=params_class,
        data=data,
        answer=answer if answer == "Any" else f"SkipValidation[{answer}]",
    )


def _inputs(route: Route, types: ServiceTypes) -> tuple[str, str]:
    """Give the type of `inputs` and the expression that hands them to the model."""
    signature = route.signature
    types.by_hints = _has_type_hints(route.model)
    columns = [field for field in signature.inputs if isinstance(field, Column)]
    if signature.kind == "columns":
        record = f"{route.prefix}Record"
        doc = "One row of input: the columns of the model's signature."
        name = types.row_class(record, doc, columns)
        types.imports.add("frame")
        return f"list[{name}]", "frame({})"
    if signature.kind == "unnamed":
        if types.by_hints:
            types.imports.add("native")
            return f"list[{types.value(columns[0].type, f'{route.prefix} row')}]", "native({})"
        types.imports.add("table")
        kinds = [types.column(column.type, f"{route.prefix} row") for column in columns]
        if len(kinds) == 1:
            return f"list[{kinds[0]}]", f"table({{}}, {kinds[0]})"
        record = f"{route.prefix}Record"
        filled = textwrap.fill(
            ", ".join(kinds), 90, initial_indent="    ", subsequent_indent="    "
        )
        types.classes.append(f"{record} = tuple[  # one row of input\n{filled}\n]")
        return f"list[{record}]", f"table({{}}, {record})"
    if signature.kind == "tensor":
        types.classes.append(f"{route.prefix}Inputs = {types.tensor(signature.tensors[0])}")
        return f"{route.prefix}Inputs", "{}"
    if signature.kind == "tensors":
        doc = "The tensors of the model's signature, each as nested lists."
        name = types.tensors_class(f"{route.prefix}Inputs", doc, signature.tensors)
        types.imports.add("arrays")
        return name, "arrays({})"
    types.typing_names.add("Any")
    types.imports.add("free_form")
    return "Any", "free_form({})"


def _has_type_hints(model: ModelVersion) -> bool:
    """Say whether MLflow hands the input on as it is, for the model's own hints to check."""
    return read_mlmodel_of(model.directory).has_type_hints


def _support_import(types: ServiceTypes) -> str:
    names = types.imports - {"datetime", "TypedDict"} | {"answer"}
    listed = ", ".join(sorted(names, key=lambda name: (name.islower(), name)))
    line = f"from pyfunc_json import {listed}"
    if len(line) <= 100:
        return line
    wrapped = textwrap.indent(textwrap.fill(listed, 94), "    ")
    return f"from pyfunc_json import (\n{wrapped},\n)"


def _example(model: ModelVersion) -> bytes | None:
    try:
        body = json.dumps(prediction_request(model, rows=1), indent=2, ensure_ascii=False)
    except (BentoError, ValueError):
        return None
    encoded = (body + "\n").encode("utf-8", "replace")
    return encoded if len(encoded) <= LARGEST_EXAMPLE else None
