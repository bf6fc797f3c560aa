"""What a batch is, before anything runs: files by digest, rows counted, columns typed, shards cut.

A plan says all that the answers depend on, so that its key names them; a step that is given a plan
takes the very same input or stops.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.batch.asking import Question
from kfp_bento.runtime.batch.looking import input_names, local_files, look, one_format
from kfp_bento.runtime.batch.options import ALL, ERROR_COLUMN, FAIL, BatchOptions
from kfp_bento.runtime.batch.routes import Field, Route, check_columns, find_route
from kfp_bento.runtime.batch.tables import Rows, in_batches, read_rows
from kfp_bento.runtime.errors import BatchError, InvalidInput
from kfp_bento.runtime.files import (
    JSON_LIMIT,
    parse_json,
    read_small_file,
    reading,
)

if TYPE_CHECKING:
    from kfp_bento.runtime.bentos import Bento

_SHARD_ROWS = 100_000
_MOST_SHARDS = 100_000
_OF_A_REQUEST = {"json": (50_000, 4_000), "bytes": (250_000, 20_000)}
"""Values and rows of one request, at most."""
_OTHER_TYPES = {"int": "long", "float": "double", "bool": "boolean", "str": "string"}


@dataclass(frozen=True)
class InputFile:
    """A file of the input: its name below the address ("" for the address itself), and content."""

    name: str
    sha256: str
    rows: int


@dataclass(frozen=True)
class Plan:
    """A batch that can be run shard by shard.

    Attributes:
        tag: The bento's tag.
        digest: The bento's digest.
        options: What decides answers and outputs; formats and `batch_rows` are settled.
        files: The files of the input, in the order of their rows.
        columns: The columns of the input and their kinds: types of MLflow for CSV and JSONL, of
            Arrow for Parquet.
        shards: The first row of each shard, and the row after its last.
    """

    tag: str
    digest: str
    options: BatchOptions
    files: tuple[InputFile, ...]
    columns: tuple[tuple[str, str], ...]
    shards: tuple[tuple[int, int], ...]

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return sum(file.rows for file in self.files)

    @property
    def kept(self) -> tuple[tuple[str, str], ...]:
        """The columns of the input that stand in the output too."""
        keep = self.options.keep
        if keep == (ALL,):
            return self.columns
        kinds = dict(self.columns)
        return tuple((name, kinds[name]) for name in keep)

    @property
    def key(self) -> str:
        """SHA-256 over all that the output depends on."""
        facts = {name: value for name, value in self.to_dict().items() if name != "key"}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def question(self, bento: Bento) -> Question:
        """Give how rows are asked about.

        Raises:
            BatchError: This is another bento than the plan was made for.
            InvalidInput: As `find_route` says.
        """
        if bento.digest != self.digest:
            raise BatchError(
                f"The plan is for the bento {self.tag}, and this is {bento.tag}.",
                hint="Plan again for this bento.",
            )
        return self.question_for(find_route(bento, self.options.api))

    def question_for(self, route: Route) -> Question:
        """Give how rows are asked about at an API that is known."""
        options = self.options
        columns = asked_columns(route, dict(self.columns), options.inputs)
        params: Mapping[str, Any] = options.params
        if params and not route.own:
            params = {"params": params}
        return Question(route, options.input_format, columns, params, options.on_error)

    def batches(self, local: Mapping[str, Path], start: int, end: int) -> Iterator[Rows]:
        """Give the rows from `start` to `end` in batches, of the files of them at local paths."""
        first = 0

        def pieces() -> Iterator[Rows]:
            nonlocal first
            for file in self.files:
                if first < end and first + file.rows > start:
                    for piece in read_rows(local[file.name], self.options.input_format):
                        yield Rows(first + piece.start, piece.count, piece.columns)
                first += file.rows

        return in_batches(pieces(), self.options.batch_rows, start, end)

    def names_of(self, start: int, end: int) -> list[str]:
        """Give the files that hold the rows from `start` to `end`."""
        names, first = [], 0
        for file in self.files:
            if first < end and first + file.rows > start:
                names.append(file.name)
            first += file.rows
        return names

    def to_dict(self) -> dict[str, Any]:
        """Give the plan as JSON values."""
        return {
            "bento": {"tag": self.tag, "digest": self.digest},
            "options": self.options.to_dict(),
            "files": [[file.name, file.sha256, file.rows] for file in self.files],
            "columns": [list(column) for column in self.columns],
            "shards": [list(shard) for shard in self.shards],
        }

    def save(self, file: Path) -> None:
        """Write the plan to a file."""
        file.write_text(json.dumps(self.to_dict(), sort_keys=True), encoding="utf-8")


def asked_columns(
    route: Route, found: Mapping[str, str], inputs: Sequence[str] = ()
) -> tuple[Field, ...]:
    """Give the columns that a model gets of a table.

    Args:
        route: The API.
        found: The columns of the table and their kinds; see `Plan.columns`.
        inputs: Those that it gets, where its signature names none; () for all.
    """
    kinds = {one.name: one for one in route.fields if one.name}
    chosen = [name for name in inputs or found if name in kinds or not kinds]
    if kinds:  # in the model's order
        return tuple(one for one in route.fields if one.name in chosen)
    by_place = route.fields if len(route.fields) == len(chosen) else ()
    return tuple(
        Field(name, by_place[place].kind if by_place else kind_of(found[name]))
        for place, name in enumerate(chosen)
    )


def load_plan(file: Path) -> Plan:
    """Read a plan that `Plan.save` wrote.

    Raises:
        BatchError: It is none.
    """
    with reading(f"The plan {file.name} cannot be read", BatchError, hint="Plan again."):
        data = parse_json(read_small_file(file, 4 * JSON_LIMIT))
        try:
            return Plan(
                str(data["bento"]["tag"]),
                str(data["bento"]["digest"]),
                BatchOptions.from_dict(data["options"]),
                tuple(
                    InputFile(str(name), str(sha), int(rows)) for name, sha, rows in data["files"]
                ),
                tuple((str(name), str(kind)) for name, kind in data["columns"]),
                tuple((int(start), int(end)) for start, end in data["shards"]),
            )
        except (KeyError, TypeError) as failure:
            raise ValueError(f"it is no plan ({failure})") from failure


def plan_batch(
    bento: Bento, input_uri: str, options: BatchOptions | None = None, *, shards: int = 0
) -> Plan:
    """Look at an input once, and say what a batch of it is; nothing runs yet.

    Args:
        bento: The bento that will be asked.
        input_uri: A file, or a folder whose CSV, Parquet or JSONL files are taken by name: a path,
            `file://`, `s3://`, `minio://` or `https://` (one file).
        options: How it is asked.
        shards: Parts of the output, at most; 0 makes one for every 100,000 rows.

    Raises:
        InvalidInput: There are no rows, a column that the model needs is missing, or the options
            do not fit.
        StorageError: The input cannot be read.
    """
    if not 0 <= shards <= _MOST_SHARDS:
        raise InvalidInput(f"shards is {shards}.", hint=f"Give 1 to {_MOST_SHARDS}, or 0.")
    options = options or BatchOptions()
    route = find_route(bento, options.api)
    return plan_for(route, bento.tag, bento.digest, input_uri, options, shards=shards)


def plan_for(
    route: Route,
    tag: str,
    digest: str,
    input_uri: str,
    options: BatchOptions,
    *,
    shards: int = 0,
    without: str = "",
) -> Plan:
    """Look at an input once for an API that is known; see `plan_batch`.

    The column that `without` names is no input of the model, unless the options choose it.
    """
    names = input_names(input_uri, options.input_format)
    form = options.input_format or one_format(input_uri, names)
    typed = {one.name: one.kind for one in route.fields if one.name}
    with local_files(input_uri, names) as local:
        looked = look(local, form, typed)
    files = tuple(InputFile(name, *looked.files[name]) for name in names)
    way = "bytes" if route.infer and form != "jsonl" else "json"
    options = _settled(options, form, looked.columns, _OF_A_REQUEST[way])
    have = list(options.inputs or [name for name, _ in looked.columns if name != without])
    if without:
        options = replace(options, inputs=tuple(have))
    check_columns(route, have, "The input")
    rows = sum(file.rows for file in files)
    if not rows:
        raise InvalidInput("The input has no rows.")
    cut = _cut(rows, shards or -(-rows // _SHARD_ROWS), options.batch_rows)
    return Plan(tag, digest, options, files, looked.columns, cut)


def kind_of(kind: str) -> str:
    """Give MLflow's kind for one of Arrow's, where a column of Parquet has no declared type."""
    return {"int64": "long", "int32": "integer", "float": "float", "bool": "boolean"}.get(
        kind, "double" if kind == "double" else kind
    )


def _settled(
    options: BatchOptions,
    form: str,
    columns: tuple[tuple[str, str], ...],
    most: tuple[int, int],
) -> BatchOptions:
    """Give the options with what they leave open; `most` are values and rows of a request."""
    have = [name for name, _ in columns]
    for option, names in (("keep", options.keep), ("inputs", options.inputs)):
        unknown = [name for name in names if name not in have and names != (ALL,)]
        if unknown:
            raise InvalidInput(
                f"The input has no column {unknown[0]!r}, which {option} names.",
                hint=f"It has: {', '.join(have[:20])}.",
            )
    kept = have if options.keep == (ALL,) else options.keep
    if ERROR_COLUMN in kept and options.on_error != FAIL:
        raise InvalidInput(
            f"The input has a column {ERROR_COLUMN!r}, where errors of rows would stand.",
            hint="Name the columns to keep without it (keep), or rename it.",
        )
    width = max(1, len(options.inputs or have))
    rows = options.batch_rows or max(1, min(most[1], most[0] // width))
    return BatchOptions(
        **{
            **options.__dict__,
            "input_format": form,
            "output_format": options.output_format or form,
            "batch_rows": rows,
        }
    )


def _cut(rows: int, shards: int, batch: int) -> tuple[tuple[int, int], ...]:
    """Cut rows into shards of whole batches, all but the last of the same size."""
    batches = -(-rows // batch)
    size = -(-batches // shards) * batch
    return tuple((start, min(start + size, rows)) for start in range(0, rows, size))
