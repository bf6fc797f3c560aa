"""Drift: whether data look as those did that a model was trained on, column by column."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.batch import open_table, typed_column
from kfp_bento.runtime.checks.check_report import CheckReport
from kfp_bento.runtime.checks.statistics import (
    CATEGORICAL,
    ColumnStatistics,
    Counted,
    Frame,
    Statistics,
    cells_kind,
    count_cells,
)
from kfp_bento.runtime.errors import InvalidInput

if TYPE_CHECKING:
    import numpy as np

    from kfp_bento.runtime.batch import Table

NAME = "detect_drift"
_MOST_GROUPS = 10
_ROWS_OF_A_GROUP = 20
_ROWS_OF_A_VALUE = 5
_SHOWN_BINS = 12
_SHOWN_VALUES = 12
_RARE_CHANCE = 3.09
"""Standard deviations that chance exceeds once in a thousand."""
_NEW = "values that were not there"
_RARE = "rarer values"


@dataclass(frozen=True)
class DriftOptions:
    """What counts as drift. A limit of 0 switches a measure off.

    Where there are few rows, PSI and missing values also have to exceed what chance alone gives
    once in a thousand.

    Attributes:
        psi: Population stability index of a column; 0.1 is little, above 0.2 much.
        ks: Kolmogorov-Smirnov statistic of a column of numbers: the greatest difference of shares
            below any of the known quantiles.
        total_variation: Greatest difference of the shares of any set of values, of categories.
        missing: How much the share of missing values may change, up or down.
        new_values: Share of rows with values that were not among the known ones.
        share: Share of the columns that may have drifted before the data have; a column that is
            missing or of another kind, and the prediction, always count for the whole.
        columns: The columns that are looked at; () for all that are described.
        prediction: The column with predictions, if it is among them.
        least_rows: Fewer rows say nothing, and are refused.
    """

    psi: float = 0.2
    ks: float = 0.0
    total_variation: float = 0.0
    missing: float = 0.1
    new_values: float = 0.05
    share: float = 0.3
    columns: tuple[str, ...] = ()
    prediction: str = ""
    least_rows: int = 30

    def __post_init__(self) -> None:
        """Refuse what makes no sense.

        Raises:
            InvalidInput: The option is named.
        """
        for one in fields(self):
            value = getattr(self, one.name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if one.name not in ("columns", "prediction") and not (number and 0 <= value < math.inf):
                raise InvalidInput(f"{one.name} is {value!r}.", hint="Give a number from 0.")


@dataclass(frozen=True)
class ColumnDrift:
    """One column, then and now.

    Attributes:
        name: Its name.
        kind: What it was.
        measures: psi, and ks or total_variation and new_values, and missing: the change of the
            share of missing values.
        reasons: Why it has drifted; () where it has not.
        broken: Whether it is missing, or of another kind.
        groups: Names, shares then and shares now, for looking at.
    """

    name: str
    kind: str
    measures: dict[str, float]
    reasons: tuple[str, ...]
    broken: bool = False
    groups: tuple[tuple[str, float, float], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Give it as evidence."""
        reason = {"reason": f"{self.name}: {'; '.join(self.reasons)}"} if self.reasons else {}
        return {
            **{"column": self.name, "kind": self.kind, "request": self.name, "path": ""},
            **{"measures": self.measures, "groups": [list(one) for one in self.groups], **reason},
        }


def detect_drift(
    statistics: Statistics,
    data_uri: str,
    options: DriftOptions | None = None,
    *,
    input_format: str = "",
    model_digests: Sequence[str] = (),
) -> CheckReport:
    """Compare data with the statistics of others.

    Args:
        statistics: Of the data that are the measure, such as those of the training.
        data_uri: CSV, Parquet or JSONL: a file or a folder, as a path, s3://, minio://, or https://
            for one file.
        options: What counts as drift.
        input_format: csv, parquet or jsonl; "" takes what the names of the files say.
        model_digests: `ModelVersion.digest` of the models that the data are for, where known.

    Returns:
        The report, which did not pass where the data have drifted. Its measures are `rows`,
        `columns`, `drifted_columns`, `drifted_share`, `largest_psi` and `psi_…` of each column;
        its evidence is one entry for each column, those that drifted with a `reason`.

    Raises:
        InvalidInput: The data are no table or have too few rows, or a column is not described.
        StorageError: The data cannot be fetched.
    """
    options = options or DriftOptions()
    described = _chosen(statistics, options)
    with open_table(data_uri, input_format) as table:
        if table.count < max(1, options.least_rows):
            raise InvalidInput(
                f"The data have {table.count:,} rows, which say nothing about a drift.",
                hint=f"Give at least {options.least_rows:,} (least_rows).",
            )
        known = dict(table.columns)
        kinds = {one.name: known[one.name] for one in described if one.name in known}
        found = count_cells(table, kinds, {one.name: _frame(one) for one in described})
        now = _kinds_now(table, kinds)
    drifts = [_drift(one, found.get(one.name), now.get(one.name, ""), options) for one in described]
    return _report(drifts, table.count, options, tuple(model_digests))


def _chosen(statistics: Statistics, options: DriftOptions) -> list[ColumnStatistics]:
    known = {one.name: one for one in statistics.columns}
    wanted = [*options.columns, *((options.prediction,) if options.prediction else ())]
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise InvalidInput(
            f"The statistics do not describe the column {unknown[0]!r}.",
            hint=f"They describe: {', '.join(list(known)[:20])}.",
        )
    chosen = (
        [known[name] for name in dict.fromkeys(wanted)] if options.columns else [*known.values()]
    )
    if not chosen:
        raise InvalidInput("The statistics describe no column.")
    return chosen


def _frame(column: ColumnStatistics) -> Frame:
    edges = column.bins.edges if column.bins else ()
    return Frame(column.kind, edges, frozenset(value for value, _ in column.values))


def _kinds_now(table: Table, kinds: dict[str, str]) -> dict[str, str]:
    """Say what each column is now; columns without any value are left out."""
    import pyarrow as pa

    found: dict[str, str] = {}
    for rows in table.rows():
        for name, kind in kinds.items():
            cells = typed_column(rows, name, table.form, kind)
            if name not in found and cells.null_count < len(cells):
                found[name] = cells_kind(cells) if not pa.types.is_null(cells.type) else ""
        if len(found) == len(kinds):
            break
    return found


def _drift(
    then: ColumnStatistics, now: Counted | None, kind: str, options: DriftOptions
) -> ColumnDrift:
    if now is None:
        return ColumnDrift(then.name, then.kind, {}, ("it is missing",), broken=True)
    if kind and then.present and kind != then.kind:
        reasons = (f"it was {then.kind} and is {kind}",)
        return ColumnDrift(then.name, then.kind, {}, reasons, broken=True)
    measures = {"missing": now.missing / now.count - then.missing / then.count}
    chance = {"missing": _chance_of_shares(then, now)}
    groups: list[tuple[str, float, float]] = []
    present = now.count - now.missing
    if then.present and present and then.bins is not None:
        more, chance["psi"], groups = _of_numbers(then, now, present)
        measures |= more
    elif then.present and present and then.kind == CATEGORICAL:
        more, chance["psi"], groups = _of_values(then, now, present)
        measures |= more
    found = _reasons(measures, chance, options)
    return ColumnDrift(then.name, then.kind, measures, found, groups=tuple(groups))


def _reasons(
    measures: dict[str, float], chance: dict[str, float], options: DriftOptions
) -> tuple[str, ...]:
    limits = {
        **{"psi": "PSI", "ks": "the Kolmogorov-Smirnov statistic"},
        **{"total_variation": "the total variation", "missing": "the change of missing values"},
        "new_values": "the share of values that were not there",
    }
    return tuple(
        f"{words} is {measures[name]:.3g} (limit {limit:.3g})"
        for name, words in limits.items()
        if (limit := getattr(options, name) and max(getattr(options, name), chance.get(name, 0.0)))
        and abs(measures.get(name, 0.0)) > limit
    )


def _chance_of_shares(then: ColumnStatistics, now: Counted) -> float:
    share = (then.missing + now.missing) / (then.count + now.count)
    return _RARE_CHANCE * math.sqrt(share * (1 - share) * (1 / then.count + 1 / now.count))


def _chance_of_psi(groups: int, before: int, after: int) -> float:
    """Give the PSI that samples of one distribution exceed once in a thousand.

    Times the harmonic sum of rows it is distributed as chi-squared; the quantile is by Wilson and
    Hilferty (1931).
    """
    free = max(1, groups - 1)
    root = 1 - 2 / (9 * free) + _RARE_CHANCE * math.sqrt(2 / (9 * free))
    return free * root**3 * (1 / before + 1 / after)


Found = tuple[dict[str, float], float, list[tuple[str, float, float]]]
"""Measures, the PSI of chance, and groups to look at."""


def _of_numbers(then: ColumnStatistics, now: Counted, present: int) -> Found:
    import numpy as np

    assert then.bins is not None  # noqa: S101 - chosen so by the caller
    before = np.array(then.bins.counts)
    after = np.zeros_like(before) if now.bins is None else now.bins
    shares, present_shares = before / before.sum(), after / max(1, after.sum())
    ks = float(np.abs(np.cumsum(shares) - np.cumsum(present_shares)).max())
    groups = _grouped(before, min(int(before.sum()), present))
    value = psi(np.add.reduceat(before, groups), np.add.reduceat(after, groups))
    chance = _chance_of_psi(len(groups), int(before.sum()), present)
    return {"psi": value, "ks": ks}, chance, _shown_bins(then, before, after)


def _grouped(before: np.ndarray, rows: int) -> list[int]:
    """Give where groups of bins begin: few for few rows, or chance would look like drift.

    The values outside of those that were seen stay groups of their own.
    """
    wanted = min(_MOST_GROUPS, max(2, rows // _ROWS_OF_A_GROUP))
    starts, filled, target = [0, 1], 0, before.sum() / wanted
    for place in range(1, len(before) - 1):
        if filled >= target:
            starts.append(place)
            filled = 0
        filled += before[place]
    return [*starts, len(before) - 1]


def _of_values(then: ColumnStatistics, now: Counted, present: int) -> Found:
    import numpy as np

    before: Counter[str] = Counter(dict(then.values))
    after: Counter[str] = Counter(now.values)
    # What is no known value is new only where all were known.
    rest = _NEW if then.complete else _RARE
    before[rest] += then.others
    after[rest] += now.others
    least = _ROWS_OF_A_VALUE * then.present / min(present, then.present)
    names = [name for name, count in before.items() if count >= least and name != rest]
    apart = [name for name in before if name not in names and name != rest]
    columns = [
        [*(counts[name] for name in names), sum(counts[name] for name in apart), counts[rest]]
        for counts in (before, after)
    ]
    shares = [np.array(one) / max(1, sum(one)) for one in columns]
    measures = {
        "psi": psi(*map(np.array, columns)),
        "total_variation": float(np.abs(shares[0] - shares[1]).sum() / 2),
        "new_values": after[_NEW] / present,
    }
    some = sum(1 for one, other in zip(*columns, strict=True) if one or other)
    chance = _chance_of_psi(some, then.present, present)
    return measures, chance, _shown_values(before, after, rest)


def psi(before: np.ndarray, after: np.ndarray) -> float:
    """Give the population stability index of counts, groups without a row in either left out.

    Half a row is added to each group, so that an empty one is a matter of how many rows there are.

    Args:
        before: Counts of groups, shape (groups,).
        after: The same, later.
    """
    import numpy as np

    some = (before + after) > 0
    one, other = before[some] + 0.5, after[some] + 0.5
    shares, later = one / one.sum(), other / other.sum()
    return float(np.sum((later - shares) * np.log(later / shares)))


def _shown_bins(
    then: ColumnStatistics, before: np.ndarray, after: np.ndarray
) -> list[tuple[str, float, float]]:
    import numpy as np

    assert then.bins is not None  # noqa: S101 - chosen so by the caller
    edges = then.bins.edges
    wide = max(1, -(-len(edges) // _SHOWN_BINS))
    starts = [0, *range(1, len(before) - 1, wide), len(before) - 1]
    names = [f"< {edges[0]:.4g}"]
    for start, end in pairwise(starts[1:]):
        low, high = edges[max(0, start - 2)], edges[end - 2]
        names.append(f"{high:.4g}" if end - 1 == start == 1 else f"{low:.4g} to {high:.4g}")
    names.append(f"> {edges[-1]:.4g}")
    shares = [np.add.reduceat(one, starts) / max(1, one.sum()) for one in (before, after)]
    found = zip(names, shares[0].tolist(), shares[1].tolist(), strict=True)
    return [one for one in found if one[1] or one[2]]


def _shown_values(
    before: Counter[str], after: Counter[str], rest: str
) -> list[tuple[str, float, float]]:
    rows, later = max(1, before.total()), max(1, after.total())
    names = [name for name, _ in before.most_common() if name != rest]
    shown, left = names[:_SHOWN_VALUES], names[_SHOWN_VALUES:]
    found = [(name, before[name] / rows, after[name] / later) for name in shown]
    others = [sum(counts[name] for name in left) for counts in (before, after)]
    if rest == _RARE:
        others = [others[0] + before[rest], others[1] + after[rest]]
    found.append((_RARE, others[0] / rows, others[1] / later))
    if rest == _NEW:
        found.append((_NEW, before[rest] / rows, after[rest] / later))
    return [one for one in found if one[1] or one[2]]


def _report(
    drifts: Sequence[ColumnDrift], rows: int, options: DriftOptions, digests: tuple[str, ...]
) -> CheckReport:
    drifted = [one for one in drifts if one.reasons]
    always = [one for one in drifted if one.broken or one.name == options.prediction]
    share = len(drifted) / len(drifts)
    passed = not always and share <= options.share
    indices = {f"psi_{one.name}": one.measures["psi"] for one in drifts if "psi" in one.measures}
    ranked = sorted(drifts, key=lambda one: (not one.reasons, -one.measures.get("psi", math.inf)))
    measures = {
        **{"rows": float(rows), "columns": float(len(drifts))},
        **{"drifted_columns": float(len(drifted)), "drifted_share": share},
        "largest_psi": max(indices.values(), default=0.0),
    }
    return CheckReport(
        name=NAME,
        passed=passed,
        summary=_summary(drifts, ranked[0] if drifted else None, always, rows, options, passed),
        measures=measures | indices,
        evidence=tuple(one.to_dict() for one in ranked),
        model_digests=digests,
        url="",
    )


def _summary(
    drifts: Sequence[ColumnDrift],
    worst: ColumnDrift | None,
    always: Sequence[ColumnDrift],
    rows: int,
    options: DriftOptions,
    passed: bool,
) -> str:
    if worst is None:
        return f"None of {len(drifts)} columns has drifted, in {rows:,} rows."
    count = sum(1 for one in drifts if one.reasons)
    named = always[0] if always else worst
    told = f"{count} of {len(drifts)} columns have drifted, in {rows:,} rows"
    if passed:
        told += f", which is within the share of {options.share:g} that may"
    return f"{told}; {named.name}: {'; '.join(named.reasons)}."
