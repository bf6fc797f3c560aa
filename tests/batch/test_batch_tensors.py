"""A batch goes to a generated service in bytes, and ends as if it had gone there in JSON."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from batch_bentos import COLUMNS, kinds_bento
from test_batch_types import TABLE

from kfp_bento.runtime.batch import BatchOptions, predict_batch
from kfp_bento.runtime.batch.asking import Services
from kfp_bento.runtime.bentos import Bento

pytestmark = pytest.mark.usefixtures("once_started")


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> Bento:
    """A bento of a model whose columns are all of plain types."""
    columns = tuple(column for column in COLUMNS if column["type"] != "array")
    return kinds_bento(tmp_path_factory.mktemp("flat"), columns)


@pytest.fixture
def paths(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Where batches were sent."""
    asked: list[str] = []
    post = Services.post

    def noted(services: Services, path: str, *given: Any) -> Any:
        asked.append(path)
        return post(services, path, *given)

    monkeypatch.setattr(Services, "post", noted)
    yield asked


def both_ways(bento: Bento, table: Path, to: Path, **options: Any) -> list[bytes]:
    """The part of a batch that goes in bytes where it can, and of one that goes in JSON."""
    found = []
    for name, takes in (("bytes", True), ("json", False)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Services, "take_tensors", takes)
            manifest = predict_batch(bento, str(table), str(to / name), BatchOptions(**options))
        found.append((to / name / manifest.parts[0].name).read_bytes())
    return found


ANSWERS = ("seen", "scalar", "vector", "strings", "dict", "frame", "objects", "none")


@pytest.mark.parametrize("form", ["parquet", "jsonl", "csv"])
@pytest.mark.parametrize("answer", ANSWERS)
def test_bytes_give_the_same_output_as_json(
    answer: str, form: str, flat: Bento, paths: list[str], tmp_path: Path
) -> None:
    pq.write_table(TABLE, tmp_path / "rows.parquet")
    params = {"answer": answer}
    in_bytes, in_json = both_ways(
        flat, tmp_path / "rows.parquet", tmp_path, keep=("id",), output_format=form, params=params
    )
    assert in_bytes == in_json
    assert "/v2/models/kinds/infer" in paths


def test_cells_of_csv_give_the_same_output_as_json(
    flat: Bento, paths: list[str], tmp_path: Path
) -> None:
    (tmp_path / "rows.csv").write_text(
        "number,single,count,small,flag,text,moment,raw\n"
        "1.5,0.1,1,7,true,NA,2024-05-06T07:08:09,/wA=\n"
        'NaN, 2.5,9007199254740993,8,False,"",2024-05-06,\n'
        ",1e-3,-1, 9,TRUE,,,\n"
    )
    in_bytes, in_json = both_ways(flat, tmp_path / "rows.csv", tmp_path)
    assert in_bytes == in_json
    assert paths.count("/v2/models/kinds/infer") == 2  # the first rows are asked for the columns


@pytest.mark.parametrize("wrong", ["13", "x", "inf", ""])
def test_a_row_that_is_refused_is_found_in_json(wrong: str, flat: Bento, tmp_path: Path) -> None:
    names = [column["name"] for column in COLUMNS if column["type"] != "array"][:-1]
    good = "1.5,0.1,1,7,true,x,2024-05-06,aGk="
    (tmp_path / "rows.csv").write_text(
        "\n".join([",".join(names), good, good.replace(",1,", f",{wrong},"), good, ""])
    )
    in_bytes, in_json = both_ways(flat, tmp_path / "rows.csv", tmp_path, on_error="row", keep=())
    assert in_bytes == in_json
    lines = in_bytes.decode().splitlines()
    assert [bool(line.rpartition(",")[2]) for line in lines[1:]] == [False, True, False]


def test_a_bento_that_takes_no_bytes_is_asked_in_json(
    flat: Bento, paths: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = pa.concat_tables([TABLE] * 4)
    pq.write_table(table, tmp_path / "rows.parquet")
    post = Services.post

    def older(services: Services, path: str, *given: Any) -> Any:
        return post(services, path.replace("/v2/", "/v9/"), *given)

    monkeypatch.setattr(Services, "post", older)
    predict_batch(
        flat, f"{tmp_path}/rows.parquet", f"{tmp_path}/out", BatchOptions(batch_rows=3, keep=())
    )
    assert paths.count("/v9/models/kinds/infer") == 1
    assert paths.count("/predict") == 5
