"""A batch: every row answered in order or told why not; finished shards are never made twice."""

from __future__ import annotations

import hashlib
import json
import uuid
from pathlib import Path
from typing import Any

import pytest
from servers import S3Server

from kfp_bento.runtime.batch import (
    BatchOptions,
    bento_answers,
    collect_batch,
    load_plan,
    open_table,
    plan_batch,
    predict_batch,
    predict_shard,
)
from kfp_bento.runtime.bentos import Bento
from kfp_bento.runtime.errors import BatchError, InvalidInput
from kfp_bento.runtime.storage import open_place

pytestmark = pytest.mark.usefixtures("once_started")

HEADER = "number,single,count,small,flag,text,moment,raw,list\n"
SCALAR = {"answer": "scalar"}


def line(number: object, count: object = 1) -> str:
    return f"{number},1.5,{count},1,true,x,2024-05-06,eA==,[]\n"


def written(file: Path, lines: list[str]) -> str:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(HEADER + "".join(lines))
    return str(file)


def options(**more: Any) -> BatchOptions:
    return BatchOptions(**{"params": SCALAR, "keep": ("number",), **more})


def lines_of(folder: Path) -> list[str]:
    parts = sorted(folder.glob("part-*.csv"))
    return [line for part in parts for line in part.read_text().splitlines()[1:]]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_rows_of_many_files_are_answered_in_order(kinds: Bento, tmp_path: Path) -> None:
    for number in range(3):
        written(tmp_path / "in" / f"{number}.csv", [line(10 * number + at) for at in range(10)])
    manifest = predict_batch(
        kinds, f"{tmp_path}/in", f"{tmp_path}/out", options(batch_rows=4), shards=3
    )
    assert lines_of(tmp_path / "out") == [f"{n},{2 * n}.0" for n in range(30)]
    assert [part.rows for part in manifest.parts] == [12, 12, 6]
    told = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert (told["rows"], told["errors"], told["bento"]["tag"]) == (30, 0, kinds.tag)
    for output in told["outputs"]:
        content = (tmp_path / "out" / output["name"]).read_bytes()
        assert output["sha256"] == hashlib.sha256(content).hexdigest()


def test_the_same_batch_gives_the_same_bytes_anywhere(kinds: Bento, tmp_path: Path) -> None:
    rows = [line(n) for n in range(9)]
    for place in ("one", "two"):
        file = written(tmp_path / place / "rows.csv", rows)
        to = f"{tmp_path}/{place}/out"
        predict_batch(kinds, file, to, options(output_format="parquet", batch_rows=2), shards=2)
    assert contents(tmp_path / "one" / "out") == contents(tmp_path / "two" / "out")


def test_finished_shards_are_kept_and_broken_ones_made_again(
    kinds: Bento, tmp_path: Path, once_started: list[int]
) -> None:
    file, to = written(tmp_path / "rows.csv", [line(n) for n in range(8)]), f"{tmp_path}/out"
    predict_batch(kinds, file, to, options(batch_rows=2), shards=4)
    whole, asked = contents(tmp_path / "out"), once_started[0]
    predict_batch(kinds, file, to, options(batch_rows=2), shards=4)
    assert once_started[0] == asked, "nothing is started for nothing"
    part = tmp_path / "out" / "part-00002.csv"
    part.write_bytes(part.read_bytes().replace(b"5", b"6"))
    (tmp_path / "out" / "part-00001.json").unlink()
    predict_batch(kinds, file, to, options(batch_rows=2), shards=4)
    assert contents(tmp_path / "out") == whole


def test_another_batch_in_the_same_folder_leaves_nothing_of_the_first(
    kinds: Bento, tmp_path: Path
) -> None:
    file, to = written(tmp_path / "rows.csv", [line(n) for n in range(8)]), f"{tmp_path}/out"
    predict_batch(kinds, file, to, options(batch_rows=2), shards=4)
    predict_batch(kinds, file, to, options(batch_rows=2, output_format="jsonl"), shards=1)
    names = {path.name for path in (tmp_path / "out").iterdir() if path.suffix != ".sha256"}
    assert names == {"manifest.json", "part-00000.json", "part-00000.jsonl"}


def test_whoever_judges_gets_rows_and_answers_side_by_side(kinds: Bento, tmp_path: Path) -> None:
    table = written(tmp_path / "in" / "0.csv", [line(n) for n in range(5)])
    written(tmp_path / "in" / "1.csv", [line(5), line("abc"), line(7)])
    asked = options(batch_rows=4, on_error="row", keep=())
    with bento_answers(kinds, f"{tmp_path}/in", asked) as found:
        pieces = [
            (rows.columns["number"].to_pylist(), list(answered.columns["prediction"]), answered)
            for rows, answered in found.pieces
        ]
    assert [given for given, _, _ in pieces] == [["0", "1", "2", "3"], ["4", "5", "abc", "7"]]
    told = [list(map(str, answers)) for _, answers, _ in pieces]
    assert told == [["0.0", "2.0", "4.0", "6.0"], ["8.0", "10.0", "None", "14.0"]]
    assert list(pieces[1][2].errors) == [2]
    with open_table(table) as alone:
        assert alone.count == 5 and alone.digest != found.digest


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_refused_rows_get_an_error_and_the_others_their_answer(
    form: str, kinds: Bento, tmp_path: Path
) -> None:
    rows = [line(n) for n in range(12)]
    rows[3], rows[4], rows[9] = line("abc"), line(4, 13), line("inf")
    file = written(tmp_path / "rows.csv", rows)
    chosen = options(batch_rows=5, on_error="row", output_format=form)
    manifest = predict_batch(kinds, file, f"{tmp_path}/out", chosen, shards=2)
    assert (manifest.errors, sum(part.rows for part in manifest.parts)) == (3, 12)
    found = read(tmp_path / "out", form)
    errors = {n: row["error"] for n, row in enumerate(found) if row.get("error")}
    assert list(errors) == [3, 4, 9]
    assert "number: no double" in errors[3]
    assert "refuses the input (ValueError)" in errors[4]
    assert [row.get("prediction") for n, row in enumerate(found) if n not in errors] == [
        2.0 * n for n in range(12) if n not in errors
    ]


def read(folder: Path, form: str) -> list[dict[str, Any]]:
    import pandas as pd

    parts = sorted(folder.glob(f"part-*.{form}"))
    if form == "jsonl":
        return [json.loads(one) for part in parts for one in part.read_text().splitlines()]
    reader = pd.read_csv if form == "csv" else pd.read_parquet
    frame = pd.concat([reader(part) for part in parts]).astype(object)
    return frame.where(frame.notna(), None).to_dict("records")


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (line("abc"), "Row 4 is refused: number: no double"),
        (line(3, 13), r"Row 4 is refused: the model refuses the input \(ValueError\)"),
    ],
)
def test_a_refused_row_ends_the_run_by_its_number(
    bad: str, told: str, kinds: Bento, tmp_path: Path
) -> None:
    rows = [*(line(n) for n in range(3)), bad, *(line(n) for n in range(3))]
    file = written(tmp_path / "rows.csv", rows)
    with pytest.raises(BatchError, match=told) as refused:
        predict_batch(kinds, file, f"{tmp_path}/out", options(batch_rows=2))
    assert "on_error" in refused.value.hint
    assert not list((tmp_path / "out").glob("part-*")), "nothing half-made"


def test_a_bento_that_fails_is_no_fault_of_a_row(kinds: Bento, tmp_path: Path) -> None:
    file = written(tmp_path / "rows.csv", [line(1), line(2, 500)])
    with pytest.raises(BatchError, match="fails at rows 1 to 2"):
        predict_batch(kinds, file, f"{tmp_path}/out", options(on_error="row"))


def test_what_does_not_fit_is_refused_before_anything_runs(
    kinds: Bento, tmp_path: Path, once_started: list[int]
) -> None:
    (tmp_path / "some.csv").write_text("number,flag\n1.0,true\n")
    asked = once_started[0]
    with pytest.raises(InvalidInput, match="lacks columns that the model needs: single, count"):
        predict_batch(kinds, f"{tmp_path}/some.csv", f"{tmp_path}/out")
    file = written(tmp_path / "rows.csv", [line(1)])
    for wrong, told in [
        (options(keep=("nothing",)), "no column 'nothing', which keep names"),
        (options(api="other"), "has no API 'other'"),
    ]:
        with pytest.raises(InvalidInput, match=told):
            predict_batch(kinds, file, f"{tmp_path}/out", wrong)
    with pytest.raises(InvalidInput, match="among the input"):
        predict_batch(kinds, str(tmp_path), f"{tmp_path}/out")
    assert once_started[0] == asked
    assert not (tmp_path / "out").exists()


def test_shards_run_apart_give_what_one_run_gives(kinds: Bento, tmp_path: Path) -> None:
    file = written(tmp_path / "rows.csv", [line(n) for n in range(20)])
    predict_batch(kinds, file, f"{tmp_path}/whole", options(batch_rows=3), shards=3)
    planned = plan_batch(kinds, file, options(batch_rows=3), shards=3)
    planned.save(tmp_path / "plan.json")
    plan = load_plan(tmp_path / "plan.json")
    assert plan == planned
    apart = f"{tmp_path}/apart"
    for shard in (2, 0):
        predict_shard(kinds, plan, shard, file, apart)
    with pytest.raises(BatchError, match="1 of 3 shards are not there: 1"):
        collect_batch(plan, apart)
    predict_shard(kinds, plan, 1, file, apart)
    collect_batch(plan, apart)
    assert contents(tmp_path / "apart") == contents(tmp_path / "whole")


def test_a_shard_of_another_input_or_bento_is_refused(
    kinds: Bento, own: Bento, tmp_path: Path
) -> None:
    file = written(tmp_path / "rows.csv", [line(n) for n in range(4)])
    plan = plan_batch(kinds, file, options())
    with pytest.raises(BatchError, match="The plan is for the bento kinds"):
        predict_shard(own, plan, 0, file, f"{tmp_path}/out")
    written(tmp_path / "rows.csv", [line(n) for n in range(5)])
    with pytest.raises(BatchError, match="has changed since the plan was made"):
        predict_shard(kinds, plan, 0, file, f"{tmp_path}/out")


# --- services of one's own -----------------------------------------------------------------------


def test_rows_go_to_a_service_of_one_s_own_as_it_describes_them(own: Bento, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("id,income,name\n1,150.5,Ann\n2,50,\n")
    chosen = BatchOptions(api="decide", output_format="jsonl", params={"limit": 120.0})
    predict_batch(own, f"{tmp_path}/rows.csv", f"{tmp_path}/out", chosen)
    assert [
        json.loads(one) for one in (tmp_path / "out/part-00000.jsonl").read_text().splitlines()
    ] == [
        {"id": 1, "income": 150.5, "name": "Ann", "who": "Ann", "approved": True},
        {"id": 2, "income": 50.0, "name": None, "who": "nobody", "approved": False},
    ]


def test_an_api_that_takes_one_row_is_asked_for_each(own: Bento, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("income\n150\n50\n-1\n")
    chosen = BatchOptions(api="one", on_error="row")
    manifest = predict_batch(own, f"{tmp_path}/rows.csv", f"{tmp_path}/out", chosen)
    assert manifest.errors == 1
    first = (tmp_path / "out/part-00000.csv").read_text().splitlines()
    assert first[:3] == ["income,prediction,error", "150,APPROVED,", "50,DECLINED,"]
    (tmp_path / "sums.jsonl").write_text('{"a": 1}\n{"a": 2, "b": 5}\n')
    chosen = BatchOptions(api="/add")
    predict_batch(own, f"{tmp_path}/sums.jsonl", f"{tmp_path}/sums", chosen)
    assert (tmp_path / "sums/part-00000.jsonl").read_text().splitlines() == [
        '{"a":1,"prediction":2}',
        '{"a":2,"b":5,"prediction":7}',
    ]


def test_one_of_several_apis_has_to_be_named(own: Bento, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("income\n150\n")
    with pytest.raises(InvalidInput, match="has several APIs") as refused:
        predict_batch(own, f"{tmp_path}/rows.csv", f"{tmp_path}/out")
    assert "add, decide, one" in refused.value.hint


@pytest.mark.parametrize("schemes", [("s3", "minio"), ("minio", "s3")])
def test_a_batch_goes_from_bucket_to_bucket_and_goes_on_there(
    schemes: tuple[str, str],
    kinds: Bento,
    tmp_path: Path,
    s3_server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
    once_started: list[int],
) -> None:
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    source, target = (f"{one}://{s3_server.bucket}/{uuid.uuid4().hex}" for one in schemes)
    for number in range(2):
        rows = written(tmp_path / "rows.csv", [line(4 * number + at) for at in range(4)])
        open_place(f"{source}/{number}.csv").write(Path(rows))
    chosen = options(batch_rows=2)
    manifest = predict_batch(kinds, f"{source}/", f"{target}/", chosen, shards=2)
    for part in manifest.parts:
        open_place(target).read(tmp_path / "out" / part.name, part.name, sha256=part.sha256)
    assert lines_of(tmp_path / "out") == [f"{n},{2 * n}.0" for n in range(8)]
    open_place(target).delete("part-00001.csv")
    asked = once_started[0]
    assert predict_batch(kinds, f"{source}/", f"{target}/", chosen, shards=2) == manifest
    assert once_started[0] == asked + 1
    assert predict_batch(kinds, f"{source}/", f"{target}/", chosen, shards=2) == manifest
    assert once_started[0] == asked + 1
