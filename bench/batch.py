"""Predict a table by a bento and by `mlflow.models.predict`, side by side.

`python -m bench.batch` writes build/bench/batch.json and prints a table. Both sides are whole
processes that read a CSV file and write predictions; the bento's environment is installed before,
as MLflow's is. They take turns, so that a machine that is busy for a while is busy for both.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.process import Usage, run
from bench.serving_sides import wine_model
from kfp_bento.runtime.bentos import Bento, build_bento
from kfp_bento.runtime.models import load_model
from kfp_bento.runtime.proof import locked_environment

RESULT = Path(__file__).parents[1] / "build" / "bench" / "batch.json"
SIZES = (100_000, 1_000_000)
MLFLOW = """\
import sys
import mlflow.models
model, table, to = sys.argv[1:]
mlflow.models.predict(
    model, input_path=table, content_type="csv", output_path=to, env_manager="local"
)
"""


def main() -> None:
    """Measure, write and show."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, nargs="*", default=SIZES)
    parser.add_argument("--workers", type=int, default=0)
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="bench-batch-"))
    try:
        model = wine_model(work)
        bento = build_bento([load_model(model)], work / "bento", name="wine")
        with locked_environment(bento):  # made before anything is measured
            figures = [_size(rows, model, bento, work, options) for rows in options.rows]
    finally:
        shutil.rmtree(work, ignore_errors=True)
    report = {"processors": len(os.sched_getaffinity(0)), "rounds": options.rounds, "of": figures}
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(report, indent=2) + "\n")
    _show(figures)


def wine_table(rows: int, file: Path) -> None:
    """Write rows like those of `load_wine`, with its number of decimals; always the same."""
    import numpy as np
    from sklearn.datasets import load_wine

    data = load_wine(as_frame=True).data
    chosen = np.random.default_rng(0).integers(0, len(data), rows)
    shift = np.random.default_rng(1).normal(1, 0.05, (rows, data.shape[1]))
    (data.iloc[chosen] * shift).round(2).to_csv(file, index=False)


def _size(
    rows: int, model: Path, bento: Bento, work: Path, options: argparse.Namespace
) -> dict[str, Any]:
    table = work / f"{rows}.csv"
    wine_table(rows, table)
    commands = {
        "bento predict": (
            *(sys.executable, "-m", "kfp_bento.runtime.cli", "bento", "predict"),
            *(bento.directory, table, "--to", work / "out", "--predictions-only"),
            *("--workers", options.workers),
        ),
        "mlflow.models.predict": (sys.executable, "-c", MLFLOW, model, table, work / "out.json"),
    }
    taken: dict[str, list[Usage]] = {name: [] for name in commands}
    for number in range(options.rounds):
        for name, command in commands.items():
            if name == "bento predict":  # which would keep what is finished
                shutil.rmtree(work / "out", ignore_errors=True)
            environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
            usage = run(command, environment, work / "log", watch_memory=True)
            taken[name].append(usage)
            print(f"{rows:,} rows, round {number + 1}: {name}: {usage.seconds:.1f} s", flush=True)
        _require_equal(work)
    sides = {name: _figures(found) for name, found in taken.items()}
    ours, theirs = (sides[name] for name in commands)
    ratios = {name: round(ours[name] / theirs[name], 3) for name in ours}
    return {"rows": rows, **sides, "ratio": ratios}


def _require_equal(work: Path) -> None:
    """Stop where the two sides do not predict the same."""
    theirs = json.loads((work / "out.json").read_text())["predictions"]
    ours = [
        line
        for part in sorted((work / "out").glob("part-*.csv"))
        for line in part.read_text().splitlines()[1:]
    ]
    if ours != [str(one["0"] if isinstance(one, dict) else one) for one in theirs]:
        raise SystemExit("The predictions differ.")


def _figures(found: list[Usage]) -> dict[str, float]:
    return {
        "seconds": round(statistics.median(one.seconds for one in found), 2),
        "cpu_seconds": round(statistics.median(one.cpu_seconds for one in found), 2),
        "peak_mebibytes": round(statistics.median(one.peak_rss for one in found) / 2**20, 1),
    }


def _show(figures: list[dict[str, Any]]) -> None:
    table = Table("rows", "side", "seconds", "CPU seconds", "peak MiB of all processes")
    for one in figures:
        for name in (key for key in one if key != "rows"):
            values = (str(value) for value in one[name].values())
            table.add_row(f"{one['rows']:,}", name, *values)
    Console().print(table)


if __name__ == "__main__":
    main()
