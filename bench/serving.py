"""Serve one model in several ways, ask all the same, and put the figures side by side.

`python -m bench.serving` writes build/bench/serving.json and prints a table. One worker each, 16
connections with one row, in rounds that take turns, so that a machine that is busy for a while is
busy for all of them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.load import answer, load
from bench.serving_sides import ROWS, Side, sides
from bench.trace_receiver import receiving

RESULT = Path(__file__).parents[1] / "build" / "bench" / "serving.json"
CONNECTIONS = 16
START_SECONDS = 120
FIGURES = {
    "per_second": "requests/s",
    "p50": "p50 ms",
    "p99": "p99 ms",
    "cpu_ms": "CPU ms/request",
    "ready_seconds": "ready s",
    "rows_seconds": f"{ROWS:,} rows s",
}


def main() -> None:
    """Measure, write and show."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6, help="of load in each round")
    parser.add_argument("--only", nargs="*", help="names of the sides to measure")
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="bench-serving-"))
    try:
        with receiving() as endpoint:
            found = sides(work, endpoint)
            chosen = [side for side in found if not options.only or side.name in options.only]
            rounds: dict[str, list[dict[str, Any]]] = {side.name: [] for side in chosen}
            for number in range(options.rounds):
                for side in chosen:
                    rounds[side.name].append(_round(side, work, options.seconds))
                    print(f"round {number + 1}: {side.name}: {rounds[side.name][-1]}", flush=True)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    report = _report(rounds, options)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(report, indent=2) + "\n")
    _show(report)


def _round(side: Side, work: Path, seconds: float) -> dict[str, Any]:
    with _serving(side, work) as (port, ready_seconds, process):
        load(port, side.one, 1, CONNECTIONS)  # the first requests pay for what is made once
        before = _processor_seconds(process)
        found = load(port, side.one, seconds, CONNECTIONS)
        cpu = _processor_seconds(process) - before
        times = []
        for _ in range(3):
            taken, status, content = answer(port, side.many)
            if status != 200:
                raise SystemExit(f"{side.name} answers {status}: {content[:300]!r}")
            times.append(taken)
    if found.failed:
        raise SystemExit(f"{side.name}: {found.failed} answers were no 200.")
    return {
        "per_second": found.per_second,
        "p50": found.p50,
        "p99": found.p99,
        "cpu_ms": round(cpu / found.answers * 1e3, 3),
        "ready_seconds": round(ready_seconds, 2),
        "rows_seconds": round(statistics.median(times), 3),
    }


@contextlib.contextmanager
def _serving(side: Side, work: Path) -> Iterator[tuple[int, float, int]]:
    """Start a server; gives its port, the seconds until it was ready, and the process's id."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = int(listener.getsockname()[1])
    log = work / "server.log"
    quiet = {"BENTOML_DO_NOT_TRACK": "true", "MLFLOW_DISABLE_TELEMETRY": "true"}
    start = time.perf_counter()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*side.command, side.port_option, str(port)],
            cwd=side.folder,
            env={**os.environ, "BENTOML_HOME": str(work / "empty"), **quiet, **side.environment},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        _wait(side, port, process, start, log)
        yield port, time.perf_counter() - start, process.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)


def _processor_seconds(root: int) -> float:
    """Give what a process and its descendants have used: a busy machine does not change it."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            process = int(stat.parent.name)
            parents[process] = int(fields[1])
            ticks[process] = int(fields[11]) + int(fields[12])

    def descends(process: int) -> bool:
        return process == root or (process in parents and descends(parents[process]))

    total = sum(used for process, used in ticks.items() if descends(process))
    return total / os.sysconf("SC_CLK_TCK")


def _wait(side: Side, port: int, process: subprocess.Popen[bytes], start: float, log: Path) -> None:
    while process.poll() is None and time.perf_counter() - start < START_SECONDS:
        with (
            contextlib.suppress(OSError, urllib.error.URLError),
            urllib.request.urlopen(f"http://127.0.0.1:{port}{side.ready}", timeout=5) as got,
        ):
            if got.status == 200:
                return
        time.sleep(0.02)
    raise SystemExit(f"{side.name} did not start:\n{log.read_text(errors='replace')[-3000:]}")


def _report(rounds: dict[str, list[dict[str, Any]]], options: argparse.Namespace) -> dict[str, Any]:
    medians = {
        name: {figure: statistics.median(one[figure] for one in found) for figure in FIGURES}
        for name, found in rounds.items()
    }
    return {
        "what": "one worker, one row of 13 columns, medians over rounds that take turns",
        "connections": CONNECTIONS,
        "rounds": options.rounds,
        "seconds": options.seconds,
        "processors": os.cpu_count(),
        "python": platform.python_version(),
        "sides": {name: {"rounds": rounds[name], "median": medians[name]} for name in rounds},
        "ratios": {
            ours: {
                peer: {
                    figure: round(medians[ours][figure] / medians[peer][figure], 2)
                    for figure in FIGURES
                }
                for peer in medians
                if peer != ours
            }
            for ours in medians
            if ours.startswith("generated")
        },
    }


def _show(report: dict[str, Any]) -> None:
    console = Console(width=120)
    table = Table(title=report["what"])
    for heading in ("", *FIGURES.values()):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, found in report["sides"].items():
        table.add_row(name, *(str(found["median"][figure]) for figure in FIGURES))
    for ours, peers in report["ratios"].items():
        for peer, found in peers.items():
            table.add_row(f"{ours} / {peer}", *(f"{found[figure]:.2f}" for figure in FIGURES))
    console.print(table)
    console.print(f"Written to {RESULT}")


if __name__ == "__main__":
    main()
