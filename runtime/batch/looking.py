"""A first look at an input: which files it has, what is in them, and of which types.

Nothing is guessed where a signature has types; elsewhere all rows are looked at.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfp_bento.runtime.batch.cells import json_value, text_to_typed
from kfp_bento.runtime.batch.routes import JSON
from kfp_bento.runtime.batch.tables import Rows, column_names, read_rows, table_format
from kfp_bento.runtime.errors import BatchError, InvalidInput
from kfp_bento.runtime.files import file_sha256, scratch_inside
from kfp_bento.runtime.storage import local_path, open_place


def input_names(uri: str, form: str) -> list[str]:
    """Give the names of the files of an input, "" for the address itself.

    Args:
        uri: The input.
        form: Its format, which takes in files whatever their names say; "" for those that say one.

    Raises:
        InvalidInput: There are none.
    """
    if uri.startswith(("https://", "http://")):
        return [""]
    found = [one.name for one in open_place(uri).list()]
    names = [name for name in found if name == "" or _is_table(name, form)]
    if not names:
        raise InvalidInput(
            f"There is no CSV, Parquet or JSONL at {uri}.",
            hint="Names end in .csv, .parquet, .jsonl (or .csv.gz, .jsonl.gz); name the format "
            "with input_format where they do not.",
        )
    return sorted(names)


def _is_table(name: str, form: str) -> bool:
    hidden = any(part.startswith((".", "_")) for part in name.split("/"))
    return not hidden and bool(form or table_format(name))


def one_format(uri: str, names: list[str]) -> str:
    """Give the format that the names of an input's files say.

    Raises:
        InvalidInput: They say none, or several.
    """
    forms = {table_format(name or uri) for name in names}
    if forms == {""} or len(forms) > 1:
        shown = ", ".join(sorted(forms - {""})) or "none that is known"
        raise InvalidInput(
            f"The files of the input have several formats, or none: {shown}.",
            hint="Name it with input_format: csv, parquet or jsonl.",
        )
    return forms.pop()


@contextlib.contextmanager
def local_files(
    uri: str, names: list[str], sums: Mapping[str, str] | None = None
) -> Iterator[dict[str, Path]]:
    """Give files of an input at paths of this machine, for the length of a block.

    Args:
        uri: The input.
        names: The files.
        sums: What the SHA-256 of each has to be, where that is known.

    Raises:
        BatchError: A file is not what it was.
        StorageError: It cannot be read.
    """
    folder, sums = local_path(uri), sums or {}
    if folder is not None:
        paths = {name: folder / name if name else folder for name in names}
        for name, path in paths.items():
            if sums.get(name, "") not in ("", file_sha256(path)):
                raise BatchError(
                    f"{path.name} has changed since the plan was made.", hint="Plan again."
                )
        yield paths
        return
    place = open_place(uri)
    with scratch_inside(Path(tempfile.gettempdir()), "kfp-bento-table-") as scratch:
        paths = {}
        for number, name in enumerate(names):
            suffix = (name or uri.partition("?")[0]).rpartition("/")[2][-60:]
            paths[name] = scratch / f"{number}-{suffix}"
            place.read(paths[name], name, sha256=sums.get(name, ""))
        yield paths


@dataclass(frozen=True)
class Looked:
    """What a look at an input gives.

    Attributes:
        files: SHA-256 and number of rows of each file.
        columns: The columns and their kinds; see `Plan`.
    """

    files: dict[str, tuple[str, int]]
    columns: tuple[tuple[str, str], ...]


def look(local: Mapping[str, Path], form: str, typed: Mapping[str, str]) -> Looked:
    """Read all once: digests, numbers of rows, columns; types where no signature has them.

    Raises:
        InvalidInput: A file cannot be read, or has other columns than those before it.
    """
    files, schema, guess = {}, None, Guess(form, typed)
    for name, path in local.items():
        if form != "jsonl":
            found = column_names(path, form)
            if form == "csv":  # text, whose types the first rows of a file do not say
                found = [(name, "") for name, _ in found]
            if schema is not None and found != schema:
                raise InvalidInput(
                    f"{path.name} has other columns than the files before it.",
                    hint="Run them as batches of their own.",
                )
            schema = found
        count = 0
        if form == "parquet":
            import pyarrow.parquet as pq

            count = pq.read_metadata(path).num_rows
        else:
            for rows in read_rows(path, form, without=typed):
                guess.see(rows)
                count += rows.count
        files[name] = (file_sha256(path), count)
    if form == "parquet":
        return Looked(files, tuple(schema or ()))
    names = guess.names if form == "jsonl" else [name for name, _ in schema or ()]
    return Looked(files, tuple((name, typed.get(name) or guess.kind(name)) for name in names))


_FEW = 64
"""Cells that mostly tell already that a column has not a type; to look at all takes much longer."""


class Guess:
    """Types of the columns that no signature names, after all rows were seen."""

    def __init__(self, form: str, typed: Mapping[str, str]) -> None:
        self.names: list[str] = []
        self._form, self._typed = form, typed
        self._left: dict[str, list[str]] = {}
        self._seen: dict[str, set[str]] = {}

    def see(self, rows: Rows) -> None:
        """Look at some rows."""
        for name, cells in rows.columns.items():
            if name not in self._left:
                self.names.append(name)
                self._left[name] = ["long", "double", "boolean"]
            if name in self._typed:
                continue
            if self._form == "jsonl":
                kinds = {_json_kind(text) for text in cells.to_pylist() if text is not None}
                self._seen.setdefault(name, set()).update(kinds)
            else:
                self._narrow(name, cells)

    def _narrow(self, name: str, cells: Any) -> None:
        import pyarrow as pa

        if cells.null_count < len(cells):
            left = self._left[name]
            while left and any(text_to_typed(one, left[0])[1] for one in (cells[:_FEW], cells)):
                left.pop(0)
            self._seen.setdefault(name, set()).add(left[0] if left else "string")
        assert pa.types.is_string(cells.type)  # noqa: S101

    def kind(self, name: str) -> str:
        """Give the kind of a column."""
        seen = self._seen.get(name, set()) - {"null"}
        if self._form == "jsonl":
            if seen <= {"long", "double"} and seen:
                return "double" if "double" in seen else "long"
            return seen.pop() if len(seen) == 1 else JSON
        left = self._left.get(name, [])
        return left[0] if left and seen else "string"


def _json_kind(text: str) -> str:
    if text in ("null", "true", "false"):
        return "null" if text == "null" else "boolean"
    if text[0] in '"[{':
        return "string" if text[0] == '"' else JSON
    return "double" if isinstance(json_value(text), float) else "long"
