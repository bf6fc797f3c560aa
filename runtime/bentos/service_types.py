"""MLflow's column, tensor and parameter types, written as Python types for a typed service."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.bentos.naming import class_name, identifier, unique
from kfp_bento.runtime.models import Column, Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kfp_bento.runtime.models import Field, Parameter, ValueType

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

    def value(self, type_: ValueType, hint: str) -> str:
        """Give the type of one column, array item, object property or map value.

        Args:
            type_: The type in the signature.
            hint: Words for the name of a class, where the type is an object.
        """
        if type_.kind in _SCALARS:
            return self._imported(_SCALARS[type_.kind])
        if type_.kind == "array" and type_.item:
            return f"list[{self.value(type_.item, f'{hint} item')}]"
        if type_.kind == "sparkml_vector":
            return f"list[{self._imported('Double')}]"
        if type_.kind == "map" and type_.item:
            return f"dict[str, {self.value(type_.item, f'{hint} value')}]"
        if type_.kind == "object":
            doc = f"The object `{_words(hint)}`."
            return self.row_class(class_name(hint, "Object"), doc, type_.properties)
        return self._any()

    def row_class(self, name: str, doc: str, columns: Sequence[Column]) -> str:
        """Add a record class with one field per column and give its name."""
        name = self._unused(name)
        fields = []
        for field, column in zip(_fields(columns), columns, strict=True):
            outer = name.removesuffix("Record").removesuffix("Object")
            kind = self.value(column.type, f"{outer} {column.key}".strip())
            if not isinstance(column.name, str):
                self.typing_names.add("Annotated")
                self._imported("Label")
                kind = f"Annotated[{kind}, Label({python_literal(column.name)})]"
            fields.append(_field(field, column.key, kind, column.required))
        self._add_class(name, doc, fields)
        return name

    def tensors_class(self, name: str, doc: str, tensors: Sequence[Tensor]) -> str:
        """Add a class with one field per named tensor and give its name."""
        name = self._unused(name)
        self._add_class(
            name,
            doc,
            [
                _field(field, tensor.key, self.tensor(tensor), required=True)
                for field, tensor in zip(_fields(tensors), tensors, strict=True)
            ],
        )
        return name

    def tensor(self, tensor: Tensor) -> str:
        """Give the type of one tensor."""
        shape = "".join(f", {length:d}" for length in tensor.shape)
        return f"{self._imported('tensor')}({literal(tensor.dtype)}{shape})"

    def params_class(self, name: str, params: Sequence[Parameter]) -> str:
        """Add the class of inference parameters with their defaults and give its name."""
        name = self._unused(name)
        lines = []
        for field, param in zip(_fields(params), params, strict=True):
            kind = self._param(param)
            default = self._default(param)
            if default == "None":
                kind = kind if kind == "Any" else f"{kind} | None"
            alias = "" if field == param.name else f", alias={literal(param.name)}"
            value = f"Field(default={default}{alias})" if alias else default
            lines.append(f"    {field}: {kind} = {value}")
        self._add_class(name, "Parameters of one request; each has the model's own default.", lines)
        return name

    def answer(self, outputs: Sequence[Field], prefix: str) -> str:
        """Give the JSON type of the model's answer, as far as the signature tells it."""
        columns = [field for field in outputs if isinstance(field, Column)]
        named = [column for column in columns if column.name not in (None, "")]
        if not outputs:
            return self._any()
        if not columns:
            return self._answered_tensors(outputs)
        if len(columns) == 1 and not named and columns[0].type.kind in _ANSWERS:
            return f"list[{_ANSWERS[columns[0].type.kind]}]"
        if len(named) > 1:
            return f"list[{self._answer_class(f'{prefix}Prediction', named)}]"
        return f"list[{self._any()}]"

    def _answered_tensors(self, outputs: Sequence[Field]) -> str:
        tensor = outputs[0]
        if not isinstance(tensor, Tensor) or tensor.name not in (None, ""):
            return f"dict[str, {self._any()}]"
        kind = _ANSWERED_KINDS.get(tensor.dtype.rstrip("0123456789")) or self._any()
        for _ in tensor.shape:
            kind = f"list[{kind}]"
        return kind

    def _answer_class(self, name: str, columns: Sequence[Column]) -> str:
        name = self._unused(name)
        self.imports.add("TypedDict")
        lines = [f"{name} = TypedDict(", f"    {literal(name)},", "    {"]
        for column in columns:
            kind = _ANSWERS.get(column.type.kind) or self._any()
            lines.append(f"        {literal(column.key)}: {kind},")
        self.classes.append("\n".join([*lines, "    },", ")"]))
        return name

    def _param(self, param: Parameter) -> str:
        if param.type.kind == "object":
            return f"dict[str, {self._any()}]"
        scalar = self.value(param.type, "")
        return f"list[{scalar}]" if param.is_list else scalar

    def _default(self, param: Parameter) -> str:
        default = param.default
        if param.type.kind != "datetime" or default is None:
            return python_literal(default)
        self.imports.add("datetime")
        if isinstance(default, list):
            return f"[{', '.join(map(_moment, default))}]"
        return _moment(default)

    def _add_class(self, name: str, doc: str, lines: list[str]) -> None:
        self._imported("Row")
        head = [f"class {name}(Row):", f"    {docstring(doc)}", ""]
        self.classes.append("\n".join([*head, *lines]))

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
    """Give a string as Python source, in double quotes, printable characters as they are."""
    if text.isprintable():
        return json.dumps(text, ensure_ascii=False)
    return ascii(text)


def docstring(text: str) -> str:
    """Give a docstring: text that is no plain words cannot end it, nor be anything but text."""
    safe = text.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    return (
        '"""' + "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in safe) + '"""'
    )


def python_literal(value: Any) -> str:
    """Give JSON data, and tuples of it, as Python source.

    Raises:
        TypeError: It is something else, which nobody said how to write.
    """
    if isinstance(value, str):
        return literal(value)
    if isinstance(value, tuple):
        return "(" + "".join(f"{python_literal(item)}, " for item in value).rstrip(" ") + ")"
    if isinstance(value, list):
        return "[" + ", ".join(python_literal(item) for item in value) + "]"
    if isinstance(value, dict):
        items = (f"{literal(str(key))}: {python_literal(item)}" for key, item in value.items())
        return "{" + ", ".join(items) + "}"
    if value is None or isinstance(value, bool):
        return str(value)
    if isinstance(value, int):
        return f"{value:d}"
    if isinstance(value, float):
        return repr(float(value)) if math.isfinite(value) else f'float("{value:f}")'
    raise TypeError(f"{type(value).__name__} is no JSON")


def _moment(text: str) -> str:
    return f"datetime.fromisoformat({literal(text)})"


def _fields(columns: Sequence[Column | Tensor | Parameter]) -> list[str]:
    reserved = MODULE_NAMES | _FIELDS_OF_BASE_MODEL
    return unique(
        identifier(column.key, fallback=f"column_{number}", reserved=reserved)
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
