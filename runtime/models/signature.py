"""A model's signature, read once into values that can hold only what MLflow allows.

Sources: `mlflow/types/schema.py` (ColSpec, TensorSpec, ParamSpec and their `from_json_dict`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

from kfp_bento.runtime.errors import ModelError
from kfp_bento.runtime.files import parse_json_value

SCALARS = frozenset(
    ("boolean", "integer", "long", "float", "double", "string", "binary", "datetime")
)
"""MLflow's types of one value."""

Name: TypeAlias = str | int | float | bool | tuple[str | int | float | bool, ...] | None
"""A column's label: pandas has numbers as well, and several levels; None where it has no name."""

_DTYPE = re.compile(
    r"bool|u?int(8|16|32|64)?|float(8_[a-z0-9]{1,16}|16|32|64|80|96|128|256)?|bfloat16"
    r"|complex(64|128|160|192|256|512)?|str|bytes|object|void[0-9]{0,9}"
    r"|(datetime64|timedelta64)(\[[0-9]{0,9}(Y|M|W|D|h|m|s|ms|us|μs|ns|ps|fs|as)\])?"
)
"""The names that NumPy gives to its dtypes, as MLflow writes them (`numpy.dtype.name`)."""

_MOST_FIELDS = 100_000
_LONGEST_NAME = 4_096
_MOST_LEVELS = 16
_MOST_DIMENSIONS = 64
_DEEPEST = 32
_LARGEST = 2**64
_NOT_JSON = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


@dataclass(frozen=True)
class ValueType:
    """The type of a column, an item, a property or a parameter.

    Attributes:
        kind: One of `SCALARS`, or "array", "map", "object", "sparkml_vector" or "any".
        item: The type of an array's items and of a map's values.
        properties: The fields of an object.
    """

    kind: str
    item: ValueType | None = None
    properties: tuple[Column, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Give the type as MLflow writes it."""
        if self.kind == "object":
            fields = {field.key: field.to_dict() for field in self.properties}
            for field in fields.values():
                del field["name"]
            return {"type": self.kind, "properties": fields}
        if self.item is not None:
            inner = {"array": "items", "map": "values"}[self.kind]
            return {"type": self.kind, inner: self.item.to_dict()}
        return {"type": self.kind}


@dataclass(frozen=True)
class Column:
    """One column of a table, or one field of an object."""

    type: ValueType
    name: Name = None
    required: bool = True

    @property
    def key(self) -> str:
        """Its name as JSON has it."""
        return _key(self.name)

    def to_dict(self) -> dict[str, Any]:
        """Give the column as MLflow writes it."""
        return {**self.type.to_dict(), **_named(self.name), "required": self.required}


@dataclass(frozen=True)
class Tensor:
    """One tensor; a dimension of -1 may have any length."""

    dtype: str
    shape: tuple[int, ...]
    name: Name = None

    @property
    def key(self) -> str:
        """Its name as JSON has it."""
        return _key(self.name)

    def to_dict(self) -> dict[str, Any]:
        """Give the tensor as MLflow writes it."""
        spec = {"dtype": self.dtype, "shape": list(self.shape)}
        return {**_named(self.name), "type": "tensor", "tensor-spec": spec}


@dataclass(frozen=True)
class Parameter:
    """One inference parameter: a value with a default, or a list of values.

    Attributes:
        name: Its name.
        type: One of `SCALARS` but "binary", or an object.
        default: JSON of that type, or None; datetimes are ISO 8601.
        is_list: Whether it is a list of values.
    """

    name: str
    type: ValueType
    default: Any = None
    is_list: bool = False

    @property
    def key(self) -> str:
        """Its name."""
        return self.name

    def to_dict(self) -> dict[str, Any]:
        """Give the parameter as MLflow writes it; what JSON has no number for is a text."""
        shape = [-1] if self.is_list else None
        default = _plain_default(self.default)
        return {"name": self.name, "default": default, "shape": shape, **self.type.to_dict()}


Field: TypeAlias = Column | Tensor


def specification_kind(fields: tuple[Field, ...]) -> str:
    """Names the shape of one side of a signature.

    Args:
        fields: The inputs or the outputs.

    Returns:
        "columns" (named columns), "unnamed" (columns without names), "tensor" (one unnamed
        tensor), "tensors" (named tensors) or "" where the side is empty.
    """
    if not fields:
        return ""
    named = all(field.name not in (None, "") for field in fields)
    if isinstance(fields[0], Tensor):
        return "tensors" if named else "tensor"
    return "columns" if named else "unnamed"


@dataclass(frozen=True)
class ModelSignature:
    """A model's signature.

    Attributes:
        inputs: Columns or tensors that the model takes.
        outputs: The same for what it answers.
        params: Its inference parameters.
    """

    inputs: tuple[Field, ...] = ()
    outputs: tuple[Field, ...] = ()
    params: tuple[Parameter, ...] = ()

    @property
    def kind(self) -> str:
        """The shape of the inputs; see `specification_kind`."""
        return specification_kind(self.inputs)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The inputs that are tensors: all or none."""
        return tuple(field for field in self.inputs if isinstance(field, Tensor))

    @classmethod
    def from_mlmodel(cls, data: Mapping[str, Any]) -> ModelSignature:
        """Read the `signature` mapping of an `MLmodel` file, whose values are JSON strings.

        Raises:
            ModelError: It holds something that MLflow does not allow; the field is named.
        """
        sides = ("inputs", "outputs", "params")
        return cls.from_dict({side: _side(data.get(side), side) for side in sides})

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ModelSignature:
        """Read the lists of fields as MLflow, and `to_dict`, write them.

        Raises:
            ModelError: As `from_mlmodel` says.
        """
        return cls(
            _fields(data.get("inputs"), "inputs"),
            _fields(data.get("outputs"), "outputs"),
            tuple(
                _parameter(spec, f"params[{number}]")
                for number, spec in enumerate(_listed(data.get("params"), "params"))
            ),
        )

    def to_dict(self) -> dict[str, Any]:
        """Give the signature as plain lists, ready for JSON."""
        return {
            "inputs": [field.to_dict() for field in self.inputs],
            "outputs": [field.to_dict() for field in self.outputs],
            "params": [param.to_dict() for param in self.params],
        }


def _side(text: Any, side: str) -> Any:
    """One side's list; very old models hold it as YAML instead of JSON in a string."""
    if not isinstance(text, str):
        return text
    try:
        return parse_json_value(text.encode(), nan=True) if text else None
    except ValueError as failure:
        raise _wrong(side, f"is not JSON ({failure})") from None


def _listed(specs: Any, side: str) -> list[dict[str, Any]]:
    if specs is None:
        return []
    if not isinstance(specs, list) or not all(isinstance(spec, dict) for spec in specs):
        raise _wrong(side, "is not a JSON list of objects")
    if len(specs) > _MOST_FIELDS:
        raise _wrong(side, f"has more than {_MOST_FIELDS} fields")
    return specs


def _fields(specs: Any, side: str) -> tuple[Field, ...]:
    found: tuple[Field, ...] = tuple(
        _tensor(spec, f"{side}[{number}]")
        if spec.get("type") == "tensor"
        else _column(spec, f"{side}[{number}]")
        for number, spec in enumerate(_listed(specs, side))
    )
    tensors = [field for field in found if isinstance(field, Tensor)]
    if tensors and len(tensors) < len(found):
        raise _wrong(side, "has both columns and tensors")
    if len(tensors) > 1 and any(tensor.name in (None, "") for tensor in tensors):
        raise _wrong(side, "has several tensors, and not all have names")
    return found


def _column(spec: Mapping[str, Any], where: str) -> Column:
    return Column(
        _value_type(spec, where, _DEEPEST),
        _name(spec.get("name"), where),
        _is_required(spec, where),
    )


def _tensor(spec: Mapping[str, Any], where: str) -> Tensor:
    info = spec.get("tensor-spec")
    if not isinstance(info, dict):
        raise _wrong(where, "has no `tensor-spec`")
    dtype, shape = info.get("dtype"), info.get("shape")
    if not isinstance(dtype, str) or not _DTYPE.fullmatch(dtype):
        raise _wrong(where, f"has the dtype {_shown(dtype)}, which NumPy does not have")
    return Tensor(dtype, _lengths(shape, where), _name(spec.get("name"), where))


def _lengths(shape: Any, where: str) -> tuple[int, ...]:
    # bool is an int for Python.
    if (
        not isinstance(shape, list | tuple)
        or len(shape) > _MOST_DIMENSIONS
        or not all(type(length) is int and -1 <= length < 2**63 for length in shape)
    ):
        raise _wrong(
            where, f"has the shape {_shown(shape)}; it takes lengths, and -1 where any will do"
        )
    return tuple(shape)


def _value_type(spec: Any, where: str, levels: int) -> ValueType:
    if levels < 0:
        raise _wrong(where.partition(".")[0], f"is nested deeper than {_DEEPEST} levels")
    if not isinstance(spec, dict):
        raise _wrong(where, "is no object")
    kind = spec.get("type")
    if not isinstance(kind, str):
        raise _wrong(where, f"has the type {_shown(kind)}")
    if kind in SCALARS or kind in ("sparkml_vector", "any"):
        return ValueType(kind)
    if kind in ("array", "map"):
        inner = "items" if kind == "array" else "values"
        return ValueType(kind, _value_type(spec.get(inner), f"{where}.{inner}", levels - 1))
    if kind != "object":
        raise _wrong(where, f"has the type {_shown(kind)}, which MLflow does not have")
    properties = spec.get("properties")
    if not isinstance(properties, dict) or len(properties) > _MOST_FIELDS:
        raise _wrong(where, "has no `properties`")
    return ValueType(kind, properties=tuple(_properties(properties, where, levels - 1)))


def _properties(properties: Mapping[Any, Any], where: str, levels: int) -> list[Column]:
    found = []
    for number, (name, spec) in enumerate(properties.items()):
        here = f"{where}.properties[{number}]"
        if not isinstance(name, str):
            raise _wrong(here, "has a name that is no text")
        kind = _value_type(spec, here, levels)
        found.append(Column(kind, _name(name, here), _is_required(spec, here)))
    return found


def _is_required(spec: Mapping[str, Any], where: str) -> bool:
    required = spec.get("required", spec.get("optional") is not True)  # as MLflow 2.4 to 2.9 wrote
    if required is not None and not isinstance(required, bool):
        raise _wrong(where, f"has `required` {_shown(required)}")
    return bool(required)  # MLflow itself writes null for nested columns of its old versions


def _name(name: Any, where: str) -> Name:
    if isinstance(name, list | tuple):
        if not 0 < len(name) <= _MOST_LEVELS:
            raise _wrong(where, f"has a name of {len(name)} levels")
        return tuple(_label(level, where) for level in name)
    return None if name is None else _label(name, where)


def _label(name: Any, where: str) -> str | int | float | bool:
    if isinstance(name, str):
        if len(name) > _LONGEST_NAME:
            raise _wrong(where, f"has a name of more than {_LONGEST_NAME} characters")
        return name
    number = isinstance(name, int) and abs(name) < _LARGEST
    if number or (isinstance(name, float) and math.isfinite(name)):
        return name  # type: ignore[no-any-return]
    raise _wrong(where, f"has the name {_shown(name)}, which is neither text nor number")


def _parameter(spec: Mapping[str, Any], where: str) -> Parameter:
    name = spec.get("name")
    if not isinstance(name, str):
        raise _wrong(where, f"has the name {_shown(name)}, which is no text")
    # Old versions of MLflow wrote `dtype`.
    kind = _value_type({**spec, "type": spec.get("type") or spec.get("dtype")}, where, _DEEPEST)
    if kind.kind not in SCALARS | {"object"} or kind.kind == "binary":
        raise _wrong(where, f"has the type {kind.kind!r}, which no parameter has")
    shape = spec.get("shape")
    if shape is not None and (not isinstance(shape, list | tuple) or list(shape) != [-1]):
        raise _wrong(where, f"has the shape {_shown(shape)}; a parameter is a value or a list")
    is_list, default = shape is not None, spec.get("default")
    if is_list and default is not None:
        if not isinstance(default, list):
            raise _wrong(where, "has a default that is no list")
        default = [_default(item, kind.kind, where) for item in default]
    else:
        default = _default(default, kind.kind, where)
    return Parameter(str(_label(name, where)), kind, default, is_list)


def _default(value: Any, kind: str, where: str) -> Any:
    if value is None:
        return None
    if kind in ("float", "double") and isinstance(value, str):
        value = _NOT_JSON.get(value, value)
    whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) < _LARGEST
    fits = {
        "boolean": isinstance(value, bool),
        "integer": whole,
        "long": whole,
        "float": whole or isinstance(value, float),
        "double": whole or isinstance(value, float),
        "string": isinstance(value, str),
        "datetime": isinstance(value, str) and _is_moment(value),
        "object": isinstance(value, dict) and _is_json(value, _DEEPEST),
    }
    if not fits[kind]:
        raise _wrong(where, f"has the default {_shown(value)}, which is no {kind}")
    return math.nan if value != value else value  # the one NaN that equals itself in a tuple


def _is_moment(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _is_json(value: Any, levels: int) -> bool:
    if levels < 0:
        return False
    if isinstance(value, dict):
        named = all(isinstance(key, str) for key in value)
        return named and all(_is_json(item, levels - 1) for item in value.values())
    if isinstance(value, list):
        return all(_is_json(item, levels - 1) for item in value)
    return value is None or isinstance(value, str | bool | int | float)


def _plain_default(value: Any) -> Any:
    """Give what JSON has no number for as a text, at any depth."""
    if isinstance(value, dict):
        return {key: _plain_default(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain_default(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if value != value else f"{'-' if value < 0 else ''}Infinity"
    return value


def _key(name: Name) -> str:
    return str(list(name)) if isinstance(name, tuple) else str(name)


def _named(name: Name) -> dict[str, Any]:
    if name is None:
        return {}
    return {"name": list(name) if isinstance(name, tuple) else name}


def _shown(value: Any) -> str:
    """Give a value for a message: its beginning on one line."""
    text = ascii(value) if not isinstance(value, list | dict) or len(value) <= 8 else "…"
    return text if len(text) <= 60 else f"{text[:57]}..."


def _wrong(where: str, what: str) -> ModelError:
    return ModelError(
        f"The model's signature cannot be used: `{where}` {what}.",
        hint="Log the model again with mlflow.models.infer_signature.",
    )
