"""What is shown of the log of a container that ended."""

from __future__ import annotations

from kfp_bento.runtime.deployments.release.evidence import LOG_LINES, telling


def test_the_error_of_a_worker_is_shown_above_the_last_word_of_what_started_it() -> None:
    log = ["Traceback (most recent call last):", *(f"  line {n}" for n in range(30))]
    log += ["RuntimeError: this model does not load", "[worker] mlflow.MlflowException: no"] * 2
    last = [f"  frame {n}" for n in range(LOG_LINES - 1)]
    last += ["RuntimeError: No active process found for watcher."]
    assert telling([*log, *last]) == [*log[-2:], *last]


def test_a_short_log_is_shown_whole_and_once() -> None:
    log = ["starting", "ValueError: no", "bye"]
    assert telling(log) == log
