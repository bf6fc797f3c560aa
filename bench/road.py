"""Run serve_model whole on this machine: for the first time, and again with nothing changed.

`python -m bench.road` writes build/bench/road.json and prints a table of the steps. A real MLflow
server and the local target run beside it, as in `kfp-bento run`; the release of the first run goes
on serving, as it does in a cluster. CPU seconds are those of the pipeline's own processes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.serving_sides import wine_model
from kfp_bento.runtime.local import (
    ADDRESS_VARIABLE,
    local_target,
    run_pipeline,
    tracking_server,
)

RESULT = Path(__file__).parents[1] / "build" / "bench" / "road.json"
FIRST, UNCHANGED = "first", "nothing changed"


def main() -> None:
    """Measure, write and show."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="Runs with nothing changed.")
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="bench-road-"))
    try:
        runs = _runs(work, options.rounds)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    unchanged = {
        name: round(statistics.median(one[name] for one in runs[1:]), 2) for name in runs[0]
    }
    report = {
        "processors": len(os.sched_getaffinity(0)),
        "rounds": options.rounds,
        FIRST: runs[0],
        UNCHANGED: unchanged,
        "ratio": {name: round(unchanged[name] / (runs[0][name] or 1), 3) for name in runs[0]},
    }
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(report, indent=2) + "\n")
    _show(report)


def _runs(work: Path, rounds: int) -> list[dict[str, float]]:
    """Give the seconds of each step of each run, with its whole and its CPU seconds."""
    cache = work / "cache"
    with (
        tracking_server(work / "mlflow") as tracking,
        local_target(work / "service", cache=cache) as target,
    ):
        tracking.wait()
        os.environ.update(tracking.environment, MLFLOW_DISABLE_TELEMETRY="true")
        _register(work, tracking.address)
        arguments = {
            "model_uris": ["models:/wine@candidate"],
            "tracking_uri": tracking.address,
            "image_base": "host",
            "image_destination": f"oci:{work}/image",
            "promote_alias": "live",
            "deploy_mode": "local",
            "runtime_image": "python",
        }
        environment = {ADDRESS_VARIABLE: target.address, "KFP_BENTO_CACHE": str(cache)}
        return [_timed(arguments, work / "run", environment) for _ in range(rounds + 1)]


def _register(work: Path, address: str) -> None:
    import mlflow

    mlflow.set_tracking_uri(address)
    with mlflow.start_run() as run:
        mlflow.log_artifacts(str(wine_model(work)), "model")
    mlflow.register_model(f"runs:/{run.info.run_id}/model", "wine")
    mlflow.MlflowClient().set_registered_model_alias("wine", "candidate", "1")


def _timed(
    arguments: dict[str, Any], folder: Path, environment: dict[str, str]
) -> dict[str, float]:
    began, before = time.monotonic(), _cpu()
    run = run_pipeline("serve_model", arguments, folder, environment=environment)
    seconds = {name: round(value, 2) for name, value in run.seconds.items()}
    whole = {"whole": time.monotonic() - began, "CPU seconds": _cpu() - before}
    return seconds | {name: round(value, 2) for name, value in whole.items()}


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _show(report: dict[str, Any]) -> None:
    table = Table("step", FIRST, UNCHANGED, "ratio")
    for name, value in report[FIRST].items():
        values = (value, report[UNCHANGED][name], report["ratio"][name])
        table.add_row(name, *map(str, values))
    Console().print(table)


if __name__ == "__main__":
    main()
