"""Running a pipeline on this machine with kfp.local, its steps told as they happen."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.errors import InvalidInput, LocalRunError
from kfp_bento.runtime.files import JSON_LIMIT, parse_json, read_small_file, reading
from kfp_bento.runtime.local.pipelines import is_shipped
from kfp_bento.runtime.local.private import others_may_add, private_directory, private_file
from kfp_bento.runtime.programs import cleaned, start_program

if TYPE_CHECKING:
    import subprocess

# In a loop the steps are threads, and the first that ends takes KFP's own form of lines away.
_SAYS = r"(?: - (?:INFO|ERROR) - |^(?:INFO|ERROR):root:)"
STARTED = re.compile(_SAYS + r"Executing task '(?P<step>[^']+)'")
FINISHED = re.compile(_SAYS + r"Task '(?P<step>[^']+)' finished with status (?P<status>\w+)")
# The last line of a traceback that ends in one of our own errors; its text may go on below it.
EXPECTED = re.compile(r"^\s*kfp_bento\.runtime\.(?:\w+\.)*errors\.\w+: (?P<message>.*)$")


@dataclass(frozen=True)
class Step:
    """A step that began or ended.

    Attributes:
        name: The task's name, for example build-image.
        seconds: How long it took; none while it runs.
        succeeded: Whether it ended well; none while it runs.
    """

    name: str
    seconds: float | None = None
    succeeded: bool | None = None


class RunFailed(LocalRunError):
    """A step failed.

    Attributes:
        run: The run as far as it went.
    """

    def __init__(self, failure: LocalRunError, run: Run) -> None:
        super().__init__(failure.message, hint=failure.hint)
        self.run = run


@dataclass(frozen=True)
class Run:
    """A pipeline run.

    Attributes:
        directory: Holds one folder a step with its outputs.
        seconds: Wall time of each step, in the order they ran.
    """

    directory: Path
    seconds: dict[str, float]

    def output(self, step: str, name: str) -> Path:
        """Give the path of one output of a step."""
        return self.directory / step / name

    def has(self, step: str, name: str) -> bool:
        """Say whether a step has left an output."""
        return self.output(step, name).exists()

    def record(self, step: str, name: str = "record") -> dict[str, Any]:
        """Read one JSON output of a step.

        Raises:
            LocalRunError: It cannot be read.
        """
        problem = f"The {name} of step {step} cannot be read"
        with reading(problem, LocalRunError, hint="Start the run again."):
            return parse_json(read_small_file(self.output(step, name), JSON_LIMIT))


def run_pipeline(
    pipeline: str,
    arguments: Mapping[str, Any],
    directory: Path,
    *,
    environment: Mapping[str, str] | None = None,
    hidden: str = "",
    before: Callable[[], None] = lambda: None,
    on_step: Callable[[Step], None] = lambda step: None,
) -> Run:
    """Run a pipeline to its end, every step a process of this interpreter.

    Args:
        pipeline: What load_pipeline takes.
        arguments: Typed values of the pipeline's parameters.
        directory: Receives the run's outputs and its log, pipeline.log.
        environment: Variables that the steps see besides this process's own.
        hidden: Start of the names of variables of this process that the steps do not see.
        before: Called before the first step, while the runner starts up; waits for what the steps
            need.
        on_step: Called when a step begins and when it ends.

    Raises:
        InvalidInput: If a value cannot be passed to a local step.
        RunFailed: If a step fails; with the step's own explanation.
    """
    directory = directory.resolve()
    _refuse_interpreter_names(arguments, directory)
    directory.mkdir(parents=True, exist_ok=True)
    temporary = private_directory(directory / "tmp")
    root = private_directory(directory / "steps")
    request = directory / "request.json"
    earlier = set(root.glob("*"))
    content = {"pipeline": pipeline, "arguments": dict(arguments), "root": str(root)}
    with private_file(request) as file:
        json.dump(content, file)
    # Python looks for modules where it is started, and somebody may have put some there; only the
    # user's own pipelines may need what lies there.
    closed = is_shipped(pipeline) or others_may_add(Path.cwd())
    safe = {"PYTHONSAFEPATH": "1"} if closed else {}
    # The steps are ours, and do what the user set for MLflow, registries and clusters.
    inherited = {k: v for k, v in os.environ.items() if not (hidden and k.startswith(hidden))}
    with start_program(
        [sys.executable, "-u", "-m", "kfp_bento.runtime.local.pipeline_process", str(request)],
        environment={**inherited, **safe, **(environment or {}), "TMPDIR": str(temporary)},
        one_stream=True,
    ) as process:
        before()
        assert process.stdin is not None  # noqa: S101 - it was opened as a pipe
        with contextlib.suppress(BrokenPipeError), process.stdin as stdin:
            stdin.write(b"begin\n")
        seconds: dict[str, float] = {}
        failure = _follow(process, directory / "pipeline.log", on_step, seconds)
    made = sorted(set(root.glob("*")) - earlier)
    run = Run(made[-1] if made else root, seconds)
    if failure is not None:
        raise RunFailed(failure, run)
    return run


def _follow(
    process: subprocess.Popen[bytes],
    log: Path,
    on_step: Callable[[Step], None],
    seconds: dict[str, float],
) -> LocalRunError | None:
    """Write the process's output to the log, report its steps, say whether and why one failed."""
    failed, said = "", list[str]()
    lines: list[str] = []
    began = time.monotonic()
    assert process.stdout is not None  # noqa: S101 - it was opened as a pipe
    with private_file(log) as output:
        for raw in process.stdout:
            line = cleaned(raw.decode("utf-8", "replace").replace("\r\n", "\n"))
            output.write(line)
            lines.append(line)
            if found := STARTED.search(line):
                began, lines = time.monotonic(), []
                on_step(Step(found["step"]))
            elif found := FINISHED.search(line):
                step, succeeded = found["step"], found["status"] == "SUCCESS"
                seconds[step] = time.monotonic() - began
                on_step(Step(step, seconds[step], succeeded))
                if not (succeeded or failed):
                    failed, said = step, lines[:-1]
    return _failure(failed, said or lines, log) if process.wait() else None


def _failure(step: str, said: list[str], log: Path) -> LocalRunError:
    where = f"Step {step} failed" if step else "The pipeline could not be run"
    for index, line in reversed([*enumerate(said)]):  # of errors in a row the outermost is last
        if found := EXPECTED.match(line):
            told = [found["message"], *(text.strip() for text in said[index + 1 :])]
            message, _, hint = "\n".join(told).partition("\nHint: ")
            return LocalRunError(
                f"{where}: {_paragraph(message)}", hint=_paragraph(hint) or f"The log is in {log}."
            )
    last = next((line.strip() for line in reversed(said) if line.strip()), "it said nothing")
    return LocalRunError(f"{where}: {last}", hint=f"The whole log is in {log}.")


def _paragraph(text: str) -> str:
    """Cut a text at the first empty line, where KFP's own messages go on."""
    return text.split("\n\n")[0].strip()


def _refuse_interpreter_names(arguments: Mapping[str, Any], directory: Path) -> None:
    """Refuse what kfp.local would rewrite: it replaces python3 anywhere in a step's inputs."""
    for key, value in {**arguments, "the run's directory": str(directory)}.items():
        if "python3" in json.dumps(value):
            raise InvalidInput(
                f"{key} contains the text python3, which kfp.local replaces by the path of its "
                f"interpreter: {value}",
                hint="Use another name or path for local runs; on a cluster it is no problem.",
            )
