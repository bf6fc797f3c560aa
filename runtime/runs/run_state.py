"""How a run and its steps stand, as the API tells it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kfp_bento.runtime.errors import RunError, plain_text

SUCCEEDED = "SUCCEEDED"
_BAD = frozenset({"FAILED", "CANCELED"})
_ENDED = _BAD | {SUCCEEDED, "SKIPPED"}
_RUNNING = "RUNNING"
_LONGEST = 2000
# What the engine has besides the steps: the run itself, and the pods that prepare and carry them.
_ENGINE = ("root", "executor")


@dataclass(frozen=True)
class TaskState:
    """One step of a run.

    Attributes:
        task_id: Tells it from others of its name, as in a loop.
        name: Its name in the pipeline.
        state: V2beta1RuntimeState.
        seconds: How long it took, or 0 where that is not known.
        error: What went wrong, where the API says it.
    """

    task_id: str
    name: str
    state: str
    seconds: float = 0.0
    error: str = ""

    @property
    def runs(self) -> bool:
        """Whether it has begun and not ended."""
        return self.state == _RUNNING

    @property
    def ended(self) -> bool:
        """Whether it has ended, well or not; one that was skipped never began."""
        return self.state in _BAD or self.state == SUCCEEDED

    @property
    def failed(self) -> bool:
        """Whether it ended otherwise than well."""
        return self.state in _BAD


@dataclass(frozen=True)
class RunState:
    """One run.

    Attributes:
        run_id: Its id.
        name: Its name for people.
        state: V2beta1RuntimeState.
        error: What went wrong, where the API says it.
        steps: The steps of the pipeline that have begun, in the order in which they did.
        others: What else the engine lists: the run, its blocks, drivers.
    """

    run_id: str
    name: str
    state: str
    error: str = ""
    steps: tuple[TaskState, ...] = ()
    others: tuple[TaskState, ...] = ()

    @property
    def ended(self) -> bool:
        """Whether nothing will change any more."""
        return self.state in _ENDED

    @property
    def succeeded(self) -> bool:
        """Whether it ended well."""
        return self.state == SUCCEEDED

    @property
    def failure(self) -> tuple[str, str]:
        """The step that failed first and what was said about it; each "" where it is not known."""
        failed = [task for task in (*self.steps, *self.others) if task.failed]
        name = next((task.name for task in failed if task.name not in _ENGINE), "")
        told = next((task.error for task in failed if task.error), "")
        return name, told or self.error


def read_run(answer: Any) -> RunState:
    """Read kfp_server_api's V2beta1Run.

    Raises:
        RunError: It has no id.
    """
    if not isinstance(answer.run_id, str) or not answer.run_id:
        raise RunError("Kubeflow Pipelines gave a run without an id.")
    steps = set(step_names(answer.pipeline_spec))
    details = getattr(answer.run_details, "task_details", None) or ()
    tasks = sorted((_task(one) for one in details), key=lambda pair: pair[0])
    ours = [task for _, task in tasks if _is_step(task.name, steps)]
    return RunState(
        answer.run_id,
        str(answer.display_name or ""),
        str(answer.state or ""),
        _error(answer.error),
        tuple(ours),
        tuple(task for _, task in tasks if task not in ours),
    )


def step_names(specification: Any) -> Iterator[str]:
    """Give the names of the tasks that run a container, in a pipeline's specification."""
    if not isinstance(specification, Mapping):
        return
    given = specification.get("pipeline_spec", specification)  # where Kubernetes' is beside it
    if not isinstance(given, Mapping):
        return
    components = given.get("components") or {}
    for dag in dags(given):
        for name, task in (dag.get("tasks") or {}).items():
            component = components.get((task.get("componentRef") or {}).get("name"), {})
            if "executorLabel" in component:
                yield name


def dags(specification: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Give the root and all blocks below it, of a pipeline's specification."""
    inner = [*(specification.get("components") or {}).values(), specification.get("root") or {}]
    for one in inner:
        if isinstance(one, Mapping) and isinstance(one.get("dag"), dict):
            yield one["dag"]


def _is_step(name: str, steps: set[str]) -> bool:
    if steps:
        return name in steps
    return name not in _ENGINE and not name.endswith("-driver")


def _task(answer: Any) -> tuple[str, TaskState]:
    began, ended = answer.start_time or answer.create_time, answer.end_time
    seconds = (ended - began).total_seconds() if began and ended else 0.0
    order = (began or answer.create_time).isoformat() if began or answer.create_time else "~"
    return order, TaskState(
        str(answer.task_id or answer.display_name),
        plain_text(str(answer.display_name or "")),
        str(answer.state or ""),
        max(0.0, seconds),
        _error(answer.error),
    )


def _error(answer: Any) -> str:
    return plain_text(str(getattr(answer, "message", "") or ""))[:_LONGEST]
