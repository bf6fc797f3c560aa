"""Batches killed at random moments: the next run ends as if nothing had happened."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kfp_bento.runtime.bentos import Bento

KILLS = 25
BATCH = """\
import sys
from pathlib import Path
from kfp_bento.runtime.batch import BatchOptions, predict_batch
from kfp_bento.runtime.bentos import load_bento

bento, table, to = sys.argv[1:]
options = BatchOptions(api="one", on_error="row", batch_rows=40, output_format="parquet")
predict_batch(load_bento(Path(bento)), table, to, options, shards=6, workers=2)
"""


def start(own: Bento, table: Path, to: Path, temporary: Path) -> subprocess.Popen[bytes]:
    temporary.mkdir(exist_ok=True)
    command = [sys.executable, "-c", BATCH, str(own.directory), str(table), str(to)]
    return subprocess.Popen(
        command, env=os.environ | {"TMPDIR": str(temporary)}, stderr=subprocess.PIPE
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_batch_killed_at_random_ends_equal_to_an_undisturbed_one(
    own: Bento, tmp_path: Path
) -> None:
    table = tmp_path / "rows.csv"
    table.write_text("income\n" + "".join(f"{n % 200 - 1}\n" for n in range(480)))
    began = time.monotonic()
    assert start(own, table, tmp_path / "whole", tmp_path / "quiet").wait() == 0
    length = time.monotonic() - began
    chance, kills, ends = random.Random(20), 0, 0
    to, temporary = tmp_path / "killed", tmp_path / "tmp"
    while kills < KILLS or not ends:
        process = start(own, table, to, temporary)
        try:
            process.wait(chance.uniform(0, length if kills < KILLS else 600))
            ends += 1
            assert contents(to) == contents(tmp_path / "whole")
            for name in chance.sample(sorted(path.name for path in to.iterdir()), 3):
                (to / name).unlink()
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
            for part in to.glob("part-*.json") if to.exists() else ():
                name = part.with_suffix(".parquet").name
                assert (to / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert start(own, table, to, temporary).wait() == 0
    assert contents(to) == contents(tmp_path / "whole")
    assert not list(temporary.glob("kfp-bento-batch-*"))
