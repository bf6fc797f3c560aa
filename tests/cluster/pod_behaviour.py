"""What a container does on a node, as its status tells it: one step after the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

RUNNING: Mapping[str, Any] = {"running": {}}


@dataclass(frozen=True)
class Step:
    """One state of all containers of a pod.

    `state` is a ContainerState without its times; `after` counts seconds from the step before.
    `event` is type, reason and message of what the node says about it.
    """

    state: Mapping[str, Any]
    after: float = 0.0
    ready: bool = False
    event: tuple[str, str, str] | None = None


@dataclass(frozen=True)
class Behaviour:
    """Steps, of which the last `repeat` go round for ever; and what the containers print."""

    steps: tuple[Step, ...]
    repeat: int = 0
    log: str = ""


def becomes_ready(after: float = 0.0, *, log: str = "serving\n") -> Behaviour:
    """Runs at once, is ready `after` seconds later (a slow start when that is long)."""
    started = Step(RUNNING, event=("Normal", "Started", "Started container"))
    return Behaviour((started, Step(RUNNING, after=after, ready=True)), log=log)


def never_ready(*, log: str = "loading\n") -> Behaviour:
    """Runs, and its readiness probe fails for ever."""
    failing = ("Warning", "Unhealthy", "Readiness probe failed: HTTP probe failed: 503")
    steps = (Step(RUNNING), Step(RUNNING, after=0.5, event=failing))
    return Behaviour(steps, repeat=1, log=log)


def image_pull_backoff(message: str = "manifest unknown") -> Behaviour:
    """The image cannot be pulled."""
    told = f"Failed to pull image: {message}"
    return Behaviour(
        (
            Step(
                {"waiting": {"reason": "ErrImagePull", "message": message}},
                event=("Warning", "Failed", told),
            ),
            Step(
                {"waiting": {"reason": "ImagePullBackOff", "message": f"Back-off: {message}"}},
                after=0.3,
                event=("Normal", "BackOff", "Back-off pulling image"),
            ),
        )
    )


def config_error(message: str = 'secret "absent" not found') -> Behaviour:
    """A Secret or ConfigMap that the container wants is not there."""
    waiting = {"waiting": {"reason": "CreateContainerConfigError", "message": message}}
    return Behaviour((Step(waiting, event=("Warning", "Failed", f"Error: {message}")),))


def crash_loop(
    *,
    exit_code: int = 1,
    reason: str = "Error",
    ready_for: float = 0.0,
    log: str = "Traceback (most recent call last):\nModuleNotFoundError: sklearn\n",
) -> Behaviour:
    """Starts, ends with `exit_code`, is started again, for ever.

    With `ready_for` it is ready for that many seconds each time before it ends.
    """
    ended = {"terminated": {"exitCode": exit_code, "reason": reason}}
    waiting = {
        "waiting": {
            "reason": "CrashLoopBackOff",
            "message": "back-off restarting failed container",
        }
    }
    event = ("Warning", "BackOff", "Back-off restarting failed container")
    ready = (Step(RUNNING, ready=True),) if ready_for else ()
    steps = (
        Step(RUNNING, after=1.0),
        *ready,
        Step(ended, after=ready_for or 0.2),
        Step(waiting, after=0.1, event=event),
    )
    return Behaviour((Step(RUNNING), *steps[1:], *steps), repeat=len(steps), log=log)


def out_of_memory(*, ready_for: float = 0.0, log: str = "loading model\n") -> Behaviour:
    """Is killed for its memory limit, again and again."""
    return crash_loop(exit_code=137, reason="OOMKilled", ready_for=ready_for, log=log)


def completes(after: float = 0.2, *, exit_code: int = 0, log: str = "done\n") -> Behaviour:
    """Runs to its end once, as the pod of a Job does."""
    reason = "Error" if exit_code else "Completed"
    ended = {"terminated": {"exitCode": exit_code, "reason": reason}}
    return Behaviour((Step(RUNNING), Step(ended, after=after)), log=log)
