"""Labels and answers side by side, row by row, before anybody asks what they mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.batch import typed_column
from kfp_bento.runtime.errors import CheckError, InvalidInput

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from kfp_bento.runtime.batch import Answered, Answers, Rows

PREDICTION = "prediction"
_MOST_ROWS = 20_000_000
_MOST_UNANSWERED = 1000


@dataclass(frozen=True)
class Labelled:
    """Answered rows with their labels.

    Attributes:
        labels: The labels, none missing.
        raw: The same as they are written, where they are text of CSV.
        answers: The answers by column.
        chosen: The column of them that counts.
        unanswered: How many rows more have no answer.
        reason: Why the first of those has none.
    """

    labels: pa.Array
    raw: pa.Array
    answers: Mapping[str, pa.Array]
    chosen: str
    unanswered: int
    reason: str

    @property
    def column(self) -> pa.Array:
        """The answers that count."""
        return self.answers[self.chosen]


@dataclass
class _Collected:
    """What is known after some pieces."""

    labels: list[pa.Array] = field(default_factory=list)
    raw: list[pa.Array] = field(default_factory=list)
    answers: dict[str, list[pa.Array]] = field(default_factory=dict)
    unanswered: int = 0
    reason: str = ""


def read_labelled(answers: Answers, label: str, prediction: str = "") -> Labelled:
    """Take all answers with the labels of their rows; rows without an answer are counted.

    Args:
        answers: What was asked, with the label's column among those of the table.
        label: The column with the right answers.
        prediction: The column of the answers that counts; "" takes the only one, or the one that
            is called prediction, or the first.

    Raises:
        InvalidInput: The column of the labels or of the answers is not there, a label is missing,
            or the values of one are of several types.
        CheckError: No row is answered, or the greater part of very many is not.
    """
    kinds = dict(answers.columns)
    if label not in kinds:
        raise InvalidInput(
            f"The data have no column {label!r} (label).",
            hint=f"They have: {', '.join(list(kinds)[:20])}.",
        )
    if answers.count > _MOST_ROWS:
        raise InvalidInput(
            f"The data have {answers.count:,} rows.", hint=f"Give at most {_MOST_ROWS:,}."
        )
    found = _Collected()
    for rows, answered in answers.pieces:
        labels = typed_column(rows, label, answers.form, kinds[label])
        _require_labels(labels, rows.start, label)
        raw = rows.columns[label] if answers.form == "csv" else labels
        _collect(found, labels, raw, answered, rows, prediction)
    if not found.labels:
        raise CheckError(
            f"The model answers no row of the data; the first, {found.reason}.",
            hint="Look whether the data have the columns and types that it was trained on.",
        )
    columns = {
        name: joined(pieces, f"the answers' column {name!r}")
        for name, pieces in found.answers.items()
    }
    return Labelled(
        joined(found.labels, f"the label {label!r}"),
        joined(found.raw, f"the label {label!r}"),
        columns,
        _chosen(columns, prediction),
        found.unanswered,
        found.reason,
    )


def _require_labels(labels: pa.Array, start: int, name: str) -> None:
    import pyarrow.compute as pc

    missing = pc.is_null(labels, nan_is_null=True)
    if missing.true_count:
        row = start + pc.index(missing, True).as_py() + 1
        raise InvalidInput(
            f"The label {name!r} of row {row} is missing or no such value.",
            hint="Leave out rows without a label: nothing can be measured there.",
        )


def _collect(
    found: _Collected,
    labels: pa.Array,
    raw: pa.Array,
    answered: Answered,
    rows: Rows,
    prediction: str,
) -> None:
    """Add the rows of a piece that have an answer, and count the others."""
    import pyarrow as pa

    columns = {name: _as_arrow(name, values) for name, values in answered.columns.items()}
    keep = _answered_rows(columns, prediction, answered.errors, rows.count)
    missing = rows.count - int(keep.sum())
    if missing and not found.reason:
        place = int(keep.argmin())
        told = answered.errors.get(place, "its answer is missing or not finite")
        found.reason = f"row {rows.start + place + 1}: {told}"
    found.unanswered += missing
    if found.unanswered > max(_MOST_UNANSWERED, (rows.start + rows.count) // 2):
        raise CheckError(
            f"The model does not answer {found.unanswered:,} of the first "
            f"{rows.start + rows.count:,} rows; the first, {found.reason}.",
            hint="Look whether the data have the columns and types that it was trained on.",
        )
    if missing == rows.count:
        return
    mask = pa.array(keep)
    found.labels.append(labels.filter(mask))
    found.raw.append(raw.filter(mask))
    for name, column in columns.items():
        found.answers.setdefault(name, []).append(column.filter(mask))


def _answered_rows(
    columns: Mapping[str, pa.Array], prediction: str, errors: Mapping[int, str], count: int
) -> np.ndarray:
    """Say which rows have an answer that can be judged, shape (count,)."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    if not columns:
        return np.zeros(count, dtype=bool)
    column = columns[_chosen(columns, prediction)]
    good = pc.is_valid(column)
    if pa.types.is_floating(column.type):
        good = pc.fill_null(pc.is_finite(column), False)
    keep: np.ndarray = np.array(good.to_numpy(zero_copy_only=False))
    keep[list(errors)] = False
    return keep


def _as_arrow(name: str, values: Sequence[Any] | pa.Array) -> pa.Array:
    import pyarrow as pa

    if isinstance(values, pa.Array):
        return values
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError, TypeError) as failure:
        raise InvalidInput(
            f"The answers' column {name!r} has values of several types."
        ) from failure


def _chosen(columns: Mapping[str, Any], prediction: str) -> str:
    if not prediction:
        return PREDICTION if PREDICTION in columns else next(iter(columns))
    if prediction not in columns:
        raise InvalidInput(
            f"The answers have no column {prediction!r} (prediction).",
            hint=f"They have: {', '.join(list(columns)[:20])}.",
        )
    return prediction


def joined(pieces: Sequence[pa.Array], what: str) -> pa.Array:
    """Put pieces of a column together; whole numbers and others become floats.

    Raises:
        InvalidInput: They are of types that have nothing in common.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    kinds = {piece.type for piece in pieces if not pa.types.is_null(piece.type)}
    if len(kinds) > 1 and all(map(is_number, kinds)):
        kinds = {pa.float64()}
    elif len(kinds) > 1 and all(map(is_list, kinds)):
        kinds = {pa.list_(pa.float64())}
    if len(kinds) > 1:
        shown = ", ".join(sorted(map(str, kinds)))
        raise InvalidInput(f"In {what} are values of several types: {shown}.")
    kind = next(iter(kinds), pa.null())
    return pa.concat_arrays([pc.cast(piece, kind, safe=False) for piece in pieces])


def is_number(kind: pa.DataType) -> bool:
    """Say whether a type is one of numbers."""
    import pyarrow as pa

    return any(
        one(kind) for one in (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
    )


def is_list(kind: pa.DataType) -> bool:
    """Say whether a type is one of lists."""
    import pyarrow as pa

    kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(one(kind) for one in kinds)
