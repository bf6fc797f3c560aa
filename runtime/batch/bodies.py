"""Requests made of the first rows of a table, for whoever asks a service that runs already."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from kfp_bento.runtime.batch.asking import Question, body_of, json_cells
from kfp_bento.runtime.batch.looking import Guess, input_names, local_files, one_format
from kfp_bento.runtime.batch.options import FAIL
from kfp_bento.runtime.batch.plan import asked_columns
from kfp_bento.runtime.batch.routes import check_columns, signature_route
from kfp_bento.runtime.batch.tables import Rows, column_names, in_batches, read_rows
from kfp_bento.runtime.errors import InvalidInput

if TYPE_CHECKING:
    from pathlib import Path

    from kfp_bento.runtime.batch.routes import Route
    from kfp_bento.runtime.models import ModelSignature


def table_bodies(
    uri: str, path: str, signature: ModelSignature, *, rows: int, most: int
) -> list[tuple[bytes, int]]:
    """Give JSON bodies that ask a model about the first rows of a table, as a batch asks them.

    Args:
        uri: A CSV, Parquet or JSONL file, or a folder of them; see `plan_batch`.
        path: The path at which the model is asked.
        signature: The model's signature.
        rows: Rows of a request; the last one may have fewer.
        most: How many requests, at most.

    Returns:
        Each body with its number of rows.

    Raises:
        InvalidInput: There are no rows, a column that the model needs is missing, or a cell is
            none of its type.
        StorageError: The table cannot be read.
    """
    route = signature_route(path, signature)
    names = input_names(uri, "")
    form = one_format(uri, names)
    with local_files(uri, names) as local:
        batches = list(in_batches(_pieces(local, form), rows, 0, rows * most))
        kinds = _kinds(route, next(iter(local.values())), form, batches)
    if not batches:
        raise InvalidInput(f"There are no rows in {uri}.")
    check_columns(route, list(kinds), uri)
    question = Question(route, form, asked_columns(route, kinds), {}, FAIL)
    return [(_body(question, batch), batch.count) for batch in batches]


def _pieces(local: Mapping[str, Path], form: str) -> Iterator[Rows]:
    """Give the rows of files one after the other, numbered through."""
    first = 0
    for file in local.values():
        count = 0
        for piece in read_rows(file, form):
            yield Rows(first + piece.start, piece.count, piece.columns)
            count += piece.count
        first += count


def _kinds(route: Route, file: Path, form: str, batches: list[Rows]) -> dict[str, str]:
    """Give the columns and their kinds: the signature's, Parquet's own, or what the cells are."""
    if form == "parquet":
        return dict(column_names(file, form))
    typed = {one.name: one.kind for one in route.fields if one.name}
    guess = Guess(form, typed)
    for batch in batches:
        guess.see(batch)
    return {name: typed.get(name) or guess.kind(name) for name in guess.names}


def _body(question: Question, rows: Rows) -> bytes:
    cells, errors = json_cells(question, rows)
    if errors:
        place = min(errors)
        raise InvalidInput(
            f"Row {rows.start + place + 1} cannot be sent: {errors[place]}.", hint="Mend the row."
        )
    return body_of(question, cells, range(rows.count), rows.count)
