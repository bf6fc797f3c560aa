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
    "string": "str | None",
    "binary": "str | None",
    "datetime": "str | None",
}
"""JSON types of answers; what is missing is answered as null, where the type can be missing."""

_NUMBERS = frozenset(("float", "double"))
"""What is missing is NaN wherever they stand, also inside of arrays and objects."""

_NULLABLE = _NUMBERS | {"string", "binary", "datetime"}
"""Column types that can be missing: "required" says only that the column has to be there."""

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
        by_hints: Whether the model's own type hints check what is missing: a field of theirs that
            has a default is required in the signature.
    """

    def __init__(self) -> None:
        self.classes: list[str] = []
        self.imports: set[str] = set()
        self.typing_names: set[str] = set()
        self.by_hints = False
        self._class_names: set[str] = set()

    def column(self, type_: ValueType, hint: str, *, required: bool = True) -> str:
        """Give the type of one column, with null where MLflow takes a missing value.

        Args:
            type_: The type in the signature.
            hint: Words for the name of a class, where the type is an object.
            required: Whether the column has to be there.
        """
        if type_.kind in _NULLABLE:
            return self._nullable(_SCALARS[type_.kind])
        kind = self.value(type_, hint, required=required)
        return kind if required else _or_null(kind)

    def value(self, type_: ValueType, hint: str, *, required: bool = True) -> str:
        """Give the type of one array item, object property or map value.

        Args:
            type_: The type in the signature.
            hint: Words for the name of a class, where the type is an object.
            required: Whether MLflow lets what is in arrays and maps be null.
        """
        if type_.kind in _NUMBERS:
            return self._nullable(_SCALARS[type_.kind])
        if type_.kind in _SCALARS:
            return self._imported(_SCALARS[type_.kind])
        if type_.kind == "array" and type_.item:
            item = self.value(type_.item, f"{hint} item", required=required)
            of_scalars = required or type_.item.kind in _SCALARS
            return f"list[{item if of_scalars else _or_null(item)}]"
        if type_.kind == "sparkml_vector":
            return f"list[{self._imported('Double')}]"
        if type_.kind == "map" and type_.item:
            item = self.value(type_.item, f"{hint} value", required=required)
            return f"dict[str, {item if required else _or_null(item)}]"
        if type_.kind == "object":
            doc = f"The object `{_words(hint)}`."
            name = class_name(hint, "Object")
            return self.row_class(name, doc, type_.properties, in_column=True)
        return self._any()

    def row_class(
        self, name: str, doc: str, columns: Sequence[Column], *, in_column: bool = False
    ) -> str:
        """Add a record class with one field per column and give its name.

        Args:
            name: The name, if it is not taken.
            doc: What the class says of itself.
            columns: The columns of a table, or the properties of an object.
            in_column: Whether it is an object inside of a column: MLflow checks what must be there
                value by value, and lets none be null.
        """
        name = self._unused(name)
        fields = []
        for field, column in zip(_fields(columns), columns, strict=True):
            outer = name.removesuffix("Record").removesuffix("Object")
            hint = f"{outer} {column.key}".strip()
            if in_column and column.required:
                kind = self.value(column.type, hint)
            else:
                kind = self.column(column.type, hint, required=column.required)
            if not isinstance(column.name, str):
                self.typing_names.add("Annotated")
                self._imported("Label")
                kind = f"Annotated[{kind}, Label({python_literal(column.name)})]"
            fields.append(_field(field, column.key, kind, column.required and not self.by_hints))
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
        return f"list[{scalar}]" if param.is_list else _or_null(scalar)

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

    def _nullable(self, name: str) -> str:
        return f"{self._imported('Nullable')}[{self._imported(name)}]"

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
        *(
            "Field",
            "Float",
            "FrameBody",
            "Integer",
            "Label",
            "Long",
            "Nullable",
            "Row",
            "SkipValidation",
        ),
        *("String", "TypedDict", "answer", "arrays", "bentoml", "datetime", "example", "frame"),
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
    if required:
        value = f" = Field({alias[0]})" if alias else ""
    else:
        value = f" = Field({', '.join(['default=None', *alias])})" if alias else " = None"
    return f"    {field}: {kind}{value}"


def _or_null(kind: str) -> str:
    return kind if kind == "Any" or kind.startswith("Nullable[") else f"{kind} | None"


def _words(hint: str) -> str:
    return " ".join("".join(c if c.isalnum() else " " for c in hint).split())
