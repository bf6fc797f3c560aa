"""The run of a batch: shard by shard, each there whole or not at all, and never twice.

A finished shard is a part, `part-00000.parquet`, and then its record, `part-00000.json`, which
names the key of the plan and the digest of the part. A run that comes after a killed one, or after
itself, keeps the parts whose record says that they are of this plan.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.batch.asking import Answered, Question, Services, services
from kfp_bento.runtime.batch.looking import local_files
from kfp_bento.runtime.batch.plan import Plan, plan_batch
from kfp_bento.runtime.batch.writing import Layout, check_names, layout_of, open_part
from kfp_bento.runtime.errors import BatchError, InvalidInput, StorageError
from kfp_bento.runtime.files import (
    JSON_LIMIT,
    file_sha256,
    parse_json,
    read_small_file,
    scratch_inside,
)
from kfp_bento.runtime.proof import locked_environment
from kfp_bento.runtime.storage import local_path, open_place

if TYPE_CHECKING:
    from kfp_bento.runtime.batch.options import BatchOptions
    from kfp_bento.runtime.bentos import Bento

MANIFEST = "manifest.json"
_MOST_WORKERS = 64

Tell = Callable[[int, int], None]


@dataclass(frozen=True)
class Part:
    """A part of the output that is there.

    Attributes:
        key: Of the plan that it belongs to.
        shard: Its number.
        name: Its file.
        rows: Rows, as many as in its shard of the input.
        errors: How many of them have an error instead of an answer.
        size: Bytes.
        sha256: SHA-256, hexadecimal.
        columns: Names and Arrow types of the predictions.
    """

    key: str
    shard: int
    name: str
    rows: int
    errors: int
    size: int
    sha256: str
    columns: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Give the record as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Manifest:
    """What a finished batch says of itself: the same for the same input, bento and options.

    Attributes:
        plan: The plan.
        parts: The parts, in the order of their rows.
        location: Where the output is; not part of the document.
    """

    plan: Plan
    parts: tuple[Part, ...]
    location: str

    @property
    def errors(self) -> int:
        """How many rows have an error instead of an answer."""
        return sum(part.errors for part in self.parts)

    def save(self, file: Path) -> None:
        """Write the manifest to a file."""
        file.write_bytes(_as_document(self.to_dict()))

    def to_dict(self) -> dict[str, Any]:
        """Give the manifest as JSON values."""
        plan = self.plan
        return {
            "key": plan.key,
            "bento": {"tag": plan.tag, "digest": plan.digest},
            "options": plan.options.to_dict(),
            "input": {"rows": plan.rows, "files": [asdict(file) for file in plan.files]},
            "columns": [
                *({"name": name, "from": "input"} for name, _ in plan.kept),
                *(
                    {"name": name, "from": "bento", "type": kind}
                    for name, kind in self.parts[0].columns.items()
                ),
            ],
            "rows": sum(part.rows for part in self.parts),
            "errors": self.errors,
            "outputs": [
                {
                    name: value
                    for name, value in part.to_dict().items()
                    if name not in ("key", "shard", "columns")
                }
                for part in self.parts
            ],
        }


def predict_batch(
    bento: Bento,
    input_uri: str,
    to: str,
    options: BatchOptions | None = None,
    *,
    shards: int = 0,
    workers: int = 0,
    progress: Tell | None = None,
) -> Manifest:
    """Ask a bento about all rows of an input, and write its answers beside them.

    The bento runs in its locked environment, without network and credentials. What a run that was
    killed had finished is kept.

    Args:
        bento: The bento.
        input_uri: A file or a folder of files; see `plan_batch`.
        to: A folder: a path, `file://`, `s3://` or `minio://`. It gets the parts, their records,
            and `manifest.json` last of all.
        options: How it is asked and what is written.
        shards: Parts, at most; 0 makes one for every 100,000 rows.
        workers: Processes of the bento; 0 takes one for each processor.
        progress: Told the rows done and the rows in all.

    Raises:
        InvalidInput: The input or the options do not fit the bento.
        BatchError: A row is refused, or the bento fails; what was finished stays.
        BentoError: The bento does not start.
        StorageError: Something cannot be read or written.
    """
    _check_place(input_uri, to)
    plan = plan_batch(bento, input_uri, options, shards=shards)
    _prepare(plan, to)
    done = 0
    with _Run(bento, plan, input_uri, to, workers) as run:
        for number in range(len(plan.shards)):
            part = run.shard(number)
            done += part.rows
            if progress:
                progress(done, plan.rows)
    return collect_batch(plan, to)


def predict_shard(
    bento: Bento, plan: Plan, shard: int, input_uri: str, to: str, *, workers: int = 0
) -> Part:
    """Ask a bento about one shard of a plan, unless it is finished already.

    Raises:
        InvalidInput: There is no such shard.
        BatchError: As `predict_batch`; or bento or input are not those of the plan.
        BentoError: The bento does not start.
        StorageError: Something cannot be read or written.
    """
    _check_place(input_uri, to)
    if not 0 <= shard < len(plan.shards):
        raise InvalidInput(f"The plan has no shard {shard}: it has {len(plan.shards)}.")
    with _Run(bento, plan, input_uri, to, workers) as run:
        return run.shard(shard)


def collect_batch(plan: Plan, to: str) -> Manifest:
    """Write the manifest of a batch whose shards are all finished; parts of other plans go.

    Raises:
        BatchError: A shard is missing; it is named.
        StorageError: Something cannot be read or written.
    """
    found = [finished_part(plan, number, to) for number in range(len(plan.shards))]
    missing = [str(number) for number, part in enumerate(found) if part is None]
    if missing:
        raise BatchError(
            f"{len(missing)} of {len(found)} shards are not there: {', '.join(missing[:20])}.",
            hint="Run them; those that are there are kept.",
        )
    parts = tuple(part for part in found if part is not None)
    _remove_others(plan, to)
    manifest = Manifest(plan, parts, to)
    write_document(manifest.to_dict(), to, MANIFEST)
    return manifest


class _Run:
    """What the shards of one run share; the bento is started when the first of them needs it."""

    def __init__(self, bento: Bento, plan: Plan, input_uri: str, to: str, workers: int) -> None:
        if not 0 <= workers <= _MOST_WORKERS:
            raise InvalidInput(f"workers is {workers}.", hint=f"Give 1 to {_MOST_WORKERS}, or 0.")
        self._bento, self._plan, self._input, self._to = bento, plan, input_uri, to
        self._workers = workers or len(os.sched_getaffinity(0))
        self._stack = contextlib.ExitStack()
        self._started: tuple[Services, Question, Path] | None = None
        self._local: dict[str, Path] = {}
        self._layout: Layout | None = None

    def __enter__(self) -> _Run:
        return self

    def __exit__(self, *failure: object) -> None:
        self._stack.__exit__(*failure)  # type: ignore[arg-type]

    def shard(self, number: int) -> Part:
        """Give the part of a shard, made now if it is not there."""
        part = finished_part(self._plan, number, self._to)
        if part is not None:
            return part
        bentos, question, scratch = self._start()
        start, end = self._plan.shards[number]
        layout = self._known_layout(bentos, question)
        name = part_name(self._plan, number)
        file = scratch / name
        batches = self._plan.batches(self._files(start, end), start, end)
        rows = errors = 0
        writer = open_part(self._plan, file, layout)
        try:
            for asked, answered in bentos.in_order(question, batches):
                writer.write(asked, answered)
                rows += asked.count
                errors += len(answered.errors)
        finally:
            writer.close()
        if rows != end - start:
            raise BatchError(
                f"The shard {number} has {rows} rows instead of {end - start}.", hint="Plan again."
            )
        stored = open_place(self._to).write(file, name)
        types = {column: str(kind) for column, kind in layout.items()}
        part = Part(self._plan.key, number, name, rows, errors, stored.size, stored.sha256, types)
        file.unlink()
        write_document(part.to_dict(), self._to, record_name(number))
        return part

    def _start(self) -> tuple[Services, Question, Path]:
        if self._started is None:
            question = self._plan.question(self._bento)
            folder = Path(tempfile.gettempdir())
            scratch = self._stack.enter_context(scratch_inside(folder, "kfp-bento-batch-"))
            environment = self._stack.enter_context(
                locked_environment(self._bento, error=BatchError)
            )
            count = min(self._workers, -(-self._plan.rows // self._plan.options.batch_rows))
            bentos = self._stack.enter_context(services(self._bento, environment, scratch, count))
            self._started = bentos, question, scratch
        return self._started

    def _files(self, start: int, end: int) -> dict[str, Path]:
        """Give the files with some rows, fetched and verified once."""
        names = [one for one in self._plan.names_of(start, end) if one not in self._local]
        sums = {file.name: file.sha256 for file in self._plan.files}
        if names:
            self._local |= self._stack.enter_context(local_files(self._input, names, sums))
        return self._local

    def _known_layout(self, bentos: Services, question: Question) -> Layout:
        """Give the columns of the answers, by the first rows of all: alike for every shard."""
        if self._layout is None:
            rows, batch = self._plan.rows, self._plan.options.batch_rows
            for start in range(0, rows, batch):
                end = min(start + batch, rows)
                first = self._plan.batches(self._files(start, end), start, end)
                answered = next(bentos.in_order(question, first))[1]
                if answered.columns:
                    break
            else:
                answered = Answered(0)
            self._layout = layout_of(question, answered)
            check_names(self._plan, self._layout)
        return self._layout


def part_name(plan: Plan, shard: int) -> str:
    """Give the name of a part."""
    return f"part-{shard:05}.{plan.options.output_format}"


def record_name(shard: int) -> str:
    """Give the name of the record of a part."""
    return f"part-{shard:05}.json"


def finished_part(plan: Plan, shard: int, to: str) -> Part | None:
    """Give the part of a shard if it is there, whole, and of this plan."""
    place, name = open_place(to), part_name(plan, shard)
    try:
        data = read_document(to, record_name(shard))
        part = Part(**data)
        stored, record = place.stat(name), place.stat(record_name(shard))
    except (StorageError, ValueError, TypeError):
        return None
    ours = (part.key, part.shard, part.name) == (plan.key, shard, name)
    folder = local_path(to)
    sha256 = stored.sha256 if folder is None else file_sha256(folder / name)
    sums = {stored.sha256, sha256, part.sha256}
    # The sum beside the record is what was written last.
    whole = len(sums) == 1 and stored.size == part.size and record.sha256
    return part if ours and whole else None


def read_document(to: str, name: str) -> dict[str, Any]:
    """Read a JSON document of the output.

    Raises:
        StorageError: It is not there, or cannot be read.
        ValueError: It is no JSON object.
    """
    with scratch_inside(Path(tempfile.gettempdir()), "kfp-bento-document-") as folder:
        file = folder / "document"
        open_place(to).read(file, name)
        return parse_json(read_small_file(file, JSON_LIMIT))


def write_document(data: dict[str, Any], to: str, name: str) -> None:
    """Write a JSON document beside the parts."""
    with scratch_inside(Path(tempfile.gettempdir()), "kfp-bento-document-") as folder:
        file = folder / "document"
        file.write_bytes(_as_document(data))
        open_place(to).write(file, name)


def _as_document(data: dict[str, Any]) -> bytes:
    return f"{json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False)}\n".encode()


def _prepare(plan: Plan, to: str) -> None:
    """Take away the manifest of another batch: it would speak of parts that are about to change."""
    try:
        known = read_document(to, MANIFEST).get("key")
    except StorageError:
        return
    except ValueError:
        known = None
    if known != plan.key:
        open_place(to).delete(MANIFEST)


def _remove_others(plan: Plan, to: str) -> None:
    """Remove parts that an earlier batch left in the same folder."""
    place = open_place(to)
    wanted = {part_name(plan, number) for number in range(len(plan.shards))}
    wanted |= {record_name(number) for number in range(len(plan.shards))}
    for name in [one.name for one in place.list()]:
        if _is_part(name) and name not in wanted:
            place.delete(name)


def _is_part(name: str) -> bool:
    stem, _, suffix = name.partition(".")
    number = stem.removeprefix("part-")
    return stem != number and number.isdigit() and suffix in ("csv", "jsonl", "parquet", "json")


def _check_place(input_uri: str, to: str) -> None:
    if f"{to.rstrip('/')}/".startswith(f"{input_uri.rstrip('/')}/"):
        raise InvalidInput(
            "The output would lie among the input.", hint="Give another folder for the output."
        )
