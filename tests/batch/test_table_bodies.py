"""Rows of tables as requests to a service that runs already."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kfp_bento.runtime.batch import table_bodies
from kfp_bento.runtime.errors import InvalidInput
from kfp_bento.runtime.models import ModelSignature

NAMED = [
    {"type": "double", "name": "a", "required": True},
    {"type": "string", "name": "town", "required": False},
]
UNNAMED = [{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 2]}}]


def signature(inputs: Any) -> ModelSignature:
    return ModelSignature.from_dict({"inputs": inputs, "outputs": []})


def table(folder: Path, form: str) -> Path:
    """Three rows, the town of the second is missing; one column that nobody needs."""
    file = folder / f"rows.{form}"
    towns: list[str | None] = ["x", None, "z"]
    if form == "parquet":
        columns = {"more": [1, 2, 3], "town": towns, "a": [0.5, 1.5, 2.5]}
        pq.write_table(pa.table(columns), file)
    elif form == "csv":
        file.write_text("more,town,a\n1,x,0.5\n2,,1.5\n3,z,2.5\n")
    else:
        rows = [{"more": n, "town": town, "a": n + 0.5} for n, town in enumerate(towns)]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def bodies(file: Path, inputs: Any = NAMED, **options: int) -> list[tuple[Any, int]]:
    wanted = {"rows": 2, "most": 100, **options}
    found = table_bodies(str(file), "/predict", signature(inputs), **wanted)
    return [(json.loads(body), count) for body, count in found]


@pytest.mark.parametrize("form", ["csv", "parquet", "jsonl"])
def test_each_format_gives_what_the_model_takes(form: str, tmp_path: Path) -> None:
    assert bodies(table(tmp_path, form)) == [
        ({"inputs": [{"a": 0.5, "town": "x"}, {"a": 1.5, "town": None}]}, 2),
        ({"inputs": [{"a": 2.5, "town": "z"}]}, 1),
    ]


def test_only_as_many_rows_as_are_wanted_are_taken(tmp_path: Path) -> None:
    file = tmp_path / "many.csv"
    file.write_text("a\n" + "".join(f"{n}\n" for n in range(100_000)))
    found = bodies(file, rows=3, most=4)
    assert [count for _, count in found] == [3, 3, 3, 3]
    assert found[-1][0]["inputs"][-1] == {"a": 11}


def test_files_of_a_folder_come_one_after_the_other(tmp_path: Path) -> None:
    for name, number in (("1.csv", 1), ("2.csv", 2)):
        (tmp_path / name).write_text(f"a\n{number}\n")
    assert bodies(tmp_path) == [({"inputs": [{"a": 1}, {"a": 2}]}, 2)]


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_columns_without_names_are_taken_in_their_order(form: str, tmp_path: Path) -> None:
    file = tmp_path / f"rows.{form}"
    if form == "csv":
        file.write_text("x,y\n1,2.5\n3,4.5\n")
    else:
        pq.write_table(pa.table({"x": [1, 3], "y": [2.5, 4.5]}), file)
    assert bodies(file, UNNAMED) == [({"inputs": [[1, 2.5], [3, 4.5]]}, 2)]


def test_what_cannot_be_sent_is_refused_with_its_row(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("a\n1\nmany\n")
    with pytest.raises(InvalidInput, match="Row 2 cannot be sent: a: no double"):
        bodies(file)
    file.write_text("b\n1\n")
    with pytest.raises(InvalidInput, match="lacks the column that the model needs: a"):
        bodies(file)
    file.write_text("a\n")
    with pytest.raises(InvalidInput, match="There are no rows"):
        bodies(file)
