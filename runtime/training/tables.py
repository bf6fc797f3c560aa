"""A table in memory, as estimators take it: features by name, and labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.batch import open_table, typed_column
from kfp_bento.runtime.checks import looks_like
from kfp_bento.runtime.errors import InvalidInput

if TYPE_CHECKING:
    import pyarrow as pa

    from kfp_bento.runtime.batch import Table
    from kfp_bento.runtime.training.options import TrainOptions


@dataclass(frozen=True)
class TrainingTable:
    """What is learnt from.

    Attributes:
        features: A pandas DataFrame: numbers, booleans, and texts as objects.
        texts: The columns of texts.
        labels: A numpy array, shape (rows,).
        task: classification or regression.
        digest: `sha256:…` of the data.
    """

    features: Any
    texts: tuple[str, ...]
    labels: Any
    task: str
    digest: str


def read_training_table(data_uri: str, options: TrainOptions) -> TrainingTable:
    """Read a table into memory.

    Args:
        data_uri: CSV, Parquet or JSONL; see `describe_data`.
        options: Name the columns.

    Raises:
        InvalidInput: A column is missing or holds what cannot be learnt from, or a label is
            missing.
        StorageError: The table cannot be fetched.
    """
    import pandas as pd
    import pyarrow as pa

    with open_table(data_uri, options.input_format) as table:
        known = dict(table.columns)
        wanted = [*(options.features or known), options.label]
        names = list(dict.fromkeys(wanted))
        missing = [name for name in names if name not in known]
        if missing:
            raise InvalidInput(
                f"The data have no column {missing[0]!r}.",
                hint=f"They have: {', '.join(list(known)[:20])}.",
            )
        if not table.count or names == [options.label]:
            raise InvalidInput("The data have no rows, or no features beside the label.")
        columns = _columns(table, {name: known[name] for name in names})
        digest = table.digest
    cells = columns.pop(options.label)
    task = looks_like(cells) if options.task == "auto" else options.task
    _require_labels(cells, options.label, task)
    features = pd.DataFrame({name: _values(name, one) for name, one in columns.items()})
    texts = tuple(name for name, one in columns.items() if pa.types.is_string(one.type))
    return TrainingTable(features, texts, _values(options.label, cells), task, digest)


def _columns(table: Table, kinds: dict[str, str]) -> dict[str, pa.Array]:

    pieces: dict[str, list[pa.Array]] = {name: [] for name in kinds}
    for rows in table.rows():
        for name, kind in kinds.items():
            pieces[name].append(typed_column(rows, name, table.form, kind))
    return {name: _joined(name, found) for name, found in pieces.items()}


def _joined(name: str, pieces: Sequence[pa.Array]) -> pa.Array:
    import pyarrow as pa

    kinds = {piece.type for piece in pieces if not pa.types.is_null(piece.type)}
    if len(kinds) > 1:
        raise InvalidInput(f"The column {name!r} has several types.")
    kind = kinds.pop() if kinds else pa.float64()
    if pa.types.is_large_string(kind):
        kind = pa.string()
    if pa.types.is_decimal(kind):
        kind = pa.float64()
    return pa.concat_arrays([piece.cast(kind) for piece in pieces])


def _require_labels(cells: pa.Array, label: str, task: str) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc

    missing = pc.is_null(cells, nan_is_null=True)
    if missing.true_count:
        row = pc.index(missing, True).as_py() + 1
        raise InvalidInput(
            f"The label {label!r} of row {row} is missing or no such value.",
            hint="Leave out rows without a label: nothing can be learnt there.",
        )
    number = pa.types.is_integer(cells.type) or pa.types.is_floating(cells.type)
    if task == "regression" and not number:
        raise InvalidInput(
            f"The label {label!r} holds {cells.type}, and a regression takes numbers.",
            hint="Set task to classification.",
        )
    if task == "classification" and pc.count_distinct(cells).as_py() < 2:
        raise InvalidInput(f"The label {label!r} has one value only; there is nothing to learn.")


def _values(name: str, cells: pa.Array) -> Any:
    """Give a column as numpy has it: texts as objects, missing numbers and booleans as NaN."""
    import pyarrow as pa

    types, kind = pa.types, cells.type
    if types.is_string(kind):
        return cells.to_numpy(zero_copy_only=False).astype(object)
    if types.is_boolean(kind):
        return (
            cells.cast(pa.int8()).cast(pa.float64()).to_numpy(False)
            if cells.null_count
            else (cells.to_numpy(zero_copy_only=False))
        )
    if types.is_integer(kind) or types.is_floating(kind):
        return cells.to_numpy(zero_copy_only=False)
    raise InvalidInput(
        f"The column {name!r} holds {kind}, which nothing is learnt from here.",
        hint="Name the columns that the model gets with features.",
    )
