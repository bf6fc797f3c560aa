"""Rows as tensors of the Open Inference Protocol, in bytes, and its answers as columns.

A generated service takes whole columns so, and no side looks at single rows. What is asked and
answered is the same as in JSON; rows that bytes cannot carry, and all that a service refuses, go
there as JSON, which tells which row it is about.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.batch.cells import (
    arrow_to_json,
    arrow_to_typed,
    arrow_type,
    infinite,
    text_to_json,
    text_to_typed,
)
from kfp_bento.runtime.batch.routes import JSON
from kfp_bento.runtime.files import parse_json_value

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from kfp_bento.runtime.batch.asking import Question
    from kfp_bento.runtime.batch.tables import Rows
    from kfp_bento.runtime.http import HttpAnswer

LENGTH = "Inference-Header-Content-Length"
"""The header that tells where the JSON of a body ends, and tensors begin."""

_DATATYPES = {
    **{"boolean": "BOOL", "integer": "INT32", "long": "INT64", "float": "FP32", "double": "FP64"},
}
_DTYPES = {
    **{"BOOL": "bool", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8"},
    **{f"INT{8 * size}": f"<i{size}" for size in (1, 2, 4, 8)},
    **{f"UINT{8 * size}": f"<u{size}" for size in (1, 2, 4, 8)},
}
_OF_THE_PROTOCOL = {
    *("content_type", "headers", "binary_data_output", "binary_data_size", "priority", "timeout"),
    *("sequence_id", "sequence_start", "sequence_end", "triton_enable_empty_final_response"),
}
"""Parameters that the protocol has itself, so that a model's of that name cannot go with them."""


@dataclass(frozen=True)
class Message:
    """JSON, and tensors behind it."""

    told: bytes
    blobs: tuple[bytes, ...]

    @property
    def headers(self) -> dict[str, str]:
        """Those of a request."""
        return {LENGTH: str(len(self.told)), "Content-Type": "application/octet-stream"}

    @property
    def body(self) -> bytes:
        """The body of a request."""
        return b"".join((self.told, *self.blobs))


def asked_in_tensors(question: Question, rows: Rows) -> Message | None:
    """Give the request about some rows; None where bytes cannot carry them.

    Args:
        question: How they are asked about.
        rows: The rows.
    """
    route, params = question.route, question.params.get("params", {})
    if not route.infer or question.form == "jsonl" or _OF_THE_PROTOCOL & set(params):
        return None
    tensors = _table(question, rows) if route.form == "vectors" else _columns(question, rows)
    if not tensors:
        return None
    parameters = json.dumps({**params, "binary_data_output": True})
    told = ",".join(text for text, _ in tensors)
    return Message(
        f'{{"inputs":[{told}],"parameters":{parameters}}}'.encode(),
        tuple(blob for _, blob in tensors),
    )


Tensor = tuple[str, bytes]
"""The JSON of a tensor, and the bytes behind it."""


def _columns(question: Question, rows: Rows) -> list[Tensor]:
    """Give a tensor for each column; none where a column has none."""
    tensors = []
    for column in question.columns:
        cells = rows.columns.get(column.name)
        made = None if cells is None else _column(question.form, column.name, column.kind, cells)
        if made is None:
            return []
        tensors.append(made)
    return tensors


def _column(form: str, name: str, kind: str, cells: pa.Array) -> Tensor | None:
    if kind == JSON:
        return None
    if kind == "float" and form == "csv":
        kind = "double"  # which the service rounds, as it does those of JSON
    if kind in _DATATYPES:
        numbers = _numbers(form, cells, kind)
        if numbers is None:
            return None
        return _tensor(name, _DATATYPES[kind], (len(cells),), numbers)
    made, wrong = (text_to_json if form == "csv" else arrow_to_json)(cells, kind)
    if wrong:
        return None
    data = ",".join(text or "null" for text in made.to_pylist())
    about = f'"name":{json.dumps(name)},"datatype":"BYTES","shape":[{len(cells)}]'
    return f'{{{about},"data":[{data}]}}', b""


def _table(question: Question, rows: Rows) -> list[Tensor]:
    """Give the one tensor of a model that takes rows of numbers; none where they are no such."""
    kinds = [column.kind for column in question.columns]
    if question.route.fields or not set(kinds) <= {"long", "integer", "double"}:
        return []
    kind = "double" if "double" in kinds else "long"
    found = [_numbers(question.form, rows.columns[one.name], kind) for one in question.columns]
    columns = [one for one in found if one is not None]
    if len(columns) < len(kinds):
        return []
    import numpy as np

    shape = (rows.count, len(kinds)) if len(kinds) > 1 else (rows.count,)
    return [_tensor("input-0", _DATATYPES[kind], shape, np.column_stack(columns))]


def _tensor(name: str, datatype: str, shape: Sequence[int], values: np.ndarray) -> Tensor:
    blob = values.astype(_DTYPES[datatype], order="C", copy=False).tobytes()
    about = {"name": name, "datatype": datatype, "shape": list(shape)}
    return json.dumps({**about, "parameters": {"binary_data_size": len(blob)}}), blob


def _numbers(form: str, cells: pa.Array, kind: str) -> np.ndarray | None:
    """Give numbers or booleans, NaN where one is missing; None where there are others.

    Args:
        form: The format of the table.
        cells: The column.
        kind: MLflow's type of it.
    """
    import pyarrow.compute as pc

    if form == "csv":
        typed, wrong = text_to_typed(cells, kind)
    else:
        typed, wrong = arrow_to_typed(cells, kind), []
    if wrong or typed.type != arrow_type(kind) or infinite(typed):
        return None
    if typed.null_count and kind not in ("float", "double"):
        return None
    filled = pc.fill_null(typed, math.nan) if typed.null_count else typed
    numbers: np.ndarray = filled.to_numpy(zero_copy_only=False)
    return numbers


# --- answers -------------------------------------------------------------------------------------


def answer_in_tensors(answer: HttpAnswer) -> Any:
    """Give what a service answers in tensors: the value that it answers in JSON, but for numbers.

    Those are columns of Arrow, where a model answers them in one dimension.

    Raises:
        ValueError, KeyError, TypeError: It is no such answer.
    """
    length = int(answer.headers.get(LENGTH.lower(), len(answer.body)))
    told, blobs = parse_json_value(answer.body[:length], nan=True), memoryview(answer.body)[length:]
    outputs = dict(_outputs(told["outputs"], blobs))
    if told["parameters"]["content_type"] == "np" and list(outputs) == ["output-1"]:
        return outputs["output-1"]
    return outputs


def _outputs(told: Sequence[Mapping[str, Any]], blobs: memoryview) -> Iterator[tuple[str, Any]]:
    for output in told:
        parameters, shape = output["parameters"], output["shape"]
        if "binary_data_size" in parameters:
            size = int(parameters["binary_data_size"])
            values, blobs = _elements(output["datatype"], blobs[:size]), blobs[size:]
        else:
            values = output["data"]
        if len(values) != math.prod(shape):
            raise ValueError(f"{output['name']} has {len(values)} elements for {shape}")
        if parameters["content_type"] == "pd_json":
            values = [parse_json_value(one.encode(), nan=True) for one in values]
        yield str(output["name"]), _shaped(values, shape, parameters["rank"])


def _elements(datatype: str, blob: memoryview) -> Any:
    import numpy as np

    if datatype != "BYTES":
        return np.frombuffer(blob, _DTYPES[datatype])
    raw, at, texts = bytes(blob), 0, list[str]()
    while at < len(raw):
        start = at + 4
        at = start + int.from_bytes(raw[at:start], "little")
        texts.append(raw[start:at].decode())
    return texts


def _shaped(values: Any, shape: Sequence[int], rank: int) -> Any:
    """Give elements in the dimensions that the model's answer has."""
    import numpy as np

    if isinstance(values, np.ndarray):
        return _column_of(values) if rank == 1 else _listed(values.reshape(shape))
    if rank > 1:
        return np.array(values, dtype=object).reshape(shape).tolist()
    return values if rank == 1 else values[0]


def _column_of(numbers: np.ndarray) -> pa.Array:
    """Give numbers as JSON has them: integers of 64 bits, doubles, and null for NaN."""
    import pyarrow as pa

    if numbers.dtype.kind == "f":
        return pa.array(numbers.astype("float64"), from_pandas=True)
    small = numbers.dtype.kind in "iu" and numbers.dtype.name != "uint64"
    return pa.array(numbers.astype("int64") if small else numbers)


def _listed(numbers: np.ndarray) -> Any:
    import numpy as np

    if numbers.dtype.kind != "f" or np.isfinite(numbers).all():
        return numbers.tolist()
    found = numbers.astype(object)
    found[~np.isfinite(numbers)] = None
    return found.tolist()
