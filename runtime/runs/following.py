"""Following a run to its end, step by step."""

from __future__ import annotations

import time
from collections.abc import Callable

from kfp_bento.runtime.errors import RunUnavailable
from kfp_bento.runtime.local import Step
from kfp_bento.runtime.runs.run_state import RunState
from kfp_bento.runtime.runs.server import PipelinesApi

PATIENCE = 300.0
"""Seconds that the server may be away while a run is followed."""


def follow_run(
    api: PipelinesApi,
    run_id: str,
    *,
    every: float = 5.0,
    patience: float = PATIENCE,
    on_step: Callable[[Step], None] = lambda step: None,
) -> RunState:
    """Look at a run until it has ended.

    Args:
        api: The server.
        run_id: The run.
        every: Seconds between two looks.
        patience: Seconds that the server may be away; the run goes on without it.
        on_step: Called when a step begins and when it ends.

    Raises:
        RunError: The server does not know the run or us, or is away for too long.
    """
    told: dict[str, str] = {}
    seen = time.monotonic()
    while True:
        try:
            run = api.state(run_id)
            seen = time.monotonic()
        except RunUnavailable:
            if time.monotonic() - seen > patience:
                raise
            time.sleep(every)
            continue
        _tell(run, told, on_step)
        if run.ended:
            return run
        time.sleep(every)


def _tell(run: RunState, told: dict[str, str], on_step: Callable[[Step], None]) -> None:
    """Tell each step once when it begins and once when it ends; the one that runs last of all."""
    for task in run.steps:
        if task.ended and told.get(task.task_id) != "ended":
            told[task.task_id] = "ended"
            on_step(Step(task.name, task.seconds, not task.failed))
    for task in run.steps:
        if task.runs and task.task_id not in told:
            told[task.task_id] = "runs"
            on_step(Step(task.name))
