"""Parts of the output: input columns that are kept, predictions, and errors of rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from kfp_bento.runtime.batch.cells import (
    NUMBERS,
    arrow_type,
    csv_lines,
    inferred_type,
    json_to_arrow,
    json_to_text,
    object_lines,
    text_to_json,
    text_to_typed,
    to_json,
    values_to_arrow,
    values_to_json,
)
from kfp_bento.runtime.batch.options import ERROR_COLUMN, FAIL
from kfp_bento.runtime.batch.tables import Rows, as_json
from kfp_bento.runtime.errors import BatchError, InvalidInput

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

    from kfp_bento.runtime.batch.asking import Answered, Question
    from kfp_bento.runtime.batch.plan import Plan

Layout = dict[str, "pa.DataType"]
"""The columns of the predictions and their types."""


class PartWriter(Protocol):
    """Writes one part; the file is whole once `close` came back."""

    def write(self, rows: Rows, answered: Answered) -> None:
        """Add rows with their answers."""

    def close(self) -> None:
        """Finish the file."""


def layout_of(question: Question, answered: Answered) -> Layout:
    """Give the columns of the answers: of the declared types, else of those of the values."""
    declared = {one.name or "prediction": one.kind for one in question.route.answers}
    found: Layout = {}
    for name, answers in answered.columns.items():
        values = answers if isinstance(answers, list) else answers.to_pylist()
        found[name] = inferred_type(values)
        if name in declared and _fits(values, arrow_type(declared[name])):
            found[name] = arrow_type(declared[name])
    return found


def _fits(values: Sequence[Any], kind: pa.DataType) -> bool:
    import pyarrow as pa

    if pa.types.is_string(kind):
        return all(one is None or isinstance(one, str) for one in values)
    try:
        values_to_arrow(values, kind)
    except (pa.ArrowException, ValueError, TypeError):
        return False
    return True


def check_names(plan: Plan, layout: Layout) -> None:
    """Refuse predictions that have the name of a column that is kept.

    Raises:
        InvalidInput: One has.
    """
    taken = {name for name, _ in plan.kept}
    if plan.options.on_error != FAIL:
        taken.add(ERROR_COLUMN)
    both = [name for name in layout if name in taken]
    if both:
        raise InvalidInput(
            f"The answers and the columns that are kept both have {both[0]!r}.",
            hint="Name the columns to keep without it (keep).",
        )


def open_part(plan: Plan, file: Path, layout: Layout) -> PartWriter:
    """Begin a part of the output in the format that the plan names."""
    kinds: dict[str, Callable[[Plan, Path, Layout], PartWriter]] = {
        **{"csv": _Csv, "jsonl": _Jsonl, "parquet": _Parquet}
    }
    return kinds[plan.options.output_format](plan, file, layout)


class _Lines:
    """What CSV and JSONL have in common."""

    def __init__(self, plan: Plan, file: Path, layout: Layout) -> None:
        self._plan, self._layout = plan, layout
        self._stream = file.open("wb")

    def close(self) -> None:
        """Finish the file."""
        self._stream.close()

    def _put(self, lines: Sequence[str]) -> None:
        self._stream.write("".join(f"{line}\n" for line in lines).encode())


class _Csv(_Lines):
    def __init__(self, plan: Plan, file: Path, layout: Layout) -> None:
        super().__init__(plan, file, layout)
        import pyarrow as pa

        names = [name for name, _ in plan.kept] + list(layout)
        if plan.options.on_error != FAIL:
            names.append(ERROR_COLUMN)
        self._put(csv_lines([pa.array([name]) for name in names]).to_pylist())

    def write(self, rows: Rows, answered: Answered) -> None:
        """Add rows with their answers."""
        import pyarrow as pa

        plan = self._plan
        columns = [self._text(rows, name) for name, _ in plan.kept]
        columns += [json_to_text(values_to_json(one)) for one in _answers(answered, self._layout)]
        if plan.options.on_error != FAIL:
            columns.append(pa.array(_errors(answered), pa.string()))
        if columns:
            self._put(csv_lines(columns).to_pylist())

    def _text(self, rows: Rows, name: str) -> pa.Array:
        cells, form = _given(rows, name), self._plan.options.input_format
        if form == "csv":
            return cells
        return json_to_text(cells if form == "jsonl" else to_json(cells))


class _Jsonl(_Lines):
    def write(self, rows: Rows, answered: Answered) -> None:
        """Add rows with their answers."""
        import pyarrow as pa

        plan = self._plan
        columns = {name: self._json(rows, name, kind) for name, kind in plan.kept}
        for name, values in answered.columns.items():
            if name not in self._layout:
                check_names(plan, {name: pa.string()})
            columns[name] = values_to_json(values)
        if answered.errors:
            errors = [None if one is None else as_json(one) for one in _errors(answered)]
            columns[ERROR_COLUMN] = pa.array(errors, pa.string())
            for name in answered.columns:
                columns[name] = _without(columns[name], answered.errors)
        self._put(object_lines(columns, rows.count))

    def _json(self, rows: Rows, name: str, kind: str) -> pa.Array:
        cells, form = _given(rows, name), self._plan.options.input_format
        if form == "jsonl":
            return cells
        if form == "parquet":
            return _null_words(to_json(cells))
        made, wrong = text_to_json(cells, kind if kind in (*NUMBERS, "boolean") else "string")
        if not wrong:
            return _null_words(made)
        texts = to_json(cells).to_pylist()
        known = made.to_pylist()
        for place in wrong:
            known[place] = texts[place]
        return _null_words(_strings(known))


class _Parquet:
    def __init__(self, plan: Plan, file: Path, layout: Layout) -> None:
        self._plan, self._layout, self._file = plan, layout, file
        self._writer: Any = None

    def write(self, rows: Rows, answered: Answered) -> None:
        """Add rows with their answers."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns = {name: self._typed(rows, name, kind) for name, kind in self._plan.kept}
        values = _answers(answered, self._layout)
        for (name, kind), one in zip(self._layout.items(), values, strict=True):
            columns[name] = _typed_answer(name, one, kind)
        if self._plan.options.on_error != FAIL:
            columns[ERROR_COLUMN] = _strings(_errors(answered))
        table = pa.table(columns)
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._file, table.schema)
        self._writer.write_table(table)

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.close()

    def _typed(self, rows: Rows, name: str, kind: str) -> pa.Array:
        cells, form = _given(rows, name), self._plan.options.input_format
        if form == "parquet":
            return cells
        if form == "csv":
            return text_to_typed(cells, kind)[0]
        wanted = (
            arrow_type(kind) if kind in (*NUMBERS, "boolean", "string") else arrow_type("string")
        )
        try:
            return json_to_arrow(cells, wanted)
        except Exception as failure:
            raise BatchError(
                f"The column {name!r} has values of several types, and Parquet takes one.",
                hint="Write JSONL (output_format), or keep it out of the output (keep).",
            ) from failure


def _given(rows: Rows, name: str) -> pa.Array:
    import pyarrow as pa

    found = rows.columns.get(name)
    return pa.nulls(rows.count, pa.string()) if found is None else found


def _answers(answered: Answered, layout: Layout) -> list[Sequence[Any] | pa.Array]:
    more = [name for name in answered.columns if name not in layout]
    if more:
        raise BatchError(
            f"The answers to some rows have {more[0]!r}, which those to the first have not.",
            hint="Write JSONL (output_format jsonl), where each row has its own keys.",
        )
    missing = [None] * answered.count
    return [answered.columns.get(name, missing) for name in layout]


def _typed_answer(name: str, values: Sequence[Any] | pa.Array, kind: pa.DataType) -> pa.Array:
    import pyarrow as pa

    try:
        return values_to_arrow(values, kind)
    except (pa.ArrowException, ValueError, TypeError) as failure:
        raise BatchError(
            f"Some answers in {name!r} are of another type than the first ones ({kind}).",
            hint="Write JSONL (output_format jsonl), or log the model with the signature of its "
            "outputs.",
        ) from failure


def _strings(values: Sequence[Any]) -> pa.Array:
    import pyarrow as pa

    return pa.array(values, pa.string())


def _null_words(cells: pa.Array) -> pa.Array:
    import pyarrow.compute as pc

    return pc.fill_null(cells, "null")


def _without(cells: pa.Array, places: Mapping[int, str]) -> pa.Array:
    return _strings([None if at in places else one for at, one in enumerate(cells.to_pylist())])


def _errors(answered: Answered) -> list[str | None]:
    return [answered.errors.get(place) for place in range(answered.count)]
