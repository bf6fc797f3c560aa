"""Dependencies of a bento: from the models' own requirements to one lock with hashes."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from kfp_bento.runtime.errors import BentoError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kfp_bento.runtime.models import ModelVersion

NEEDED_BY_PYFUNC = ("numpy", "pandas")
"""What `mlflow.pyfunc` imports beyond the dependencies of mlflow-skinny."""

_DRAWING = " \t\u00d7\u2570\u2500\u25b6\u2502\u251c"
"""The lines and arrows that uv draws around its sentences."""

_GLIBC = "manylinux_2_28"
"""Wheels for Debian 10, RHEL 8, Ubuntu 20.04 and everything newer."""

_NAME = re.compile(r"\s*([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(\[[^\]]*\])?")


def bento_requirements(models: Iterable[ModelVersion], extra: Iterable[str] = ()) -> list[str]:
    """Gives what a bento with these models needs, before locking.

    MLflow itself is replaced by mlflow-skinny of the same version (the service needs neither the
    tracking server nor its database), unless an extra of it is asked for.

    Args:
        models: The models; their `requirements.txt` counts.
        extra: More requirements, such as those of a user's own service.

    Raises:
        BentoError: A model needs a package that lies in a local file.
    """
    lines: list[str] = []
    for model in models:
        own = [_portable(line) for line in model.requirements if not _is_constraints_option(line)]
        if not any(_name(line) in ("mlflow", "mlflow-skinny") for line in own):
            own.append(f"mlflow-skinny=={model.mlflow_version}".removesuffix("=="))
        lines += own
    lines += [line for line in extra if _name(line) != "bentoml"]
    named = {_name(line) for line in lines}
    lines += [name for name in NEEDED_BY_PYFUNC if name not in named]
    lines.append(f"bentoml=={version('bentoml')}")
    return list(dict.fromkeys(lines))


def bento_constraints(models: Iterable[ModelVersion]) -> list[str]:
    """Gives the lines of the models' `constraints.txt` files."""
    lines: list[str] = []
    for model in models:
        path = model.directory / "constraints.txt"
        if path.is_file():
            lines += [
                _portable(line.strip())
                for line in path.read_text(encoding="utf-8").splitlines()
                if line.strip() and not line.strip().startswith("#")
            ]
    return list(dict.fromkeys(lines))


def locked(
    requirements: Sequence[str], constraints: Sequence[str], python_version: str, directory: Path
) -> str:
    """Resolves requirements into exact versions with hashes, wheels only, for Linux.

    Args:
        requirements: Lines of a requirements file.
        constraints: Lines of a constraints file; may be empty.
        python_version: The minor version the lock is for, such as "3.11".
        directory: An existing scratch directory.

    Returns:
        The text of a requirements file that names no package index.

    Raises:
        BentoError: uv is missing, or finds no versions that go together.
    """
    wanted = directory / "requirements.in"
    wanted.write_text("".join(f"{line}\n" for line in requirements), encoding="utf-8")
    command = [
        *(_uv(), "pip", "compile", str(wanted), "--quiet", "--generate-hashes", "--no-header"),
        *("--no-annotate", "--no-emit-index-url", "--only-binary", ":all:"),
        *("--python", sys.executable, "--python-version", python_version),
        *("--python-platform", _platform()),
    ]
    if constraints:
        limits = directory / "constraints.txt"
        limits.write_text("".join(f"{line}\n" for line in constraints), encoding="utf-8")
        command += ["--constraints", str(limits)]
    environment = {**os.environ, "UV_PYTHON_DOWNLOADS": "never", "NO_COLOR": "1"}
    result = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, encoding="utf-8", check=False
    )
    if result.returncode:
        raise _unresolved(result.stderr, python_version)
    return result.stdout


def _unresolved(output: str, python_version: str) -> BentoError:
    reasons, hints = [], []
    for line in output.splitlines():
        text = line.lstrip(_DRAWING).removeprefix("error: ").removeprefix("cause: ")
        if text.startswith("hint: "):
            hints.append(text.removeprefix("hint: "))
        elif text and not text.startswith(("warning:", "No solution found")):
            reasons.append(text)
    reason = " ".join(reasons) or "uv gives no reason"
    if len(reason) > 800:
        reason = reason[:800].rpartition(" ")[0] + " …"
    return BentoError(
        f"The dependencies cannot be locked for Python {python_version} on {_platform()}: "
        f"{reason.rstrip('.')}.",
        hint=" ".join(
            [*hints, "Correct the requirements that the model was logged with, or add some here."]
        ),
    )


def _uv() -> str:
    try:
        import uv

        return str(uv.find_uv_bin())
    except (ImportError, FileNotFoundError):
        found = shutil.which("uv")
    if found is None:
        raise BentoError(
            "uv is not installed, so dependencies cannot be locked.",
            hint="pip install 'kfp-bento[runtime]'",
        )
    return found


def _platform() -> str:
    machine = platform.machine().lower()
    return f"{'aarch64' if machine in ('aarch64', 'arm64') else 'x86_64'}-{_GLIBC}"


def _name(line: str) -> str:
    match = _NAME.match(line)
    return re.sub(r"[-_.]+", "-", match[1]).lower() if match else ""


def _is_constraints_option(line: str) -> bool:
    return line.startswith(("-c ", "-c\t", "--constraint"))


def _portable(line: str) -> str:
    """Gives a requirement as it can be met on another machine."""
    first = line.split(";")[0].split("#")[0].strip()
    if (first.endswith((".whl", ".tar.gz", ".zip")) and "://" not in first) or first[:1] in "./":
        raise BentoError(
            f"The model needs the local file {first!r}, which cannot be locked.",
            hint="Publish that package to your package index and log the model with its name.",
        )
    match = _NAME.match(line)
    if match and not match[2] and _name(line) == "mlflow":
        return f"mlflow-skinny{line[match.end(1) :]}"
    return line
