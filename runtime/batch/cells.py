"""Columns of a table between text, types and JSON, whole columns at a time."""

from __future__ import annotations

import base64
import contextlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.batch.routes import JSON
from kfp_bento.runtime.batch.tables import as_json
from kfp_bento.runtime.files import parse_json_value

if TYPE_CHECKING:
    import pyarrow as pa

_MISSING = ("NA", "N/A", "#N/A", "NaN", "nan", "null", "NULL", "None", "<NA>")
"""What stands for a missing value in CSV columns that are no text, as pandas reads it."""

_TRUE, _FALSE = ("true", "True", "TRUE"), ("false", "False", "FALSE")
_WHOLE_NUMBER = r"^-?(0|[1-9][0-9]*)$"
_FLOAT_NUMBER = r"^-?(0|[1-9][0-9]*)(\.[0-9]+([eE][+-]?[0-9]+)?|[eE][+-]?[0-9]+)$"
"""What JSON has for floats: with a point or an exponent, or its readers take it for an integer."""

_NEEDS_ESCAPE = r'[\x00-\x1f"\\]'
_NEEDS_QUOTES = r'[",\r\n]'
NUMBERS = ("integer", "long", "float", "double")


def arrow_type(kind: str) -> pa.DataType:
    """Give Arrow's type of one of MLflow's; JSON text for what has no one type."""
    import pyarrow as pa

    known = {
        **{"boolean": pa.bool_(), "integer": pa.int32(), "long": pa.int64()},
        **{"float": pa.float32(), "double": pa.float64(), "string": pa.string()},
        **{"binary": pa.binary(), "datetime": pa.timestamp("ns")},
    }
    return known.get(kind, pa.string())


def text_to_typed(cells: pa.Array, kind: str) -> tuple[pa.Array, list[int]]:
    """Give the text of a CSV column its type.

    Returns:
        The column, and the places whose text is none of that type, which are null.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if kind not in (*NUMBERS, "boolean"):
        return cells, []
    wanted = arrow_type(kind)
    try:
        if kind != "boolean":
            return pc.cast(cells, wanted), []
    except pa.ArrowInvalid:
        pass
    trimmed = pc.utf8_trim_whitespace(cells)
    missing = pc.is_in(trimmed, pa.array(_MISSING))
    read = _boolean if kind == "boolean" else _number(wanted)
    values = [
        None if text is None or gone else read(text)
        for text, gone in zip(trimmed.to_pylist(), missing.to_pylist(), strict=True)
    ]
    wrong = [place for place, value in enumerate(values) if value is _WRONG]
    return pa.array([None if value is _WRONG else value for value in values], wanted), wrong


_WRONG = object()


def _boolean(text: str) -> Any:
    return text in _TRUE if text in (*_TRUE, *_FALSE) else _WRONG


def _number(wanted: pa.DataType) -> Callable[[str], Any]:
    import pyarrow as pa
    import pyarrow.compute as pc

    def read(text: str) -> Any:
        try:
            return pc.cast(pa.scalar(text), wanted).as_py()
        except pa.ArrowInvalid:
            return _WRONG

    return read


def text_to_json(cells: pa.Array, kind: str) -> tuple[pa.Array, list[int]]:
    """Give the text of a CSV column as JSON values of its type; null stays null.

    Returns:
        The values, and the places whose text is none of that type.
    """
    import pyarrow.compute as pc

    if kind == JSON:
        return _checked_json(cells)
    typed, wrong = text_to_typed(cells, kind)
    if kind in NUMBERS and not wrong and not typed.null_count:
        form = _FLOAT_NUMBER if kind in ("float", "double") else _WHOLE_NUMBER
        if pc.all(pc.match_substring_regex(cells, form)).as_py():
            return cells, []  # as it was written
    return to_json(typed), [*wrong, *infinite(typed)]


def _checked_json(cells: pa.Array) -> tuple[pa.Array, list[int]]:
    import pyarrow as pa

    wrong, values = list[int](), list[str | None]()
    for place, text in enumerate(cells.to_pylist()):
        try:
            values.append(None if text is None else as_json(parse_json_value(text.encode())))
        except ValueError:
            wrong.append(place)
            values.append(None)
    return pa.array(values, pa.string()), wrong


def infinite(cells: pa.Array) -> list[int]:
    """Give the places of infinite numbers, which JSON does not have."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_floating(cells.type):
        return []
    found = pc.fill_null(pc.is_inf(cells), False)
    return (
        [place for place, one in enumerate(found.to_pylist()) if one]
        if pc.any(found).as_py()
        else []
    )


def arrow_to_json(cells: pa.Array, kind: str) -> tuple[pa.Array, list[int]]:
    """Give a Parquet column as JSON values; a number of another type becomes the model's.

    Returns:
        The values, and the places that JSON has no value for.
    """
    cells = arrow_to_typed(cells, kind)
    return to_json(cells), infinite(cells)


def arrow_to_typed(cells: pa.Array, kind: str) -> pa.Array:
    """Give a Parquet column of numbers of another type the model's, where its values have one."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if kind in NUMBERS and cells.type != arrow_type(kind):
        if pa.types.is_floating(cells.type):
            cells = pc.if_else(pc.is_nan(cells), pa.scalar(None, cells.type), cells)
        # The bento says what it thinks of values that are none.
        with contextlib.suppress(pa.ArrowInvalid, pa.ArrowNotImplementedError):
            cells = pc.cast(cells, arrow_type(kind))
    return cells


def to_json(cells: pa.Array) -> pa.Array:
    """Give a column as JSON values in text; null stays null, and NaN becomes it."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = cells.type
    if pa.types.is_floating(kind):
        return _floats(cells)
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return pc.cast(cells, pa.string())
    if pa.types.is_decimal(kind):
        return pc.cast(cells, pa.string())
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return _quoted(_moments(cells))
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        cells = pc.cast(cells, pa.string())
        escaped = pc.any(pc.match_substring_regex(cells, _NEEDS_ESCAPE)).as_py()
        return _by_value(cells, as_json) if escaped else _quoted(cells)
    return _by_value(cells, lambda value: as_json(_plain(value)))


def _floats(cells: pa.Array) -> pa.Array:
    """Give floats as JSON: the shortest text that is the same number, and never an integer."""
    import pyarrow as pa
    import pyarrow.compute as pc

    finite = pc.if_else(pc.is_finite(cells), cells, pa.scalar(None, cells.type))
    text = pc.cast(finite, pa.string())
    whole = pc.invert(pc.match_substring_regex(text, "[.e]"))
    if not pc.any(whole).as_py():
        return text
    return pc.if_else(whole, pc.binary_join_element_wise(text, ".0", ""), text)


def _quoted(cells: pa.Array) -> pa.Array:
    import pyarrow.compute as pc

    return pc.binary_join_element_wise('"', cells, '"', "")


def _by_value(cells: pa.Array, make: Callable[[Any], str]) -> pa.Array:
    import pyarrow as pa

    values = [None if value is None else make(value) for value in cells.to_pylist()]
    return pa.array(values, pa.string())


def _moments(cells: pa.Array) -> pa.Array:
    """Give datetimes as ISO 8601, in UTC where they have a zone; days at midnight."""
    import pyarrow as pa
    import pyarrow.compute as pc

    unit = cells.type.unit if pa.types.is_timestamp(cells.type) else "s"
    naive = pc.cast(cells, pa.timestamp(unit))
    return pc.strftime(naive, format="%Y-%m-%dT%H:%M:%S")


def _plain(value: Any) -> Any:
    """Give a nested value as JSON has it."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if value is None or isinstance(value, str | int | bool):
        return value
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


# --- what is written -----------------------------------------------------------------------------


def values_to_arrow(values: Sequence[Any] | pa.Array, kind: pa.DataType) -> pa.Array:
    """Give JSON values of an answer, or a column of numbers, as a column of a type.

    Raises:
        pyarrow.ArrowException, TypeError, ValueError: A value does not fit.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if isinstance(values, pa.Array):
        if values.type == kind:
            return values
        values = values.to_pylist()
    if pa.types.is_timestamp(kind):
        return pc.cast(pa.array(values, pa.string()), kind)
    if pa.types.is_binary(kind):
        return pa.array(
            [None if one is None else base64.b64decode(one, validate=True) for one in values], kind
        )
    if pa.types.is_string(kind) and any(not isinstance(one, str | None) for one in values):
        return pa.array([None if one is None else as_json(one) for one in values], kind)
    return pa.array(values, kind)


def inferred_type(values: Sequence[Any]) -> pa.DataType:
    """Give the type that holds all values; JSON text where there is none, or they are objects."""
    import pyarrow as pa

    try:
        found = pa.array(values).type
    except (pa.ArrowException, OverflowError):
        return pa.string()
    inner = found
    while pa.types.is_list(inner):
        inner = inner.value_type
    return pa.string() if pa.types.is_struct(inner) or pa.types.is_null(inner) else found


def values_to_json(values: Sequence[Any] | pa.Array) -> pa.Array:
    """Give values of answers, or a column of numbers, as JSON in text; missing ones are "null"."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not isinstance(values, pa.Array):
        return pa.array([as_json(value) for value in values], pa.string())
    if pa.types.is_floating(values.type):
        texts = ["null" if one is None else repr(one) for one in values.to_pylist()]
        return pa.array(texts, pa.string())
    return pc.fill_null(pc.cast(values, pa.string()), "null")


def json_to_arrow(cells: pa.Array, kind: pa.DataType) -> pa.Array:
    """Give JSON values in text as a column of a type; a key that is not there is null."""
    return values_to_arrow(
        [None if text is None else json_value(text) for text in cells.to_pylist()], kind
    )


def json_value(text: str) -> Any:
    """Give the value of JSON text that this module wrote."""
    return parse_json_value(text.encode())


def json_to_text(cells: pa.Array) -> pa.Array:
    """Give JSON values in text as cells of a CSV file: texts without quotes, null empty."""
    import pyarrow as pa

    values = [
        None if text in (None, "null") else json_value(text) if text[0] == '"' else text
        for text in cells.to_pylist()
    ]
    return pa.array(values, pa.string())


def csv_lines(columns: Sequence[pa.Array]) -> pa.Array:
    """Give rows of CSV (RFC 4180), without the ends of lines; null is empty, and "" is quoted.

    Where there is one column only null is quoted too: readers skip empty lines.
    """
    import pyarrow.compute as pc

    lines = pc.binary_join_element_wise(*map(_csv_cells, columns), ",")
    return pc.if_else(pc.equal(lines, ""), '""', lines) if len(columns) == 1 else lines


def _csv_cells(cells: pa.Array) -> pa.Array:
    import pyarrow.compute as pc

    special = pc.or_(pc.match_substring_regex(cells, _NEEDS_QUOTES), pc.equal(cells, ""))
    if pc.any(special).as_py():
        doubled = pc.replace_substring(cells, '"', '""')
        cells = pc.if_else(special, _quoted(doubled), cells)
    return pc.fill_null(cells, "")


def object_lines(columns: Mapping[str, pa.Array], count: int) -> list[str]:
    """Give rows as JSON objects; a value that is null leaves its key out.

    Args:
        columns: JSON values in text by key.
        count: How many rows there are.
    """
    import pyarrow.compute as pc

    if not columns:
        return ["{}"] * count
    pairs = [
        pc.fill_null(pc.binary_join_element_wise(f",{json.dumps(name)}:", cells, ""), "")
        for name, cells in columns.items()
    ]
    joined = pc.binary_join_element_wise(*pairs, "")
    inner = pc.utf8_slice_codeunits(joined, start=1)
    return pc.binary_join_element_wise("{", inner, "}", "").to_pylist()  # type: ignore[no-any-return]
