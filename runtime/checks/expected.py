"""Expected answers: the registry model asked by MLflow itself, in a process of its own.

The process uses this interpreter when what is installed here satisfies the model's
requirements, and otherwise an environment made of these requirements for this one purpose.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.errors import CheckError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kfp_bento.runtime.models import ModelVersion

SCRIPT = Path(__file__).with_name("predict_with_mlflow.py")
PREDICT_SECONDS = 900.0
INSTALL_SECONDS = 1800.0

_NEEDED = ("mlflow", "numpy", "pandas")
_TOLD_LINES = 12


def expected_answers(model: ModelVersion, requests: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Ask the model in `model.directory` and give one answer per request, as JSON values.

    Raises:
        CheckError: The environment cannot be made, or the model cannot be loaded or refuses
            a request.
    """
    with tempfile.TemporaryDirectory(prefix="kfp-bento-expected-") as folder:
        scratch = Path(folder)
        reason = unmet_requirement(model)
        python = sys.executable if not reason else _isolated_interpreter(model, scratch, reason)
        return _predict(python, model, requests, scratch)


def unmet_requirement(model: ModelVersion) -> str:
    """Say why this interpreter cannot stand in for the model's own; empty when it can."""
    from packaging.requirements import InvalidRequirement, Requirement

    minor = f"{sys.version_info.major}.{sys.version_info.minor}"
    wanted = ".".join(model.python_version.split(".")[:2])
    if wanted and wanted != minor:
        return f"it was logged with Python {wanted} and this is {minor}"
    for module in _NEEDED:
        if importlib.util.find_spec(module) is None:
            return f"{module} is not installed"
    for line in model.requirements:
        try:
            requirement = Requirement(line.partition(" #")[0].strip())
        except InvalidRequirement:
            return f"its requirement {line!r} can only be judged by installing it"
        if requirement.url:
            return f"its requirement {line!r} names an address"
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        found = _installed_version(requirement.name)
        if not found or not requirement.specifier.contains(found, prereleases=True):
            return f"it needs {line} and {found or 'nothing of it'} is installed"
    return ""


def _installed_version(name: str) -> str:
    # The slim distribution has all that a pyfunc model needs, under the same version numbers.
    names = (name, "mlflow-skinny") if name.lower() == "mlflow" else (name,)
    for candidate in names:
        try:
            return importlib.metadata.version(candidate)
        except importlib.metadata.PackageNotFoundError:
            continue
    return ""


def _isolated_interpreter(model: ModelVersion, scratch: Path, reason: str) -> str:
    uv = _find_uv(model, reason)
    wanted = ".".join(model.python_version.split(".")[:2])
    environment = scratch / "environment"
    needs = scratch / "requirements.txt"
    needs.write_text("\n".join(isolated_requirements(model)) + "\n", encoding="utf-8")
    chosen = ["--python", wanted] if wanted else ["--python", sys.executable]
    python = environment / "bin" / "python"
    for argv in (
        [uv, "venv", "--quiet", "--no-project", *chosen, str(environment)],
        [uv, "pip", "install", "--quiet", "--python", str(python), "--requirement", str(needs)],
    ):
        # Not in the model's directory: its pyproject.toml may hold settings for uv.
        done = _run(argv, INSTALL_SECONDS, scratch, "making an environment for the model")
        if done.returncode:
            raise CheckError(
                f"The model's own predictions cannot be had here, as {reason}, and an environment "
                f"for it cannot be made: {_tail(done.stderr)}",
                hint="Run the check where the model's requirements are installed or can be.",
            )
    return str(python)


def isolated_requirements(model: ModelVersion) -> list[str]:
    """Give the lines to install: the model's own, with slim MLflow, pandas and numpy.

    Files that the lines name relative to the model directory become absolute.
    """
    directory = model.directory.absolute()
    lines, names = [], set()
    for line in model.requirements:
        option, _, rest = line.partition(" ")
        name = _distribution(line)
        names.add(name)
        if name == "mlflow" and "[" not in line:
            lines.append("mlflow-skinny" + line[len(name) :])
        elif option in ("-c", "-r", "--constraint", "--requirement"):
            lines.append(f"{option} {directory / rest.strip()}")
        elif (directory / line).is_file():
            lines.append(str(directory / line))
        else:
            lines.append(line)
    lines += [need for need in ("numpy", "pandas") if need not in names]
    if not names & {"mlflow", "mlflow-skinny"}:
        lines.append(f"mlflow-skinny=={model.mlflow_version}".removesuffix("=="))
    return lines


def _distribution(line: str) -> str:
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    try:
        return str(canonicalize_name(Requirement(line.partition(" #")[0].strip()).name))
    except InvalidRequirement:
        return ""


def _find_uv(model: ModelVersion, reason: str) -> str:
    try:
        from uv import find_uv_bin

        return str(find_uv_bin())
    except (ImportError, FileNotFoundError):
        found = shutil.which("uv")
    if not found:
        raise CheckError(
            f"The predictions of {model.uri} cannot be had with this interpreter: {reason}.",
            hint="Install the model's requirements here, or uv to make an environment for it.",
        )
    return found


def _predict(
    python: str, model: ModelVersion, requests: Sequence[Mapping[str, Any]], scratch: Path
) -> list[Any]:
    task = {
        "inputs": model.signature.to_dict()["inputs"] if model.signature else None,
        "requests": [dict(body) for body in requests],
    }
    asked, answered = scratch / "requests.json", scratch / "answers.json"
    asked.write_text(json.dumps(task), encoding="utf-8")
    done = _run(
        [python, str(SCRIPT), str(model.directory.absolute()), str(asked), str(answered)],
        PREDICT_SECONDS,
        scratch,
        "asking the model itself",
    )
    if done.returncode or not answered.is_file():
        raise CheckError(
            f"The registry's {model.uri} cannot answer its own request: {_tail(done.stderr)}",
            hint="Try mlflow.models.predict with the model and its input example.",
        )
    answers = json.loads(answered.read_text(encoding="utf-8"))
    return list(answers)


def _run(
    argv: Sequence[str], seconds: float, directory: Path, doing: str
) -> subprocess.CompletedProcess[str]:
    settings = {
        **os.environ,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # What is written beside installed packages or the model would not be ours.
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    for name in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"):
        settings.pop(name, None)
    try:
        return subprocess.run(
            argv,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            cwd=directory,
            env=settings,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as error:
        raise CheckError(
            f"{doing.capitalize()} took more than {seconds:g} s and was stopped.",
            hint="Give the check a smaller request.",
        ) from error
    except OSError as error:
        raise CheckError(f"{doing.capitalize()} failed: {error}") from error


def _tail(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return "\n".join(lines[-_TOLD_LINES:]) or "it ended without a word"
