"""The cells of tables reach a model as MLflow itself gives them, and its answers become columns."""

from __future__ import annotations

import json
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from batch_bentos import asked_directly

from kfp_bento.runtime.batch import BatchOptions, predict_batch
from kfp_bento.runtime.bentos import Bento
from kfp_bento.runtime.errors import BatchError, InvalidInput

pytestmark = pytest.mark.usefixtures("once_started")

TABLE = pa.table(
    {
        "id": pa.array(["a", 'b "quoted", \n line', "NA"]).dictionary_encode(),
        "number": pa.array([1.5, None, 3.0]),
        "single": pa.array([0.1, 2.5, None], pa.float32()),
        "count": pa.array([1, 2**53 + 1, 3]),
        "small": pa.array([7, 8, 9], pa.int16()),
        "flag": pa.array([True, False, True]),
        "text": pa.array(["x", 'y\t"', "Ünï"]),
        "moment": pa.array(
            [datetime(2024, 5, 6, 7, 8, 9, 1000), datetime(2024, 5, 6), None], pa.timestamp("us")
        ),
        "raw": pa.array([b"\xff\x00", b"", b"x"]),
        "list": pa.array([[1.0, 2.0], [], [3.5]]),
    }
)


def run(
    bento: Bento, file: Path, to: Path, form: str = "parquet", **options: Any
) -> list[dict[str, Any]]:
    """The rows of the output."""
    predict_batch(bento, str(file), str(to), BatchOptions(output_format=form, **options))
    part = next(to.glob(f"part-*.{form}"))
    if form == "parquet":
        return pq.read_table(part).to_pylist()
    if form == "jsonl":
        return [json.loads(line) for line in part.read_text().splitlines()]
    return pd.read_csv(part, keep_default_na=False, dtype=str).to_dict("records")


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    pq.write_table(TABLE, tmp_path / "rows.parquet")
    return tmp_path / "rows.parquet"


def as_pyfunc_takes_it(table: pa.Table) -> pd.DataFrame:
    types = {"single": "float32", "count": "int64", "small": "int32"}
    found = table.drop_columns(["id"]).to_pandas().astype(types)
    return found.assign(moment=found["moment"].astype("datetime64[ns]"))


@pytest.mark.parametrize("form", ["parquet", "jsonl", "csv"])
def test_parquet_reaches_the_model_as_pyfunc_gives_it(
    form: str, kinds: Bento, parquet: Path, tmp_path: Path
) -> None:
    found = run(kinds, parquet, tmp_path / "out", form, keep=("id",))
    expected = asked_directly(kinds, as_pyfunc_takes_it(TABLE))
    assert [row["row"] for row in found] == expected["row"].tolist()
    assert [row["columns"] for row in found] == expected["columns"].tolist()
    assert [row["id"] for row in found] == TABLE["id"].to_pylist()


def test_text_of_csv_is_typed_by_the_signature(kinds: Bento, tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text(
        "id,number,single,count,small,flag,text,moment,raw,list\n"
        '007,1.5,0.1,1,7,true,NA,2024-05-06T07:08:09,/wA=,"[1.0, 2.0]"\n'
        '008,NaN, 2.5,9007199254740993,8,False,"",2024-05-06,,[]\n'
    )
    found = run(kinds, file, tmp_path / "out", "csv")
    assert [row["row"] for row in found] == [
        "float 1.5;float 0.10000000149011612;int 1;int 7;bool True;str NA;"
        "Timestamp 2024-05-06 07:08:09;bytes b'\\xff\\x00';list [1.0, 2.0]",
        "missing;float 2.5;int 9007199254740993;int 8;bool False;str ;"
        "Timestamp 2024-05-06 00:00:00;missing;list []",
    ]
    assert [row["id"] for row in found] == ["007", "008"], "it is text, and kept as it was"
    assert found[1]["single"] == " 2.5"


def test_jsonl_reaches_the_model_as_it_stands(kinds: Bento, parquet: Path, tmp_path: Path) -> None:
    run(kinds, parquet, tmp_path / "first", "jsonl", keep=tuple(TABLE.column_names))
    lines = next((tmp_path / "first").glob("part-*.jsonl"))
    lines = lines.rename(tmp_path / "rows.jsonl")
    again = run(kinds, lines, tmp_path / "second", "jsonl", keep=("id",))
    assert [row["row"] for row in again] == asked_directly(kinds, as_pyfunc_takes_it(TABLE))[
        "row"
    ].tolist()


def test_decimals_and_other_widths_become_the_model_s_numbers(kinds: Bento, tmp_path: Path) -> None:
    changed = {
        "number": pa.array([Decimal("1.50"), Decimal("2.25"), None]),
        "count": pa.array([1.0, 2.0, 3.0]),
        "small": pa.array([1, 2, 3], pa.int64()),
        "text": pa.array(["x", "y", "z"], pa.large_string()),
    }
    table = TABLE
    for name, column in changed.items():
        table = table.set_column(table.column_names.index(name), name, column)
    pq.write_table(table, tmp_path / "rows.parquet")
    rows = run(kinds, tmp_path / "rows.parquet", tmp_path / "out")
    assert [row["row"].split(";")[:4] for row in rows] == [
        ["float 1.5", "float 0.10000000149011612", "int 1", "int 1"],
        ["float 2.25", "float 2.5", "int 2", "int 2"],
        ["missing", "missing", "int 3", "int 3"],
    ]


def test_an_optional_column_is_left_out_or_given(
    kinds: Bento, parquet: Path, tmp_path: Path
) -> None:
    assert "maybe" not in run(kinds, parquet, tmp_path / "without")[0]["columns"]
    table = TABLE.append_column("maybe", pa.array([1.0, None, 2.0]))
    pq.write_table(table, parquet)
    rows = run(kinds, parquet, tmp_path / "with")
    assert [row["row"].rpartition(";")[2] for row in rows] == ["float 1.0", "missing", "float 2.0"]


@pytest.mark.parametrize("form", ["parquet", "jsonl", "csv"])
@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("scalar", [{"prediction": 3.0}, {"prediction": None}, {"prediction": 6.0}]),
        (
            "vector",
            [{"prediction": [1.5, 2.5]}, {"prediction": [None, None]}, {"prediction": [3.0, 4.0]}],
        ),
        ("strings", [{"prediction": f'{n}, "x"'} for n in ("1.5", "nan", "3.0")]),
        (
            "dict",
            [
                {"twice": t, "name": n}
                for t, n in zip((3.0, None, 6.0), TABLE["text"].to_pylist(), strict=True)
            ],
        ),
        (
            "frame",
            [
                {"twice": t, "whole": n}
                for t, n in zip((3.0, None, 6.0), TABLE["count"].to_pylist(), strict=True)
            ],
        ),
        ("objects", [{"n": {"deep": n}} for n in (1.5, None, 3.0)]),
        ("none", [{"prediction": n} for n in (1.5, None, None)]),
    ],
)
def test_answers_become_columns(
    answer: str, expected: list[Any], form: str, kinds: Bento, parquet: Path, tmp_path: Path
) -> None:
    found = run(kinds, parquet, tmp_path / "out", form, keep=(), params={"answer": answer})
    if form == "jsonl":
        assert found == expected
        return
    texts = form == "csv"
    nested = [
        {
            k: json.dumps(v, separators=(", ", ": ")) if _is_text(v, texts) else v
            for k, v in row.items()
        }
        for row in expected
    ]
    if texts:
        nested = [{k: "" if v is None else str(v) for k, v in row.items()} for row in nested]
    assert found == nested


def _is_text(value: Any, texts: bool) -> bool:
    """Objects are JSON in Parquet; in CSV lists are, too."""
    return isinstance(value, (dict, list) if texts else dict)


def test_an_answer_with_the_name_of_a_kept_column_is_refused(
    kinds: Bento, parquet: Path, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput, match="both have 'number'") as refused:
        run(kinds, parquet, tmp_path / "out", params={"answer": "clash"})
    assert "keep" in refused.value.hint
    assert run(kinds, parquet, tmp_path / "out", params={"answer": "clash"}, keep=("id",))


def test_an_answer_that_is_not_one_for_each_row_is_refused(
    kinds: Bento, parquet: Path, tmp_path: Path
) -> None:
    with pytest.raises(BatchError, match="not one value for each"):
        run(kinds, parquet, tmp_path / "out", params={"answer": "short"})
