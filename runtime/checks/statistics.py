"""What the columns of a table look like: small, and enough to see that others look otherwise."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.batch import numbers, open_table, typed_column
from kfp_bento.runtime.checks.sketches import Frequent, Moments, Sample
from kfp_bento.runtime.errors import CheckError, InvalidInput
from kfp_bento.runtime.files import parse_json, read_small_file, reading, write_whole

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from kfp_bento.runtime.batch import Table

FORMAT = 1
BINS = 20
TOP = 100
_RAREST = 1000
NUMERIC, CATEGORICAL, OTHER = "numeric", "categorical", "other"
_LARGEST = 64 << 20
_MOST_COLUMNS = 5000
_LONGEST_VALUE = 200


@dataclass(frozen=True)
class Bins:
    """Counts of a column of numbers between edges.

    Attributes:
        edges: Rising; the first is the least value and the last the greatest one.
        counts: Two more than there are edges: below the first, at the first, above it up to and
            with each next one, and above the last.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class ColumnStatistics:
    """What one column looks like.

    Attributes:
        name: Its name.
        kind: `NUMERIC`, `CATEGORICAL` (texts and booleans) or `OTHER`, of which nothing but
            missing values is known.
        count: Rows.
        missing: Rows without a value.
        mean: Of numbers; so are std (of these rows), minimum, maximum and bins.
        values: The most frequent texts with their counts, the most frequent first: of more than
            100 those that are one in a thousand.
        others: Rows with another text.
        complete: Whether `values` are all different texts.
    """

    name: str
    kind: str
    count: int
    missing: int
    mean: float | None = None
    std: float | None = None
    minimum: float | None = None
    maximum: float | None = None
    bins: Bins | None = None
    values: tuple[tuple[str, int], ...] = ()
    others: int = 0
    complete: bool = True

    @property
    def present(self) -> int:
        """Rows with a value."""
        return self.count - self.missing

    def to_dict(self) -> dict[str, Any]:
        """Give it as JSON values, without what a column of this kind has not."""
        facts: dict[str, Any] = {
            name: getattr(self, name) for name in ("name", "kind", "count", "missing")
        }
        if self.bins is not None:
            facts |= {
                **{name: getattr(self, name) for name in _OF_NUMBERS},
                "bins": {"edges": list(self.bins.edges), "counts": list(self.bins.counts)},
            }
        if self.kind == CATEGORICAL:
            values = [list(pair) for pair in self.values]
            facts |= {"values": values, "others": self.others, "complete": self.complete}
        return facts

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ColumnStatistics:
        """Read what `to_dict` gave.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: It is no such thing.
        """
        if data["kind"] not in (NUMERIC, CATEGORICAL, OTHER):
            raise ValueError(f"the kind {data['kind']!r} is unknown")
        known: dict[str, Any] = {"name": str(data["name"]), "kind": data["kind"]}
        known |= {name: _whole(data[name]) for name in ("count", "missing")}
        if "bins" in data:
            known |= {name: _finite(data[name]) for name in _OF_NUMBERS}
            edges = tuple(map(_finite, data["bins"]["edges"]))
            counts = tuple(map(_whole, data["bins"]["counts"]))
            if len(counts) != len(edges) + 2 or sorted(set(edges)) != list(edges):
                raise ValueError("its bins do not fit together")
            known["bins"] = Bins(edges, counts)
        if data["kind"] == CATEGORICAL:
            known["values"] = tuple((str(one), _whole(count)) for one, count in data["values"])
            known |= {"others": _whole(data["others"]), "complete": data["complete"] is True}
        return cls(**known)


_OF_NUMBERS = ("mean", "std", "minimum", "maximum")


@dataclass(frozen=True)
class Statistics:
    """What a table looks like.

    Attributes:
        rows: How many rows it has.
        data: `sha256:…` over the content of its files.
        columns: Its columns.
    """

    rows: int
    data: str
    columns: tuple[ColumnStatistics, ...]

    def to_dict(self) -> dict[str, Any]:
        """Give it as JSON values."""
        columns = [one.to_dict() for one in self.columns]
        return {"format": FORMAT, "rows": self.rows, "data": self.data, "columns": columns}

    def save(self, path: Path) -> None:
        """Write the statistics as canonical JSON, in one step: the same data give the same bytes.

        Raises:
            CheckError: The file cannot be written.
        """
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        try:
            write_whole(f"{text}\n".encode("ascii"), path)
        except OSError as failure:
            raise CheckError(f"{path} cannot be written: {failure.strerror}.") from failure

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Statistics:
        """Read what `to_dict` gave.

        Raises:
            CheckError: It is no such thing.
        """
        try:
            if data["format"] != FORMAT:
                raise ValueError(f"its format is {data['format']!r}, not {FORMAT}")
            columns = tuple(map(ColumnStatistics.from_dict, data["columns"]))
            return cls(_whole(data["rows"]), str(data["data"]), columns)
        except (KeyError, TypeError, ValueError, AttributeError) as failure:
            raise CheckError(
                f"These are no statistics of a table: {failure!r}.", hint="Describe the data again."
            ) from failure

    @classmethod
    def load(cls, path: Path) -> Statistics:
        """Read a file that `save` wrote.

        Raises:
            CheckError: There is none, or it holds something else.
        """
        problem = f"There are no statistics in {path}"
        with reading(problem, CheckError, hint="Describe the data again."):
            return cls.from_dict(parse_json(read_small_file(Path(path), _LARGEST)))


def describe_data(
    data_uri: str, columns: Sequence[str] = (), *, input_format: str = ""
) -> Statistics:
    """Describe the columns of a table, in memory that does not grow with its rows.

    It is read three times: for types, for quantiles and frequent values, and for exact counts.
    Quantiles of more than 20,000 rows are those of a sample; counts never are.

    Args:
        data_uri: CSV, Parquet or JSONL: a file or a folder, as a path, s3://, minio://, or https://
            for one file.
        columns: Which columns; () for all.
        input_format: csv, parquet or jsonl; "" takes what the names of the files say.

    Raises:
        InvalidInput: It is no table, or lacks a column that is asked for.
        StorageError: It cannot be fetched.
    """
    with open_table(data_uri, input_format) as table:
        kinds = _kinds(table, columns)
        looked = {name: _Look(kind) for name, kind in kinds.items()}
        for name, cells in table_cells(table, kinds):
            looked[name].see(cells)
        like = {name: one.frame() for name, one in looked.items()}
        counted = count_cells(table, kinds, like)
        found = tuple(looked[name].told(name, table.count, counted[name]) for name in kinds)
        return Statistics(table.count, table.digest, found)


def _kinds(table: Table, columns: Sequence[str]) -> dict[str, str]:
    known = dict(table.columns)
    missing = [name for name in columns if name not in known]
    if missing:
        raise InvalidInput(
            f"The data have no column {missing[0]!r}.",
            hint=f"They have: {', '.join(list(known)[:20])}.",
        )
    chosen = list(columns or known)
    if len(chosen) > _MOST_COLUMNS:
        raise InvalidInput(
            f"The data have {len(chosen):,} columns.", hint=f"Name at most {_MOST_COLUMNS:,}."
        )
    if not table.count:
        raise InvalidInput("The data have no rows.")
    return {name: known[name] for name in chosen}


def table_cells(table: Table, kinds: Mapping[str, str]) -> Iterator[tuple[str, pa.Array]]:
    """Give pieces of columns, with their names, one after another."""
    for rows in table.rows():
        for name, kind in kinds.items():
            yield name, typed_column(rows, name, table.form, kind)


def cells_kind(cells: pa.Array) -> str:
    """Say what a column of a type is: numbers, categories or others; "" for nulls alone."""
    import pyarrow as pa

    kind, types = cells.type, pa.types
    if types.is_null(kind):
        return ""
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        return NUMERIC
    plain = types.is_boolean(kind) or types.is_string(kind) or types.is_large_string(kind)
    return CATEGORICAL if plain else OTHER


@dataclass
class Frame:
    """What values of a column are counted into: edges of bins, or values; neither for others."""

    kind: str
    edges: tuple[float, ...] = ()
    values: frozenset[str] = frozenset()


@dataclass
class Counted:
    """A column counted into a frame.

    Attributes:
        count: Rows.
        missing: Rows without a value.
        bins: Counts of bins, shape (edges + 2,); see `Bins`.
        values: Counts of the values of the frame.
        others: Rows with other values, or with values of another kind than the frame's.
    """

    count: int = 0
    missing: int = 0
    bins: np.ndarray | None = None
    values: Counter[str] = field(default_factory=Counter)
    others: int = 0


def count_cells(
    table: Table, kinds: Mapping[str, str], frames: Mapping[str, Frame]
) -> dict[str, Counted]:
    """Count the columns of a table into frames."""
    found = {name: Counted() for name in kinds}
    for name, cells in table_cells(table, kinds):
        _count(found[name], cells, frames[name])
    return found


def _count(found: Counted, cells: pa.Array, frame: Frame) -> None:
    import numpy as np
    import pyarrow.compute as pc

    missing = pc.is_null(cells, nan_is_null=True).true_count
    found.count += len(cells)
    found.missing += missing
    if frame.edges and cells_kind(cells) == NUMERIC:
        values = _finite_numbers(cells)
        # The least value has a bin of its own: of columns with few values each has.
        places = np.searchsorted(frame.edges, values) + (values >= frame.edges[0])
        counts = np.bincount(places, minlength=len(frame.edges) + 2)
        found.bins = counts if found.bins is None else found.bins + counts
        found.others += len(cells) - missing - len(values)
    elif frame.kind == CATEGORICAL and cells_kind(cells) == CATEGORICAL:
        for value, count in _texts(cells):
            if value in frame.values:
                found.values[value] += count
            else:
                found.others += count
    else:
        found.others += len(cells) - missing


class _Look:
    """A first pass over a column: what its frame will be."""

    def __init__(self, kind: str) -> None:
        self.kind = ""
        self.moments, self.sample, self.frequent = Moments(), Sample(), Frequent()

    def see(self, cells: pa.Array) -> None:
        """Look at some cells."""
        kind = cells_kind(cells)
        self.kind = self.kind or kind
        if kind == NUMERIC:
            values = _finite_numbers(cells)
            self.moments.add(values)
            self.sample.add(values)
        elif kind == CATEGORICAL:
            self.frequent.add(_texts(cells))

    def frame(self) -> Frame:
        """Give what the second pass counts into."""
        if self.kind == NUMERIC:
            return Frame(NUMERIC, _edges(self))
        return Frame(self.kind or OTHER, values=frozenset(self.frequent.candidates))

    def told(self, name: str, rows: int, counted: Counted) -> ColumnStatistics:
        """Give the statistics, after the second pass."""
        facts: dict[str, Any] = {"name": name, "kind": self.kind or OTHER, "count": rows}
        facts["missing"] = counted.missing
        if self.kind == NUMERIC and self.moments.count:
            moments = self.moments
            facts |= {"mean": moments.mean, "std": moments.deviation}
            facts |= {"minimum": moments.least, "maximum": moments.most}
            counts = () if counted.bins is None else tuple(counted.bins.tolist())
            facts["bins"] = Bins(_edges(self), counts)
        if self.kind == CATEGORICAL:
            ranked = sorted(counted.values.items(), key=lambda pair: (-pair[1], pair[0]))
            if len(ranked) > TOP or not self.frequent.complete:
                # Of names and numbers that occur once a statistic needs none.
                present = rows - counted.missing
                ranked = [pair for pair in ranked if pair[1] * _RAREST >= present]
            top = tuple(ranked[:TOP])
            others = rows - counted.missing - sum(count for _, count in top)
            facts |= {"values": top, "others": others, "complete": others == 0}
        return ColumnStatistics(**facts)


def _edges(look: _Look) -> tuple[float, ...]:
    """Give least value, quantiles and greatest value, each once."""
    import numpy as np

    moments = look.moments
    if not moments.count:
        return ()
    inner = np.quantile(look.sample.values, np.arange(1, BINS) / BINS, method="inverted_cdf")
    edges = np.unique(np.r_[moments.least, inner, moments.most])
    return tuple(edges.tolist())


def _finite_numbers(cells: pa.Array) -> np.ndarray:
    import numpy as np

    values = numbers(cells)
    finite: np.ndarray = values[np.isfinite(values)]
    return finite


def _texts(cells: pa.Array) -> Iterator[tuple[str, int]]:
    """Give the different texts of a column and their counts; long ones by their digest."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found = pc.value_counts(pc.cast(cells.drop_null(), pa.string()))
    pairs = (found.field(name).to_pylist() for name in ("values", "counts"))
    for value, count in zip(*pairs, strict=True):
        if len(value) > _LONGEST_VALUE:
            digest = hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()
            value = f"{value[:_LONGEST_VALUE]}… {digest[:12]}"
        yield value, count


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} is no number of rows")
    return value


def _finite(value: Any) -> float:
    if isinstance(value, bool) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no finite number")
    return float(value)
