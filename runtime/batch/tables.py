"""Tables of rows in files, a piece at a time, in flat memory.

CSV is read as text, which the signature gives its types later and nobody guesses; Parquet as it
is; each line of JSONL by the project's own reader, its values kept as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.errors import InvalidInput
from kfp_bento.runtime.files import parse_json

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

LONGEST_LINE = 64 << 20
_BLOCK = 4 << 20
_SUFFIXES = {
    **{".csv": "csv", ".csv.gz": "csv", ".parquet": "parquet", ".pq": "parquet"},
    **{".jsonl": "jsonl", ".jsonl.gz": "jsonl", ".ndjson": "jsonl", ".ndjson.gz": "jsonl"},
}


@dataclass(frozen=True)
class Rows:
    """Some rows of a table.

    Attributes:
        start: How many rows of the whole table come before.
        count: How many these are.
        columns: The columns by name: Arrow's own types of Parquet, text of CSV, and JSON text of
            JSONL, where null is a key that is not there.
    """

    start: int
    count: int
    columns: dict[str, pa.Array]

    def slice(self, start: int, count: int) -> Rows:
        """Give some of these rows."""
        parts = {name: column.slice(start, count) for name, column in self.columns.items()}
        return Rows(self.start + start, count, parts)

    def take(self, places: Sequence[int]) -> Rows:
        """Give the rows at some places among these; `start` means nothing any more."""
        import pyarrow as pa

        at = pa.array(places, pa.int64())
        parts = {name: column.take(at) for name, column in self.columns.items()}
        return Rows(self.start, len(places), parts)


def table_format(name: str) -> str:
    """Give the format that a file's name says: csv, parquet, jsonl, or ""."""
    lower = name.lower().partition("?")[0]
    return next((form for suffix, form in _SUFFIXES.items() if lower.endswith(suffix)), "")


def read_rows(file: Path, form: str, without: Collection[str] = ()) -> Iterator[Rows]:
    """Give the rows of a file, as many at a time as come easily.

    Args:
        file: The file.
        form: Its format.
        without: Columns of CSV that need not be read, if there are others.

    Raises:
        InvalidInput: It is no such file, or a line of it cannot be read.
    """
    if form == "csv":
        pieces = _csv(file, without)
    else:
        pieces = (_parquet if form == "parquet" else _jsonl)(file)
    start = 0
    with _explained(file, form):
        for columns, count in pieces:
            yield Rows(start, count, columns)
            start += count


def column_names(file: Path, form: str) -> list[tuple[str, str]]:
    """Give the columns of a CSV or Parquet file and their Arrow types, without reading rows.

    Raises:
        InvalidInput: It is no such file, or two columns have one name.
    """
    import pyarrow.parquet as pq

    with _explained(file, form):
        schema = pq.read_schema(file) if form == "parquet" else _csv_schema(file)
    if len(set(schema.names)) < len(schema.names):
        twice = next(name for name in schema.names if schema.names.count(name) > 1)
        raise InvalidInput(f"{file.name} has two columns with the name {twice!r}.")
    return [(field.name, str(field.type)) for field in schema]


def in_batches(pieces: Iterator[Rows], size: int, start: int, end: int) -> Iterator[Rows]:
    """Cut the rows from `start` to `end` into batches of a size; the last one may be smaller.

    Args:
        pieces: All rows in order, from the first.
        size: Rows of a batch.
        start: The first row.
        end: The row after the last.
    """
    kept: list[Rows] = []
    have = 0
    for piece in pieces:
        low, high = max(start - piece.start, 0), min(end - piece.start, piece.count)
        if high > low:
            kept.append(piece.slice(low, high - low))
            have += high - low
        while have >= size:
            whole = _joined(kept)
            yield whole.slice(0, size)
            have -= size
            kept = [whole.slice(size, have)] if have else []
        if piece.start + piece.count >= end:
            break
    if have:
        yield _joined(kept)


def _joined(pieces: list[Rows]) -> Rows:
    import pyarrow as pa

    if len(pieces) == 1:
        return pieces[0]
    count = sum(piece.count for piece in pieces)
    names = list(dict.fromkeys(name for piece in pieces for name in piece.columns))
    columns = {
        name: pa.concat_arrays(
            [
                piece.columns[name] if name in piece.columns else pa.nulls(piece.count, pa.string())
                for piece in pieces
            ]
        )
        for name in names
    }
    return Rows(pieces[0].start, count, columns)


@contextmanager
def _explained(file: Path, form: str) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, ValueError, OSError, EOFError) as failure:
        said = str(failure).splitlines()[0][:300] if str(failure) else type(failure).__name__
        raise InvalidInput(
            f"{file.name} cannot be read as {form}: {said.rstrip('.')}.",
            hint="Name the right format with input_format, or mend the file.",
        ) from failure


def _csv_schema(file: Path) -> pa.Schema:
    import pyarrow as pa
    from pyarrow import csv

    options = csv.ReadOptions(use_threads=False, block_size=_BLOCK)
    quoted = csv.ParseOptions(newlines_in_values=True)
    with (
        pa.input_stream(str(file), compression="detect") as stream,
        csv.open_csv(stream, read_options=options, parse_options=quoted) as reader,
    ):
        return reader.schema


def _csv(file: Path, without: Collection[str] = ()) -> Iterator[tuple[dict[str, pa.Array], int]]:
    import pyarrow as pa
    from pyarrow import csv

    every = _csv_schema(file).names
    names = [name for name in every if name not in without] or every[:1]
    with (
        pa.input_stream(str(file), compression="detect") as stream,
        csv.open_csv(
            stream,
            read_options=csv.ReadOptions(use_threads=False, block_size=_BLOCK),
            parse_options=csv.ParseOptions(newlines_in_values=True),
            convert_options=csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                include_columns=names,
                # An empty field is missing; a quoted one is the empty text.
                **{"strings_can_be_null": True, "quoted_strings_can_be_null": False},
                null_values=[""],
            ),
        ) as reader,
    ):
        for batch in reader:
            yield dict(zip(names, batch.columns, strict=True)), batch.num_rows


def _parquet(file: Path) -> Iterator[tuple[dict[str, pa.Array], int]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(file, memory_map=False, pre_buffer=False) as opened:
        for batch in opened.iter_batches(batch_size=1 << 14, use_threads=False):
            columns = {}
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                coded = pa.types.is_dictionary(column.type)
                columns[name] = column.dictionary_decode() if coded else column
            yield columns, batch.num_rows


_LINES = 4096


def _jsonl(file: Path) -> Iterator[tuple[dict[str, pa.Array], int]]:
    import pyarrow as pa

    def made(objects: list[dict[str, Any]]) -> tuple[dict[str, pa.Array], int]:
        names = dict.fromkeys(name for one in objects for name in one)
        columns = {
            name: pa.array(
                [as_json(one[name]) if name in one else None for one in objects], pa.string()
            )
            for name in names
        }
        return columns, len(objects)

    objects: list[dict[str, Any]] = []
    with pa.input_stream(str(file), compression="detect") as stream:
        for number, line in enumerate(_lines(stream), 1):
            if line.strip():
                objects.append(_object(line, number))
            if len(objects) == _LINES:
                yield made(objects)
                objects = []
    if objects:
        yield made(objects)


def _lines(stream: Any) -> Iterator[bytes]:
    """Give the lines of a stream; Arrow's own `readline` takes a byte at a time."""
    left = b""
    while piece := stream.read(_BLOCK):
        lines = (left + piece).split(b"\n")
        left = lines.pop()
        if len(left) > LONGEST_LINE:
            raise ValueError(f"a line is longer than {LONGEST_LINE} bytes")
        yield from lines
    if left:
        yield left


def _object(line: bytes, number: int) -> dict[str, Any]:
    try:
        return parse_json(line)
    except ValueError as failure:
        raise ValueError(f"line {number}: {failure}") from None


def as_json(value: Any) -> str:
    """Give a value as JSON, with the characters as they are."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
