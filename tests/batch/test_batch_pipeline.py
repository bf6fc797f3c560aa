"""A table goes through the pipeline with its loop of shards, from an archive to the manifest."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from kfp_bento_command import assert_refused, kfp_bento, kfp_bento_here
from servers import S3Server

from kfp_bento.runtime.batch import BatchOptions, predict_batch
from kfp_bento.runtime.bentos import Bento, export_bento
from kfp_bento.runtime.errors import LocalRunError
from kfp_bento.runtime.local import Run, run_pipeline


def table(folder: Path) -> Path:
    folder.mkdir()
    lines = "".join(f"{n},{n % 7}\n" for n in range(100))
    (folder / "rows.csv").write_text(f"id,income\n{lines}")
    return folder / "rows.csv"


def documents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.usefixtures("once_started")
@pytest.mark.slow  # what the steps of the loop do is asked of each of them, too
def test_the_loop_of_shards_gives_what_one_step_gives(own: Bento, tmp_path: Path) -> None:
    rows = table(tmp_path / "in")
    archive = export_bento(own, f"{tmp_path}/own.tar")
    asked = {"api": "decide", "batch_rows": 20, "shards": 2}
    arguments = {
        **{"bento_uri": f"file://{archive.uri}", "input_uri": f"file://{rows}"},
        **{"output_uri": f"file://{tmp_path}/scored", "workers": 1},
    }
    run = run_pipeline("batch_score", arguments | asked, tmp_path / "run")
    assert run.record("collect-batch", "manifest")["rows"] == 100
    options = BatchOptions(api="decide", batch_rows=20)
    predict_batch(own, str(rows), f"{tmp_path}/once", options, shards=2)
    assert documents(tmp_path / "scored") == documents(tmp_path / "once")


@pytest.mark.slow  # of one step, this is refused among the tests of batches
def test_a_table_without_a_column_that_the_model_needs_fails_the_run(
    own: Bento, tmp_path: Path
) -> None:
    rows = table(tmp_path / "in")
    rows.write_text("id\n1\n")
    arguments = {
        **{"bento_uri": f"file://{export_bento(own, f'{tmp_path}/own.tar').uri}"},
        **{"input_uri": f"file://{rows}", "output_uri": f"file://{tmp_path}/scored"},
        **{"api": "decide", "batch_rows": 20, "shards": 2, "workers": 1},
    }
    with pytest.raises(LocalRunError, match="lacks the column that the model needs: income"):
        run_pipeline("batch_score", arguments, tmp_path / "run")


@pytest.mark.slow  # what one shard leaves is looked at among the tests of batches
def test_a_shard_that_fails_leaves_no_whole_result_and_the_run_again_completes_it(
    own: Bento, s3_server: S3Server, tmp_path: Path
) -> None:
    s3, bucket = s3_server.client(), f"s3://{s3_server.bucket}"
    rows = table(tmp_path / "in").read_text().splitlines(keepends=True)

    def score(lines: list[str]) -> Run:
        body = "".join(lines).encode()
        s3.put_object(Bucket=s3_server.bucket, Key="scoring/rows.csv", Body=body)
        return run_pipeline(
            "batch_score",
            {
                "bento_uri": f"{bucket}/scoring/own.tar",
                "input_uri": f"{bucket}/scoring/rows.csv",
                "output_uri": f"{bucket}/scored/",
                **{"api": "decide", "batch_rows": 20, "shards": 2, "workers": 1},
            },
            tmp_path / "run",
            environment=s3_server.environment,
        )

    def written() -> set[str]:
        found = s3.list_objects_v2(Bucket=s3_server.bucket, Prefix="scored/").get("Contents", [])
        return {one["Key"].rpartition("/")[2] for one in found}

    archive = Path(urlsplit(export_bento(own, f"{tmp_path}/own.tar").uri).path)
    s3.upload_file(str(archive), s3_server.bucket, "scoring/own.tar")
    refused = [*rows[:90], "89,much\n", *rows[91:]]
    with pytest.raises(LocalRunError, match=r"Step predict-shard\S* failed: "):
        score(refused)
    assert "manifest.json" not in written()
    assert score(rows).record("collect-batch", "manifest")["rows"] == 100
    assert {"manifest.json", "part-00000.csv", "part-00001.csv"} <= written()


def test_the_command_tells_what_it_did_and_refuses_what_makes_no_sense(
    own: Bento, tmp_path: Path
) -> None:
    rows = table(tmp_path / "in")
    asked = ["bento", "predict", own.directory, rows, "--to", f"{tmp_path}/out"]
    assert_refused(kfp_bento_here(*asked), "has several APIs")
    assert_refused(kfp_bento_here(*asked, "--api", "one", "--on-error", "x"), "It is fail or row")
    assert_refused(kfp_bento_here(*asked, "--api", "one", "--param", "a=DE"), "Texts need quotes")
    more = ["--api", "decide", "--param", "limit=3", "--predictions-only", "--workers", "1"]
    done = kfp_bento(*asked, *more, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["rows"], told["outputs"][0]["name"]) == (100, "part-00000.csv")
    text = (tmp_path / "out" / "part-00000.csv").read_text()
    assert text.startswith("who,approved\nnobody,false\n")
    again = kfp_bento(*asked, *more)
    assert f"{tmp_path}/out/manifest.json" in again.stdout
