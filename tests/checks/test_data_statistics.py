"""Statistics: what columns look like, in little memory, the same however the data are cut."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kfp_bento.runtime.checks import Statistics, describe_data
from kfp_bento.runtime.checks.sketches import CANDIDATES, SAMPLE, Frequent, Moments, Sample
from kfp_bento.runtime.checks.statistics import ColumnStatistics
from kfp_bento.runtime.errors import CheckError, InvalidInput


def table(rows: int = 400) -> pd.DataFrame:
    draw = np.random.default_rng(1)
    frame = pd.DataFrame(
        {
            "amount": draw.normal(100, 15, rows).round(3),
            "visits": draw.integers(0, 3, rows),
            "city": draw.choice(["Rome", "Oslo", "Bonn, Köln"], rows),
            "member": draw.random(rows) < 0.25,
        }
    )
    frame.loc[::10, "amount"] = np.nan
    frame.loc[::8, "city"] = None
    return frame


def written(frame: pd.DataFrame, file: Path) -> str:
    file.parent.mkdir(parents=True, exist_ok=True)
    {
        ".csv": lambda: frame.to_csv(file, index=False),
        ".parquet": lambda: frame.to_parquet(file),
        ".jsonl": lambda: frame.to_json(file, orient="records", lines=True, double_precision=15),
    }[file.suffix]()
    return str(file)


def columns(found: Statistics) -> dict[str, ColumnStatistics]:
    return {one.name: one for one in found.columns}


@pytest.mark.parametrize("form", ["csv", "parquet", "jsonl"])
def test_columns_are_what_pandas_says_in_every_format(form: str, tmp_path: Path) -> None:
    frame = table()
    found = columns(describe_data(written(frame, tmp_path / f"rows.{form}")))
    amount, city, member = found["amount"], found["city"], found["member"]
    told = (amount.count, amount.missing, amount.mean, amount.std, amount.minimum, amount.maximum)
    known = frame["amount"]
    wanted = (400, 40, known.mean(), known.std(ddof=0), known.min(), known.max())
    assert told == pytest.approx(wanted)
    assert (city.kind, city.missing, city.complete) == ("categorical", 50, True)
    assert dict(city.values) == frame["city"].value_counts().to_dict()
    assert dict(member.values) == {
        "false": int((~frame["member"]).sum()),
        "true": int(frame["member"].sum()),
    }


def test_bins_hold_about_as_many_rows_each_and_all_of_them(tmp_path: Path) -> None:
    bins = columns(describe_data(written(table(), tmp_path / "rows.csv")))["amount"].bins
    assert bins is not None
    assert (len(bins.edges), len(bins.counts)) == (21, 23)
    assert bins.counts[0] == bins.counts[-1] == 0
    assert sum(bins.counts) == 360
    assert all(15 <= count <= 19 for count in bins.counts[2:-1])


def test_each_of_few_numbers_has_a_bin(tmp_path: Path) -> None:
    frame = table()
    bins = columns(describe_data(written(frame, tmp_path / "rows.csv")))["visits"].bins
    assert bins is not None
    assert bins.edges == (0, 1, 2)
    assert list(bins.counts) == [0, *frame["visits"].value_counts().sort_index(), 0]


def test_shards_give_the_same_as_one_file_of_all_rows(tmp_path: Path) -> None:
    frame = table()
    whole = describe_data(written(frame, tmp_path / "whole" / "all.csv")).to_dict()
    for number in range(4):
        part = frame.iloc[100 * number : 100 * (number + 1)]
        written(part, tmp_path / "parts" / f"{number}.csv")
    parts = describe_data(str(tmp_path / "parts")).to_dict()
    assert parts.pop("data") != whole.pop("data")
    for one, other in zip(parts["columns"], whole["columns"], strict=True):
        assert one.pop("mean", 0) == pytest.approx(other.pop("mean", 0))
        assert one.pop("std", 0) == pytest.approx(other.pop("std", 0))
    assert parts == whole


def test_the_same_data_give_the_same_bytes_and_can_be_read_again(tmp_path: Path) -> None:
    data = written(table(), tmp_path / "rows.csv")
    for name in ("one", "two"):
        describe_data(data).save(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert (tmp_path / "one").stat().st_size < 4000
    assert Statistics.load(tmp_path / "one") == describe_data(data)


def test_names_that_occur_once_are_not_kept(tmp_path: Path) -> None:
    frame = pd.DataFrame({"name": [f"person {n}" for n in range(500)] + ["anonymous"] * 500})
    (found,) = describe_data(written(frame, tmp_path / "rows.csv")).columns
    kept = dict(found.values)
    assert kept["anonymous"] == 500
    assert (found.others, found.complete) == (1000 - sum(kept.values()), False)
    frame = pd.DataFrame({"name": [f"person {n}" for n in range(3000)]})
    (found,) = describe_data(written(frame, tmp_path / "more.csv")).columns
    assert (found.values, found.others) == ((), 3000)


def test_chosen_columns_are_described_and_unknown_ones_refused(tmp_path: Path) -> None:
    data = written(table(), tmp_path / "rows.csv")
    assert list(columns(describe_data(data, ["city"]))) == ["city"]
    with pytest.raises(InvalidInput, match="no column 'town'"):
        describe_data(data, ["town"])


def test_columns_of_lists_and_without_any_value_are_others(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"a": [1], "b": null}\n{"a": {"k": 2}}\n')
    found = columns(describe_data(str(tmp_path / "rows.jsonl")))
    assert {name: (one.kind, one.missing) for name, one in found.items()} == {
        **{"a": ("other", 0), "b": ("other", 2)}
    }


@pytest.mark.parametrize(
    "spoilt",
    [
        {"format": 2},
        {"rows": -1},
        {"rows": True},
        {"columns": [{"name": "a", "kind": "strange", "count": 1, "missing": 0}]},
        {"columns": [{"name": "a", "kind": "categorical", "count": 1, "missing": 0}]},
        {"columns": 7},
    ],
)
def test_a_spoilt_document_is_refused(spoilt: dict[str, Any], tmp_path: Path) -> None:
    good = describe_data(written(table(40), tmp_path / "rows.csv")).to_dict()
    (tmp_path / "statistics.json").write_text(json.dumps({**good, **spoilt}))
    with pytest.raises(CheckError, match="no statistics of a table"):
        Statistics.load(tmp_path / "statistics.json")


def test_moments_in_pieces_are_those_of_the_whole_also_far_from_zero() -> None:
    values = np.random.default_rng(0).normal(1e9, 1e-3, 10_000)
    whole = Moments()
    for piece in np.array_split(values, 7):
        whole.add(piece)
    assert whole.mean == pytest.approx(values.mean(), rel=1e-15)
    assert whole.deviation == pytest.approx(values.std(), rel=1e-6)


def test_a_sample_is_even_bounded_and_does_not_depend_on_the_pieces() -> None:
    values = np.arange(200_000.0)
    one, other = Sample(), Sample()
    one.add(values)
    for piece in np.array_split(values, 13):
        other.add(piece)
    assert len(one.values) == SAMPLE
    assert np.array_equal(np.sort(one.values), np.sort(other.values))
    assert np.quantile(one.values, 0.9) == pytest.approx(180_000, rel=0.01)


def test_a_value_that_becomes_frequent_late_is_found_among_many() -> None:
    frequent = Frequent()
    for start in range(0, 5 * CANDIDATES, CANDIDATES // 2):
        frequent.add((f"id {n}", 1) for n in range(start, start + CANDIDATES // 2))
    frequent.add([("late", CANDIDATES)])
    frequent.add((f"more {n}", 1) for n in range(2 * CANDIDATES))
    assert "late" in frequent.candidates
    assert len(frequent.candidates) <= CANDIDATES
    assert not frequent.complete
