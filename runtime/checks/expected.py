"""Expected answers: the registry model asked by MLflow itself, in a process of its own.

The process uses this interpreter when what is installed here satisfies the model's
requirements, and otherwise an environment made of these requirements for this one purpose. The
model's code runs without our credentials and, where the system can do that, without network.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import re
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.bentos import (
    bento_constraints,
    bento_indexes,
    lock_requirements,
    model_requirements,
)
from kfp_bento.runtime.errors import BentoError, CheckError
from kfp_bento.runtime.files import parse_json_value, read_small_file, scratch_inside
from kfp_bento.runtime.programs import (
    clean_environment,
    cleaned,
    code_variables,
    confined,
    confinement_hint,
    memory_for_code,
    run_program,
    run_uv,
)
from kfp_bento.runtime.requirements import (
    NAMES_ONLY,
    AllowedSources,
    allowed_sources,
    distribution_name,
    joined_lines,
    parse_requirement,
    shown,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kfp_bento.runtime.models import ModelVersion

SCRIPT = Path(__file__).with_name("predict_with_mlflow.py")
PREDICT_SECONDS = 900.0
INSTALL_SECONDS = 1800.0

_NEEDED = ("mlflow", "numpy", "pandas")
_ANSWERS_LIMIT = 1 << 30
_MINOR = re.compile(r"(3\.[0-9]{1,2})(?:\.[0-9a-z+]{1,12})?")
_CANNOT = "Run the check where the model's requirements are installed or can be."


def expected_answers(
    model: ModelVersion,
    requests: Sequence[Mapping[str, Any]],
    allow_sources: Sequence[str] = (),
) -> list[Any]:
    """Ask the model in `model.directory` and give one answer per request, as JSON values.

    Args:
        model: The model.
        requests: Bodies, as a served model gets them.
        allow_sources: What the model's requirements may name, as for `build_bento`.

    Raises:
        CheckError: The environment cannot be made, or the model cannot be loaded or refuses
            a request.
        InvalidInput: An allowed source is no address.
    """
    sources = allowed_sources(allow_sources)
    with scratch_inside(Path(tempfile.gettempdir()), "kfp-bento-expected-") as scratch:
        reason = unmet_requirement(model)
        python = (
            sys.executable if not reason else _isolated_interpreter(model, scratch, reason, sources)
        )
        return _predict(python, model, requests, scratch)


def unmet_requirement(model: ModelVersion) -> str:
    """Say why this interpreter cannot stand in for the model's own; empty when it can."""
    minor = f"{sys.version_info.major}.{sys.version_info.minor}"
    wanted = _wanted_python(model)
    if wanted and wanted != minor:
        return f"it was logged with Python {wanted} and this is {minor}"
    for module in _NEEDED:
        if importlib.util.find_spec(module) is None:
            return f"{module} is not installed"
    for line in joined_lines(model.requirements):
        if reason := _unmet(line):
            return reason
    return ""


def _unmet(line: str) -> str:
    try:
        requirement, _ = parse_requirement(line)
        excluded = requirement.marker is not None and not requirement.marker.evaluate()
    except ValueError:
        return f"its requirement {shown(line)!r} can only be judged by installing it"
    if requirement.url:
        return f"its requirement {shown(line)!r} names an address"
    if excluded:
        return ""
    found = _installed_version(requirement.name)
    if found and requirement.specifier.contains(found, prereleases=True):
        return ""
    return f"it needs {shown(line)} and {found or 'nothing of it'} is installed"


def _wanted_python(model: ModelVersion) -> str:
    """Give the minor version that a model names; it becomes an argument of a program."""
    if not model.python_version:
        return ""
    match = _MINOR.fullmatch(model.python_version)
    if match is None:
        raise CheckError(
            f"The model {cleaned(model.uri)} was logged with Python "
            f"{cleaned(model.python_version)[:40]!r}, which is no version.",
            hint="Log the model again; python_version stands in its MLmodel file.",
        )
    return match[1]


def _installed_version(name: str) -> str:
    # The slim distribution has all that a pyfunc model needs, under the same version numbers.
    names = (name, "mlflow-skinny") if name.lower() == "mlflow" else (name,)
    for candidate in names:
        try:
            return importlib.metadata.version(candidate)
        except importlib.metadata.PackageNotFoundError:
            continue
    return ""


def _isolated_interpreter(
    model: ModelVersion, scratch: Path, reason: str, sources: AllowedSources
) -> str:
    """Make an environment of exact versions, wheels only, for the model's own Python."""
    wanted = _wanted_python(model) or f"{sys.version_info.major}.{sys.version_info.minor}"
    python = scratch / "environment" / "bin" / "python"
    needs = scratch / "requirements.txt"
    try:
        indexes = bento_indexes([model], sources)
        lock = lock_requirements(
            isolated_requirements(model, sources),
            bento_constraints([model], sources),
            wanted,
            scratch,
            indexes,
            for_here=True,
        )
    except BentoError as error:
        raise _not_made(reason, error.message, error.hint) from None
    needs.write_text(lock, encoding="utf-8")
    for argv in (
        ["venv", "--quiet", "--no-project", "--python", wanted, str(scratch / "environment")],
        [
            *("pip", "install", "--quiet", "--python", str(python), "--no-deps"),
            *("--only-binary", ":all:", "--require-hashes", "--requirement", str(needs)),
            *indexes,
        ],
    ):
        done = run_uv(
            argv,
            doing="Making an environment for the model",
            directory=scratch,
            seconds=INSTALL_SECONDS,
            error=CheckError,
            indexes=[option.partition("=")[2] for option in indexes],
            downloads=argv[0] == "venv",
        )
        if done.status:
            raise _not_made(reason, done.last_lines(), _CANNOT)
    return str(python)


def _not_made(reason: str, why: str, hint: str) -> CheckError:
    return CheckError(
        f"The model's own predictions cannot be had here, as {reason}, and an environment "
        f"for it cannot be made: {why}",
        hint=hint or _CANNOT,
    )


def isolated_requirements(model: ModelVersion, sources: AllowedSources = NAMES_ONLY) -> list[str]:
    """Give the lines to install: the model's own, with slim MLflow, pandas and numpy.

    Raises:
        BentoError: A line asks for what is not allowed.
    """
    lines = model_requirements(model, sources)
    names = {distribution_name(line) for line in lines}
    return [*lines, *(need for need in ("numpy", "pandas") if need not in names)]


def _predict(
    python: str, model: ModelVersion, requests: Sequence[Mapping[str, Any]], scratch: Path
) -> list[Any]:
    task = {
        "inputs": model.signature.to_dict()["inputs"] if model.signature else None,
        "requests": [dict(body) for body in requests],
    }
    asked, answered = scratch / "requests.json", scratch / "answers.json"
    asked.write_text(json.dumps(task), encoding="utf-8")
    command = [python, str(SCRIPT), str(model.directory.absolute()), str(asked), str(answered)]
    done = run_program(
        confined(command, error=CheckError),
        doing="Asking the model itself",
        directory=scratch,
        environment=clean_environment(
            code_variables(),
            MLFLOW_DISABLE_TELEMETRY="true",
            # What is written beside installed packages or the model would not be ours.
            PYTHONDONTWRITEBYTECODE="1",
        ),
        seconds=PREDICT_SECONDS,
        memory=memory_for_code(),
        error=CheckError,
        hint=f"Give the check a smaller request. {confinement_hint()}",
    )
    if done.status == 0:
        answers = _answers(answered)
        if len(answers) == len(requests):
            return answers
    raise CheckError(
        f"The registry's {cleaned(model.uri)} cannot answer its own request: {done.last_lines()}",
        hint="Try mlflow.models.predict with the model and its input example. "
        + confinement_hint(),
    )


def _answers(file: Path) -> list[Any]:
    """Read what the model's process wrote; its code could have written anything there."""
    try:
        found = parse_json_value(read_small_file(file, _ANSWERS_LIMIT), nan=True)
    except (OSError, ValueError):
        return []
    return found if isinstance(found, list) else []
