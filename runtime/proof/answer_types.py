"""Whether an answer is what the model's signature promises: rows, names, types, shapes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from kfp_bento.runtime.models import Column, Field, ModelSignature, Tensor

_MOST_PROBLEMS = 5


def count_rows(inputs: Any, signature: ModelSignature | None) -> int | None:
    """Give how many rows a request's `inputs` hold; None where rows cannot be told apart.

    Rows are the items of a list, or, for named tensors, the common first dimension. A
    dimension that the signature fixes is no number of rows.
    """
    shapes = _shapes(signature.inputs) if signature is not None else []
    if any(not shape or shape[0] != -1 for shape in shapes):
        return None
    if isinstance(inputs, list):
        return len(inputs)
    if shapes and isinstance(inputs, Mapping) and inputs:
        lengths = {len(item) if isinstance(item, list) else -1 for item in inputs.values()}
        if len(lengths) == 1 and lengths != {-1}:
            return lengths.pop()
    return None


def answer_problems(answer: Any, signature: ModelSignature | None, rows: int | None) -> list[str]:
    """Say where an answer is not what it should be: empty when it is right.

    Args:
        answer: The JSON values that the service gave.
        signature: The model's signature; without one only the number of rows is checked.
        rows: Rows of the request; None when one value per row cannot be expected.
    """
    problems: list[str] = []
    outputs = signature.outputs if signature is not None else ()
    by_row = rows is not None and all(shape and shape[0] == -1 for shape in _shapes(outputs))
    if by_row and rows is not None and (problem := _row_problem(answer, rows)):
        problems.append(problem)
    if outputs:
        problems += islice(_typed(answer, outputs), _MOST_PROBLEMS)
    return problems


def _shapes(fields: Sequence[Field]) -> list[tuple[int, ...]]:
    return [field.shape for field in fields if isinstance(field, Tensor)]


def _row_problem(answer: Any, rows: int) -> str:
    columns = answer.values() if isinstance(answer, Mapping) else [answer]
    for column in columns:
        if not isinstance(column, list):
            return f"the answer is {_kind(column)}, not a list with one value per row"
        if len(column) != rows:
            return f"the answer has {len(column)} values for {rows} rows"
    return ""


def _typed(answer: Any, outputs: Sequence[Field]) -> Iterator[str]:
    only = outputs[0] if len(outputs) == 1 else None
    if isinstance(answer, Mapping):
        problem = _key_problem(answer, outputs, "the answer")
        yield from [problem] if problem else _columns(answer, outputs)
    elif not isinstance(answer, list):
        yield f"the answer is {_kind(answer)}, not a list"
    elif answer and all(isinstance(row, Mapping) for row in answer) and _named(outputs):
        for index, row in enumerate(answer):
            yield from _record(row, outputs, f"row {index}")
    elif isinstance(only, Tensor):
        yield from _array(answer, only.shape, only.dtype, "the answer")
    elif only is not None:
        for index, value in enumerate(answer):
            yield from _scalar(value, only, f"row {index}")
    else:
        yield f"the answer is no list of records with {', '.join(_names(outputs))}"


def _columns(answer: Mapping[str, Any], outputs: Sequence[Field]) -> Iterator[str]:
    for name, field in zip(_names(outputs), outputs, strict=True):
        column = answer[name]
        if isinstance(field, Tensor):
            yield from _array(column, field.shape, field.dtype, name)
        elif isinstance(column, list):
            for index, value in enumerate(column):
                yield from _scalar(value, field, f"{name}[{index}]")
        else:
            yield from _scalar(column, field, name)


def _record(row: Mapping[str, Any], outputs: Sequence[Field], place: str) -> Iterator[str]:
    if problem := _key_problem(row, outputs, place):
        yield problem
        return
    for name, field in zip(_names(outputs), outputs, strict=True):
        if isinstance(field, Tensor):
            yield from _array(row[name], field.shape[1:], field.dtype, f"{place}, {name}")
        else:
            yield from _scalar(row[name], field, f"{place}, {name}")


def _key_problem(found: Mapping[str, Any], outputs: Sequence[Field], place: str) -> str:
    if set(found) == set(_names(outputs)):
        return ""
    return f"{place} has the keys {sorted(found)}, not {sorted(_names(outputs))}"


def _array(value: Any, shape: Sequence[int], dtype: str, place: str) -> Iterator[str]:
    if not shape:
        if not _fits_dtype(value, dtype):
            yield f"{place} is {_kind(value)}, not {dtype}"
        return
    if not isinstance(value, list):
        yield f"{place} is {_kind(value)}, not a list"
        return
    if shape[0] >= 0 and len(value) != shape[0]:
        yield f"{place} has {len(value)} values, not {shape[0]}"
    for index, item in enumerate(value):
        yield from _array(item, shape[1:], dtype, f"{place}[{index}]")


def _scalar(value: Any, column: Column, place: str) -> Iterator[str]:
    kind = column.type.kind
    if value is None and not column.required:
        return
    if not _fits(value, _COLUMN_TYPES.get(kind, (object,))):
        yield f"{place} is {_kind(value)}, not {kind}"


# The types of JSON values; a float may be null, as JSON has no NaN.
_FLOAT = (int, float, type(None))
_COLUMN_TYPES: dict[str, tuple[type, ...]] = {
    "boolean": (bool,),
    **dict.fromkeys(("integer", "long"), (int,)),
    **dict.fromkeys(("float", "double"), _FLOAT),
    **dict.fromkeys(("string", "binary", "datetime"), (str,)),
    "array": (list,),
    **dict.fromkeys(("object", "map"), (Mapping,)),
}
_DTYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("int", "uint"), (int,)),
    "float": _FLOAT,
    "bool": (bool,),
    **dict.fromkeys(("str", "<U"), (str,)),
}


def _fits_dtype(value: Any, dtype: str) -> bool:
    found = (types for start, types in _DTYPES.items() if dtype.startswith(start))
    return _fits(value, next(found, (object,)))


def _fits(value: Any, types: tuple[type, ...]) -> bool:
    if isinstance(value, bool):  # which Python takes for an int
        return bool in types or object in types
    return isinstance(value, types)


def _named(outputs: Sequence[Field]) -> bool:
    return all(field.name not in (None, "") for field in outputs)


def _names(outputs: Sequence[Field]) -> list[str]:
    return [str(index) if field.name is None else field.key for index, field in enumerate(outputs)]


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean"}
    if value is None:
        return "null"
    return names.get(type(value), f"the number {value!r}")
