"""A run and a roll back, each a process that is killed at random moments; then both agree."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from test_endpoint_and_alias import Stage, stage
from trials import Endpoint, served_at_once

from kfp_bento.runtime.errors import PromotionRefused

__all__ = ["stage"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
KILLS = 50


def work(name: str, folder: str, what: str, begun: Any) -> None:
    """One process: a run that promotes version 2, or a roll back of it."""
    import mlflow

    place = Path(folder)
    place.mkdir(exist_ok=True)
    acting = Stage(Endpoint(None, place, model=name), mlflow.MlflowClient(), name, place)
    with served_at_once():
        begun.set()
        if what == "run":
            acting.run("2")
        else:
            acting.back()


def killed(stage: Stage, what: str, seconds: float) -> bool:
    """Start that process and kill it after a while; say whether it was still at work."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["kfp_bento.runtime.promotion", "mlflow", "trials"])
    begun = context.Event()
    folder = str(stage.folder / f"process-{time.monotonic_ns()}")
    process = context.Process(target=work, args=(stage.name, folder, what, begun))
    process.start()
    assert begun.wait(120)
    process.join(seconds)
    alive = process.is_alive()
    if alive and process.pid:
        os.kill(process.pid, signal.SIGKILL)
    process.join()
    return alive


def took(stage: Stage, what: str) -> float:
    began = time.monotonic()
    assert not killed(stage, what, 600)
    return time.monotonic() - began


def agree(stage: Stage) -> str:
    serves, alias = stage.where
    assert serves == alias
    return serves


def test_runs_that_are_killed_leave_both_together_after_the_next(stage: Stage) -> None:
    chance = random.Random(13)
    whole = took(stage, "run")
    assert agree(stage) == "2"
    stage.run("1")
    died = 0
    for number in range(KILLS):
        died += killed(stage, "run", chance.uniform(0, whole))
        if number % 2:
            with pytest.raises(PromotionRefused):
                stage.run("3", passed=False)
            assert agree(stage) != "3"
        else:
            stage.run("2")
            assert agree(stage) == "2"
        if stage.where == ("2", "2"):
            stage.run("1")
        assert agree(stage) == "1"
    assert died > KILLS / 4


def test_roll_backs_that_are_killed_leave_both_together_after_the_next(stage: Stage) -> None:
    chance = random.Random(14)
    stage.run("2")
    whole = took(stage, "back")
    died = 0
    for _ in range(KILLS):
        stage.run("2")
        died += killed(stage, "back", chance.uniform(0, whole))
        stage.back()
        assert agree(stage) == "1"
    assert died > KILLS / 4
