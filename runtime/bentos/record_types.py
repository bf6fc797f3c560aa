"""MLflow's column, tensor and parameter types, written as Python types for a typed service."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.bentos.naming import class_name, identifier, unique
from kfp_bento.runtime.errors import BentoError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_SCALARS = {
    "boolean": "Boolean",
    "integer": "Integer",
    "long": "Long",
    "float": "Float",
    "double": "Double",
    "string": "String",
    "binary": "Binary",
    "datetime": "Datetime",
}

_ANSWERS = {
    "boolean": "bool",
    "integer": "int",
    "long": "int",
    "float": "float | None",
    "double": "float | None",
    "string": "str",
    "binary": "str",
    "datetime": "str",
}
"""JSON types of answers; a NaN is answered as null, so that a float may always be None."""

_ANSWERED_KINDS = {
    "bool": "bool",
    "uint": "int",
    "int": "int",
    "float": "float | None",
    "str": "str",
}

_FIELDS_OF_BASE_MODEL = frozenset(
    (
        *("construct", "copy", "dict", "fields", "from_orm", "json", "parse_file", "parse_obj"),
        *("parse_raw", "schema", "schema_json", "update_forward_refs", "validate"),
    )
)
"""Names that pydantic's BaseModel has already; a field must not hide them."""


class ServiceTypes:
    """The types one service module needs, collected while its text is written.

    Attributes:
        classes: Source of the classes so far, in the order they have to be defined.
        imports: Names that come from `pyfunc_json`.
        typing_names: Names that come from `typing`.
    """

    def __init__(self) -> None:
        self.classes: list[str] = []
        self.imports: set[str] = set()
        self.typing_names: set[str] = set()
        self._class_names: set[str] = set()

    def column(self, spec: Mapping[str, Any], hint: str) -> str:
        """Gives the type of one column, array item, object property or map value.

        Args:
            spec: The entry of the signature.
            hint: Words for the name of a class, where the type is an object.

        Raises:
            BentoError: The signature has a type that MLflow does not document.
        """
        kind = spec.get("type", "")
        if kind in _SCALARS:
            return self._imported(_SCALARS[kind])
        if kind == "array":
            return f"list[{self.column(spec['items'], f'{hint} item')}]"
        if kind == "sparkml_vector":
            return f"list[{self._imported('Double')}]"
        if kind == "map":
            return f"dict[str, {self.column(spec['values'], f'{hint} value')}]"
        if kind == "any":
            self.typing_names.add("Any")
            return "Any"
        if kind == "object":
            properties = [{**value, "name": key} for key, value in spec["properties"].items()]
            return self.row_class(
                class_name(hint, "Object"), f"The object `{_words(hint)}`.", properties
            )
        raise BentoError(
            f"The model's signature has the type {kind!r}, which no service can be made for.",
            hint="Give your own service source, or log the model with a signature of known types.",
        )

    def row_class(self, name: str, doc: str, columns: Iterable[Mapping[str, Any]]) -> str:
        """Adds a record class with one field per column and gives its name."""
        columns = list(columns)
        name = self._unused(name)
        fields = []
        for field, column in zip(_fields(columns), columns, strict=True):
            outer = name.removesuffix("Record").removesuffix("Object")
            kind = self.column(column, f"{outer} {column['name']}".strip())
            if not isinstance(column["name"], str):
                self.typing_names.add("Annotated")
                self._imported("Label")
                kind = f"Annotated[{kind}, Label({column['name']!r})]"
            fields.append(_field(field, str(column["name"]), kind, column.get("required", True)))
        self._add_class(name, doc, fields)
        return name

    def tensors_class(self, name: str, doc: str, tensors: Iterable[Mapping[str, Any]]) -> str:
        """Adds a class with one field per named tensor and gives its name."""
        tensors = list(tensors)
        name = self._unused(name)
        self._add_class(
            name,
            doc,
            [
                _field(field, str(tensor["name"]), self.tensor(tensor), required=True)
                for field, tensor in zip(_fields(tensors), tensors, strict=True)
            ],
        )
        return name

    def tensor(self, spec: Mapping[str, Any]) -> str:
        """Gives the type of one tensor."""
        info = spec["tensor-spec"]
        shape = "".join(f", {length}" for length in info["shape"])
        return f"{self._imported('tensor')}({literal(info['dtype'])}{shape})"

    def params_class(self, name: str, params: Iterable[Mapping[str, Any]]) -> str:
        """Adds the class of inference parameters with their defaults and gives its name."""
        params = list(params)
        name = self._unused(name)
        lines = []
        for field, param in zip(_fields(params), params, strict=True):
            kind = self._param(param)
            default = self._default(param)
            if default == "None":
                kind = kind if kind == "Any" else f"{kind} | None"
            alias = "" if field == param["name"] else f", alias={literal(param['name'])}"
            value = f"Field(default={default}{alias})" if alias else default
            lines.append(f"    {field}: {kind} = {value}")
        self._add_class(name, "Parameters of one request; each has the model's own default.", lines)
        return name

    def answer(self, outputs: tuple[Mapping[str, Any], ...], prefix: str) -> str:
        """Gives the JSON type of the model's answer, as far as the signature tells it."""
        kinds = [spec.get("type", "") for spec in outputs]
        named = [spec for spec in outputs if spec.get("name") not in (None, "")]
        if kinds == ["tensor"] and not named:
            info = outputs[0]["tensor-spec"]
            kind = _ANSWERED_KINDS.get(info["dtype"].rstrip("0123456789")) or self._any()
            for _ in info["shape"]:
                kind = f"list[{kind}]"
            return kind
        if "tensor" in kinds:
            return f"dict[str, {self._any()}]"
        if len(outputs) == 1 and not named and kinds[0] in _ANSWERS:
            return f"list[{_ANSWERS[kinds[0]]}]"
        if len(named) > 1:
            return f"list[{self._answer_class(f'{prefix}Prediction', named)}]"
        return f"list[{self._any()}]" if outputs else self._any()

    def _answer_class(self, name: str, columns: list[Mapping[str, Any]]) -> str:
        name = self._unused(name)
        self.imports.add("TypedDict")
        lines = [f"{name} = TypedDict(", f"    {literal(name)},", "    {"]
        for column in columns:
            kind = _ANSWERS.get(column["type"]) or self._any()
            lines.append(f"        {literal(str(column['name']))}: {kind},")
        self.classes.append("\n".join([*lines, "    },", ")"]))
        return name

    def _param(self, param: Mapping[str, Any]) -> str:
        kind = param.get("type") or param.get("dtype") or ""
        if kind == "object":
            return f"dict[str, {self._any()}]"
        scalar = self.column({"type": kind}, "")
        return scalar if param.get("shape") is None else f"list[{scalar}]"

    def _default(self, param: Mapping[str, Any]) -> str:
        default = param.get("default")
        if (param.get("type") or param.get("dtype")) != "datetime" or default is None:
            return python_literal(default)
        self.imports.add("datetime")
        if isinstance(default, list):
            moments = ", ".join(f"datetime.fromisoformat({literal(text)})" for text in default)
            return f"[{moments}]"
        return f"datetime.fromisoformat({literal(default)})"

    def _add_class(self, name: str, doc: str, lines: list[str]) -> None:
        self._imported("Row")
        self.classes.append("\n".join([f"class {name}(Row):", f'    """{doc}"""', "", *lines]))

    def _imported(self, name: str) -> str:
        self.imports.add(name)
        return name

    def _any(self) -> str:
        self.typing_names.add("Any")
        return "Any"

    def _unused(self, name: str) -> str:
        number, candidate = 2, name
        while candidate in self._class_names or candidate in MODULE_NAMES:
            candidate, number = f"{name}{number}", number + 1
        self._class_names.add(candidate)
        return candidate


MODULE_NAMES = frozenset(
    (
        *("Annotated", "Any", "BaseModel", "Binary", "Body", "Boolean", "Datetime", "Double"),
        *("Field", "Float", "Integer", "Label", "Long", "Row", "SkipValidation", "String"),
        *("TypedDict", "answer", "arrays", "bentoml", "datetime", "example", "frame"),
        *("free_form", "mlflow", "native", "table", "tensor"),
    )
)
"""Names with a meaning of their own in a service module."""


def literal(text: str) -> str:
    """Gives a string as Python source, in double quotes, printable characters as they are."""
    if text.isprintable():
        return json.dumps(text, ensure_ascii=False)
    return ascii(text)


def python_literal(value: Any) -> str:
    """Gives JSON data as Python source."""
    if isinstance(value, str):
        return literal(value)
    if isinstance(value, list):
        return "[" + ", ".join(python_literal(item) for item in value) + "]"
    if isinstance(value, dict):
        items = (f"{literal(str(key))}: {python_literal(item)}" for key, item in value.items())
        return "{" + ", ".join(items) + "}"
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return f'float("{value}")'
    return repr(value)


def _fields(columns: list[Mapping[str, Any]]) -> list[str]:
    reserved = MODULE_NAMES | _FIELDS_OF_BASE_MODEL
    return unique(
        identifier(str(column["name"]), fallback=f"column_{number}", reserved=reserved)
        for number, column in enumerate(columns, start=1)
    )


def _field(field: str, key: str, kind: str, required: bool) -> str:
    alias = [] if field == key else [f"alias={literal(key)}"]
    if not required and kind != "Any":
        kind = f"{kind} | None"
    if required:
        value = f" = Field({alias[0]})" if alias else ""
    else:
        value = f" = Field({', '.join(['default=None', *alias])})" if alias else " = None"
    return f"    {field}: {kind}{value}"


def _words(hint: str) -> str:
    return " ".join("".join(c if c.isalnum() else " " for c in hint).split())
