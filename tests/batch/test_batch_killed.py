"""Batches killed at random moments: the next run ends as if nothing had happened.

Each run is a forked process that asks a bento which is started already, so that the moments of the
kills lie in its own work and not in the start of the bento.
"""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
from pathlib import Path

import pytest

from kfp_bento.runtime.batch import BatchOptions, predict_batch
from kfp_bento.runtime.bentos import Bento

KILLS = 40
OPTIONS = BatchOptions(api="decide", on_error="row", batch_rows=50, output_format="parquet")


def start(own: Bento, table: Path, to: Path, temporary: Path) -> int:
    """Fork a run of the batch."""
    process = os.fork()
    if process:
        return process
    os.environ["TMPDIR"] = tempfile.tempdir = str(temporary)
    try:
        predict_batch(own, str(table), str(to), OPTIONS, shards=6, workers=2)
        os._exit(0)
    finally:
        os._exit(1)


def ended(process: int) -> bool:
    """Whether a run came to its good end; True or False once it is over."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.usefixtures("once_started")
def test_a_batch_killed_at_random_ends_equal_to_an_undisturbed_one(
    own: Bento, tmp_path: Path
) -> None:
    table, temporary = tmp_path / "rows.csv", tmp_path / "tmp"
    table.write_text("income\n" + "".join(f"{n % 200 or 'x'}\n" for n in range(1200)))
    temporary.mkdir()
    predict_batch(own, str(table), f"{tmp_path}/first", OPTIONS, shards=6)  # the bento is started
    began = time.monotonic()
    assert ended(start(own, table, tmp_path / "whole", temporary))
    length = time.monotonic() - began
    chance, to, whole = random.Random(20), tmp_path / "killed", contents(tmp_path / "whole")
    kills = 0
    for _ in range(4 * KILLS):
        process = start(own, table, to, temporary)
        time.sleep(chance.uniform(0, length))
        os.kill(process, signal.SIGKILL)
        if ended(process):  # it was quicker: part of it is to be done again
            assert contents(to) == whole
            for name in chance.sample(sorted(whole), len(whole) // 2):
                (to / name).unlink()
        else:
            kills += 1
        for record in to.glob("part-*.json"):
            part = record.with_suffix(".parquet").name
            assert not (to / part).exists() or (to / part).read_bytes() == whole[part]
        if kills == KILLS:
            break
    assert kills >= 20
    assert ended(start(own, table, to, temporary))
    assert contents(to) == whole
    assert not list(temporary.glob("kfp-bento-batch-*"))
