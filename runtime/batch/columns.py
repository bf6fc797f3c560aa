"""Columns of a table with their types, for those who calculate with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kfp_bento.runtime.batch.cells import NUMBERS, arrow_type, json_to_arrow, text_to_typed
from kfp_bento.runtime.errors import InvalidInput

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from kfp_bento.runtime.batch.tables import Rows

_PLAIN = (*NUMBERS, "boolean", "string")


def typed_column(rows: Rows, name: str, form: str, kind: str) -> pa.Array:
    """Give a column of some rows as Arrow has it; what is missing, or is no such value, is null.

    Args:
        rows: The rows.
        name: The column; one that these rows lack is null in all of them.
        form: The format of the table.
        kind: The column's kind, as `Table` and `Answers` say it; values of JSONL that have no one
            type are given as bytes.

    Raises:
        InvalidInput: A number of JSONL is too large for its column.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    cells = rows.columns.get(name)
    if cells is None:
        return pa.nulls(rows.count)
    if form == "csv":
        return text_to_typed(cells, kind)[0]
    if form == "parquet":
        return cells
    if kind not in _PLAIN:  # JSON, which is no text to calculate with
        return pc.cast(pc.if_else(pc.equal(cells, "null"), None, cells), pa.binary())
    try:
        return json_to_arrow(cells, arrow_type(kind))
    except (pa.ArrowException, OverflowError) as failure:
        raise InvalidInput(f"The column {name!r} cannot be read: {failure}.") from failure


def numbers(cells: pa.Array) -> np.ndarray:
    """Give a column of numbers, booleans or nulls as float64, NaN where a value is missing."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_null(cells.type):
        cells = pa.nulls(len(cells), pa.float64())
    if pa.types.is_boolean(cells.type):
        cells = pc.cast(cells, pa.int8())
    # Integers above 2**53 lose their last digits, as in any calculation with floats.
    floats = pc.cast(cells, pa.float64(), safe=False)
    found: np.ndarray = floats.to_numpy(zero_copy_only=False)
    return found
