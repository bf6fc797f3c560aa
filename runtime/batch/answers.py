"""Rows of a table with what a bento or a service answers to them, for whoever judges both."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kfp_bento.runtime.batch.asking import Answered, Asked, Services, services
from kfp_bento.runtime.batch.looking import input_names, local_files, look, one_format
from kfp_bento.runtime.batch.options import BatchOptions
from kfp_bento.runtime.batch.plan import InputFile, Plan, plan_for
from kfp_bento.runtime.batch.routes import find_route
from kfp_bento.runtime.batch.tables import read_rows
from kfp_bento.runtime.errors import BatchError
from kfp_bento.runtime.files import scratch_inside
from kfp_bento.runtime.proof import locked_environment

if TYPE_CHECKING:
    from kfp_bento.runtime.batch.routes import Route
    from kfp_bento.runtime.batch.tables import Rows
    from kfp_bento.runtime.bentos import Bento


@dataclass(frozen=True)
class Table:
    """A table whose files are at hand.

    Attributes:
        form: csv, parquet or jsonl.
        columns: Its columns and their kinds: types of MLflow for CSV and JSONL, of Arrow for
            Parquet.
        files: Its files, in the order of their rows.
    """

    form: str
    columns: tuple[tuple[str, str], ...]
    files: tuple[InputFile, ...]
    local: dict[str, Path]

    @property
    def count(self) -> int:
        """How many rows there are."""
        return sum(file.rows for file in self.files)

    @property
    def digest(self) -> str:
        """`sha256:…` over the content of all files; their names do not count."""
        return _digest(self.files)

    def rows(self) -> Iterator[Rows]:
        """Give all rows, as many at a time as come easily."""
        for file in self.files:
            yield from read_rows(self.local[file.name], self.form)


@dataclass(frozen=True)
class Answers:
    """The answers to all rows of a table.

    Attributes:
        form: The format of the table.
        columns: Its columns and their kinds; see `Table`.
        count: How many rows there are.
        digest: `sha256:…` over the content of its files.
        pieces: Rows with their answers, in order.
    """

    form: str
    columns: tuple[tuple[str, str], ...]
    count: int
    digest: str
    pieces: Iterator[tuple[Rows, Answered]]


@contextlib.contextmanager
def open_table(uri: str, input_format: str = "") -> Iterator[Table]:
    """Look at a table, and keep its files at hand for the length of a block.

    Args:
        uri: A file or a folder of files; see `plan_batch`.
        input_format: csv, parquet or jsonl; "" takes what the names of the files say.

    Raises:
        InvalidInput: It is none, or a file of it cannot be read.
        StorageError: It cannot be fetched.
    """
    names = input_names(uri, input_format)
    form = input_format or one_format(uri, names)
    with local_files(uri, names) as local:
        looked = look(local, form, {})
        files = tuple(InputFile(name, *looked.files[name]) for name in names)
        yield Table(form, looked.columns, files, dict(local))


@contextlib.contextmanager
def bento_answers(
    bento: Bento, input_uri: str, options: BatchOptions, *, without: str = "", workers: int = 0
) -> Iterator[Answers]:
    """Ask a bento about all rows of a table, in its locked environment and without network.

    Args:
        bento: The bento.
        input_uri: See `plan_batch`.
        options: How it is asked; nothing of them about output counts.
        without: A column that is no input of the model, such as the label.
        workers: Processes of the bento; 0 takes one for each processor.

    Raises:
        InvalidInput: The table or the options do not fit the bento.
        BatchError: The bento fails; also while the pieces are taken.
        BentoError: It does not start.
        StorageError: The table cannot be fetched.
    """
    route = find_route(bento, options.api)
    plan = plan_for(route, bento.tag, bento.digest, input_uri, options, without=without)
    question = plan.question_for(route)
    count = min(workers or len(os.sched_getaffinity(0)), -(-plan.rows // plan.options.batch_rows))
    with contextlib.ExitStack() as stack:
        folder = Path(tempfile.gettempdir())
        scratch = stack.enter_context(scratch_inside(folder, "kfp-bento-answers-"))
        local = stack.enter_context(_planned_files(plan, input_uri))
        environment = stack.enter_context(locked_environment(bento, error=BatchError))
        found = stack.enter_context(services(bento, environment, scratch, count))
        pieces = found.in_order(question, plan.batches(local, 0, plan.rows))
        yield _answers(plan, stack.enter_context(contextlib.closing(pieces)))


@contextlib.contextmanager
def service_answers(
    service: Asked, route: Route, input_uri: str, options: BatchOptions, *, without: str = ""
) -> Iterator[Answers]:
    """Ask a running service about all rows of a table.

    Args:
        service: Takes the requests, one at a time.
        route: The API that is asked; see `route_of` and `find_route`.
        input_uri: See `plan_batch`.
        options: How it is asked; nothing of them about output counts.
        without: A column that is no input of the model, such as the label.

    Raises:
        InvalidInput: The table or the options do not fit the service.
        BatchError: The service fails; also while the pieces are taken.
        StorageError: The table cannot be fetched.
    """
    plan = plan_for(route, "", "", input_uri, options, without=without)
    with _planned_files(plan, input_uri) as local:
        batches = plan.batches(local, 0, plan.rows)
        pieces = Services([service]).in_order(plan.question_for(route), batches)
        with contextlib.closing(pieces):
            yield _answers(plan, pieces)


def _planned_files(plan: Plan, uri: str) -> contextlib.AbstractContextManager[dict[str, Path]]:
    sums = {file.name: file.sha256 for file in plan.files}
    return local_files(uri, list(sums), sums)


def _answers(plan: Plan, pieces: Iterator[tuple[Rows, Answered]]) -> Answers:
    form, digest = plan.options.input_format, _digest(plan.files)
    return Answers(form, plan.columns, plan.rows, digest, pieces)


def _digest(files: tuple[InputFile, ...]) -> str:
    text = json.dumps([[file.sha256, file.rows] for file in files])
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
