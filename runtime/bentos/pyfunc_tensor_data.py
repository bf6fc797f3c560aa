"""Tensors of the Open Inference Protocol to JSON of a model's own route, and answers to tensors.

This file lies beside the service in every bento that kfp-bento generates. The content types are
those of MLServer: `pd`, a DataFrame with a tensor for each column; `np`; `str`; `base64`;
`datetime`; `pd_json`, where each element is the JSON of a list or an object.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import bentoml
from pyfunc_answers import plain  # type: ignore[import-not-found]
from pyfunc_binary import Blobs, blob_of  # type: ignore[import-not-found]
from pyfunc_endpoints import Refused  # type: ignore[import-not-found]
from pyfunc_guard import LIMITS  # type: ignore[import-not-found]

with bentoml.importing():
    import numpy as np
    import pandas as pd

DATATYPES = {
    **{"bool": "BOOL", "float16": "FP16", "float32": "FP32", "float64": "FP64"},
    **{f"int{bits}": f"INT{bits}" for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": f"UINT{bits}" for bits in (8, 16, 32, 64)},
}
"""Datatypes of the protocol by NumPy's names; all others are BYTES."""

COLUMN_DATATYPES = {
    **{"boolean": "BOOL", "integer": "INT32", "long": "INT64", "float": "FP32", "double": "FP64"},
}
"""Datatypes by MLflow's names of column types; all others are BYTES."""

COLUMN_CONTENT = {"string": "str", "binary": "base64", "datetime": "datetime"}


class Tensor(NamedTuple):
    """A tensor of a request.

    Attributes:
        name: Its name.
        shape: Its shape.
        values: Its elements in that shape: nested lists, or an array where they came as bytes.
    """

    name: str
    shape: tuple[int, ...]
    values: Any

    @property
    def is_array(self) -> bool:
        """Whether its elements are an array."""
        return isinstance(self.values, np.ndarray)

    @property
    def is_column(self) -> bool:
        """Whether it holds one column."""
        return len(self.shape) == 1 or (len(self.shape) == 2 and self.shape[1] == 1)

    def is_table(self, names: Sequence[str]) -> bool:
        """Says whether it holds all of some columns."""
        width = self.shape[1] if len(self.shape) == 2 else -1
        return width == len(names) and self.name not in names

    def listed(self) -> Tensor:
        """Gives it with nested lists."""
        return self._replace(values=self.values.tolist()) if self.is_array else self

    def column(self) -> list[Any]:
        """Gives it as the values of a column; `(n, 1)` is one as well as `(n)`."""
        if not self.shape:
            raise Refused(400, f"the tensor {self.name[:100]!r} has no rows")
        return list(self.of_rank(1))

    def of_rank(self, rank: int) -> Any:
        """Gives its values; `(n, 1)` as `(n)` where that is wanted: MLServer has no `(n)`."""
        if rank == 1 and len(self.shape) == 2 and self.shape[1] == 1:
            return self.values[:, 0] if self.is_array else [row[0] for row in self.values]
        return self.values


def tensors_of(request: Any, blobs: Blobs) -> list[Tensor]:
    """Gives the tensors of a request of the Open Inference Protocol.

    Args:
        request: Its JSON.
        blobs: The elements that stand behind it.

    Raises:
        Refused: It is none.
    """
    inputs = request.get("inputs") if isinstance(request, dict) else None
    if not isinstance(inputs, list) or not inputs:
        raise Refused(400, "inputs: a list of tensors is missing")
    found = [_tensor(one, number, blobs) for number, one in enumerate(inputs)]
    blobs.finish()
    if len({tensor.name for tensor in found}) < len(found):
        raise Refused(400, "inputs: two tensors have one name")
    return found


def _tensor(given: Any, number: int, blobs: Blobs) -> Tensor:
    place = f"inputs.{number}"
    if not isinstance(given, dict):
        raise Refused(400, f"{place}: a tensor is an object")
    name, datatype, shape = given.get("name"), given.get("datatype"), given.get("shape")
    if not isinstance(name, str):
        raise Refused(400, f"{place}.name: a text is missing")
    if datatype not in (*DATATYPES.values(), "BYTES"):
        raise Refused(400, f"{place}.datatype: none that the protocol has")
    if not isinstance(shape, list) or len(shape) > 32 or not all(map(_is_length, shape)):
        raise Refused(400, f"{place}.shape: a list of lengths is missing")
    size = math.prod(shape)
    parameters = given.get("parameters")
    parameters = parameters if isinstance(parameters, dict) else {}
    if ("data" in given) == ("binary_data_size" in parameters):
        raise Refused(400, f"{place}.data: it is missing, or binary_data_size is; one is needed")
    if "data" in given:
        elements: Any = _flat(given["data"])
        if len(elements) != size:
            raise Refused(400, f"{place}.data: {len(elements)} elements for {size} of its shape")
    else:
        elements = blobs.take(parameters, datatype, size, place)
    if isinstance(elements, np.ndarray):
        return Tensor(name, tuple(shape), elements.reshape(shape))
    if parameters.get("content_type") == "pd_json":
        elements = [_from_json(element, place) for element in elements]
    return Tensor(name, tuple(shape), _nested(elements, shape))


def _is_length(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 2**31


def _flat(data: Any) -> list[Any]:
    """Gives the elements in order: they may come nested or not."""
    flat: list[Any] = []
    left = [iter(data if isinstance(data, list) else [data])]
    while left:
        for item in left[-1]:
            if isinstance(item, list):
                left.append(iter(item))
                break
            flat.append(item)
        else:
            left.pop()
    return flat


def _nested(flat: list[Any], shape: Sequence[int]) -> Any:
    if not shape:
        return flat[0]
    nested = flat
    for length in reversed(shape[1:]):
        if not length:
            raise Refused(400, "a tensor has no elements")
        nested = [nested[at : at + length] for at in range(0, len(nested), length)]
    return nested


def _from_json(element: Any, place: str) -> Any:
    try:
        return json.loads(element)
    except (TypeError, ValueError, RecursionError):
        raise Refused(400, f"{place}.data: an element is no JSON text") from None


# --- to the JSON of the model's own route --------------------------------------------------------


class Form(NamedTuple):
    """What a model takes, as its signature says.

    Attributes:
        kind: "columns", "unnamed", "tensor", "tensors", or "" where there is no signature.
        names: The names of columns or tensors.
        types: MLflow's names of the column types, or NumPy's of the tensors' dtypes.
        shapes: The shapes of tensors.
    """

    kind: str
    names: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    shapes: tuple[tuple[int, ...], ...] = ()

    @classmethod
    def of(cls, schema: Any) -> Form:
        """Gives the form of MLflow's schema."""
        if schema is None or not schema.inputs:
            return cls("")
        if schema.is_tensor_spec():
            dtypes = tuple(str(spec.type) for spec in schema.inputs)
            shapes = tuple(tuple(spec.shape) for spec in schema.inputs)
            named = schema.has_input_names()
            names = tuple(map(str, schema.input_names())) if named else ("input-0",)
            return cls("tensors" if named else "tensor", names, dtypes, shapes)
        types = tuple(getattr(spec.type, "name", "object") for spec in schema.inputs)
        if schema.has_input_names():
            return cls("columns", tuple(map(str, schema.input_names())), types)
        return cls("unnamed", tuple(f"input-{number}" for number in range(len(types))), types)

    def metadata(self) -> list[dict[str, Any]]:
        """Gives the tensors that this form asks for, as the protocol describes tensors."""
        shapes = self.shapes or tuple((-1, 1) for _ in self.names)
        known = COLUMN_DATATYPES if not self.shapes else DATATYPES
        return [
            {
                "name": name,
                "datatype": known.get(kind.lower(), "BYTES"),
                "shape": list(shape),
                "parameters": {"content_type": self._content(kind)},
            }
            for name, kind, shape in zip(self.names, self.types, shapes, strict=True)
        ]

    def _content(self, kind: str) -> str:
        if self.shapes:
            return "np"
        return COLUMN_CONTENT.get(kind, "np" if kind in COLUMN_DATATYPES else "pd_json")

    def inputs(self, tensors: list[Tensor], content: str) -> Any:
        """Gives `inputs` of the model's own route.

        Args:
            tensors: The tensors of a request.
            content: The content type of the whole request.

        Raises:
            Refused: They are not as many as there should be.
        """
        if self.kind == "tensor":
            return _only(tensors).of_rank(len(self.shapes[0]))
        if self.kind == "tensors":
            ranks = dict(zip(self.names, map(len, self.shapes), strict=True))
            return {tensor.name: tensor.of_rank(ranks.get(tensor.name, 0)) for tensor in tensors}
        if self.kind:
            return self._rows(tensors)
        if content == "pd":
            return _records([tensor.name for tensor in tensors], _columns(tensors))
        if len(tensors) == 1:
            return tensors[0].values
        return {tensor.name: tensor.values for tensor in tensors}

    def _rows(self, tensors: list[Tensor]) -> list[Any]:
        first = tensors[0]
        if len(tensors) == 1 and first.is_table(self.names):
            columns = [list(column) for column in zip(*first.values, strict=True)]
            names = list(self.names)
        else:
            names, columns = [tensor.name for tensor in tensors], _columns(tensors)
        if self.kind == "columns":
            types = dict(zip(self.names, self.types, strict=True))
            kinds = [types.get(name, "") for name in names]
            exact = [_whole(column, kind) for column, kind in zip(columns, kinds, strict=True)]
            return _records(names, exact)
        if len(columns) != len(self.types):
            raise Refused(
                400, f"inputs: {len(columns)} columns, where {len(self.types)} are needed"
            )
        exact = [_whole(column, kind) for column, kind in zip(columns, self.types, strict=True)]
        if len(exact) == 1:
            return exact[0]
        return [list(row) for row in zip(*exact, strict=True)]


def _only(tensors: list[Tensor]) -> Tensor:
    if len(tensors) != 1:
        raise Refused(400, f"inputs: {len(tensors)} tensors, where one is needed")
    return tensors[0]


def _columns(tensors: list[Tensor]) -> list[list[Any]]:
    columns = [tensor.column() for tensor in tensors]
    if len(set(map(len, columns))) > 1:
        raise Refused(400, "inputs: the tensors have different numbers of rows")
    return columns


def _records(names: list[str], columns: list[list[Any]]) -> list[dict[str, Any]]:
    if len(columns[0]) > LIMITS.max_rows:
        raise Refused(400, f"inputs: more than {LIMITS.max_rows} rows")
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _whole(column: list[Any], kind: str) -> list[Any]:
    """Gives integers where a tensor of several columns had to have floats."""
    if kind not in ("integer", "long"):
        return column
    return [
        int(value) if isinstance(value, float) and value.is_integer() else value for value in column
    ]


# --- answers to tensors --------------------------------------------------------------------------


class Output(NamedTuple):
    """A tensor of an answer.

    Attributes:
        name: Its name.
        datatype: The protocol's name of its type.
        shape: Its shape.
        content: Its content type.
        values: Its elements: an array of numbers or booleans, or a list of JSON's values.
        rank: How many dimensions the model's answer has; of one dimension the codecs know none.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    content: str
    values: Any
    rank: int

    def told(self, in_binary: bool) -> tuple[dict[str, Any], bytes]:
        """Gives its JSON, and the bytes behind it; none where they stand in the JSON."""
        parameters: dict[str, Any] = {"content_type": self.content}
        blob = blob_of(self.datatype, self.values) if in_binary else None
        told = {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}
        if in_binary:
            parameters["rank"] = self.rank
        if blob is not None:
            return {**told, "parameters": {**parameters, "binary_data_size": len(blob)}}, blob
        values = _flat(plain(self.values)) if isinstance(self.values, np.ndarray) else self.values
        return {**told, "parameters": parameters, "data": values}, b""


def outputs_of(raw: Any) -> tuple[list[Output], str]:
    """Gives an answer as tensors, and the content type of the whole.

    Args:
        raw: What the model answered.

    Raises:
        TypeError: It holds something that has no JSON form.
    """
    if isinstance(raw, pd.DataFrame):
        columns = (raw.iloc[:, number] for number in range(raw.shape[1]))
        return [_output(str(one.name), one) for one in columns], "pd"
    if isinstance(raw, dict) and raw:
        return [_output(str(name), one) for name, one in raw.items()], "np"
    return [_output("output-1", raw)], "np"


def _output(name: str, raw: Any) -> Output:
    array = raw.to_numpy() if isinstance(raw, pd.Series) else raw
    if _is_of_numbers(raw):
        shape = (len(array), 1) if array.ndim == 1 else array.shape
        return Output(name, DATATYPES[array.dtype.name], shape, "np", array, array.ndim)
    values = plain(raw)
    rank = getattr(raw, "ndim", int(isinstance(values, list)))
    values = values if isinstance(values, list) else [values]
    if isinstance(raw, np.ndarray) and raw.ndim > 1 and raw.dtype.kind == "U":
        return Output(name, "BYTES", raw.shape, "np", _flat(values), rank)
    datatype, content = _kind(raw, values)
    if content == "pd_json":
        values = [json.dumps(value) for value in values]
    return Output(name, datatype, (len(values), 1), content, values, rank)


def _is_of_numbers(raw: Any) -> bool:
    """Says whether an answer is an array, or a column, of numbers or booleans alone."""
    if not isinstance(raw, (np.ndarray, pd.Series)) or isinstance(raw, np.ma.MaskedArray):
        return False
    return bool(isinstance(raw.dtype, np.dtype) and raw.ndim and raw.dtype.name in DATATYPES)


def _kind(raw: Any, values: list[Any]) -> tuple[str, str]:
    """Gives the datatype and the content type that have all values of a column.

    Where one is missing that is said by null among floats and texts; for other types the codecs
    know no null (a boolean becomes false), so each element is JSON then.
    """
    dtype = str(getattr(raw, "dtype", ""))
    kinds = {type(value) for value in values if value is not None}
    whole = None not in values
    known = DATATYPES.get(dtype.lower(), "")
    if known and not kinds & {list, dict, str} and (whole or known.startswith("FP")):
        return known, "np"
    if kinds == {str}:
        content = "base64" if _are_bytes(raw) else "str"
        content = "datetime" if dtype.startswith("datetime64") else content
        return "BYTES", content if whole or content == "str" else "pd_json"
    if whole and kinds in ({bool}, {int}):
        return ("BOOL" if bool in kinds else "INT64"), "np"
    if float in kinds and kinds <= {int, float}:
        return "FP64", "np"
    return "BYTES", "pd_json"


def _are_bytes(raw: Any) -> bool:
    """Says whether a model answered bytes; as JSON they are texts like others."""
    if isinstance(raw, bytes):
        return True
    if not isinstance(raw, (list, tuple, pd.Series, np.ndarray)):
        return False
    kinds = {type(value) for value in raw if not isinstance(value, float) and value is not None}
    return bool(kinds) and kinds <= {bytes, bytearray, np.bytes_}
