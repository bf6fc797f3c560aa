"""Dependencies of a bento: from the models' own requirements to one lock with hashes."""

from __future__ import annotations

import contextlib
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from importlib.metadata import requires, version
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.utils import parse_wheel_filename
from packaging.version import InvalidVersion, Version

from kfp_bento.runtime.bentos.full_mlflow import missed_bounds
from kfp_bento.runtime.bentos.lock_failures import not_locked
from kfp_bento.runtime.errors import BentoError
from kfp_bento.runtime.files import read_small_file
from kfp_bento.runtime.models import unknown_conda_packages
from kfp_bento.runtime.programs import Finished, cleaned, run_uv
from kfp_bento.runtime.requirements import (
    NAMES_ONLY,
    SEPARATORS,
    Address,
    AllowedSources,
    DirectWheel,
    Reading,
    Repository,
    build_wheel,
    distribution_name,
    fetch_wheel,
    read_requirements,
    rendered,
    shown,
)

if TYPE_CHECKING:
    from kfp_bento.runtime.models import ModelVersion

NEEDED_BY_PYFUNC = ("numpy", "pandas")
"""What `mlflow.pyfunc` imports beyond the dependencies of mlflow-skinny."""

LOCK_SECONDS = 1800.0

BUILT_WHEELS = "wheels"
"""Where the wheels lie that were built of repositories, and how a lock names them: BentoML too."""

_WHEELS = AllowedSources(wheels=("https", "http"), repositories=True)
"""Whether an address may be named was decided when its line was read."""

_CORRECT = "Correct the requirements that the model was logged with, or add some here."
_CONSTRAINTS = "constraints.txt"
_CONSTRAINTS_LIMIT = 1 << 20
_HOW = (
    *("--quiet", "--generate-hashes", "--no-header", "--no-annotate", "--no-emit-index-url"),
    *("--only-binary", ":all:", "--python", sys.executable),
)
_MLFLOW = re.compile(r"mlflow(?![A-Za-z0-9._-])(?!\s*\[)", re.I)
_OLD_MLFLOW_IN_THE_WAY = re.compile(
    r"mlflow-skinny\S* depends\s+on\s+packaging|bentoml\S* depends\s+on\s+packaging"
)
"""MLflow before 2.1 asks for a packaging older than BentoML takes; it runs with today's too."""

_FIRST_ON_PYTHON_310 = Version("1.30.0")
"""MLflow 1.x before it has no mlflow-skinny, or fails with the NumPy of such a Python."""

_GLIBC = "manylinux_2_28"
"""Wheels for Debian 10, RHEL 8, Ubuntu 20.04 and everything newer."""


def bento_requirements(
    models: Iterable[ModelVersion],
    extra: Iterable[str] = (),
    sources: AllowedSources = NAMES_ONLY,
) -> list[str]:
    """Give what a bento with these models needs, before locking.

    Args:
        models: The models; their `requirements.txt` counts.
        extra: More requirements, such as those of a user's own service.
        sources: What models may name besides names and versions.

    Raises:
        BentoError: A line is no requirement, or asks for what is not allowed, or a model needs a
            conda package of which it is not known what pip calls it.
    """
    models, extra = list(models), list(extra)
    lines = []
    for model in models:
        _check_conda(model, extra)
        lines += model_requirements(model, sources)
    lines += [line for line in extra if distribution_name(line) != "bentoml"]
    named = {distribution_name(line) for line in lines}
    lines += [name for name in NEEDED_BY_PYFUNC if models and name not in named]
    lines.append(f"bentoml=={version('bentoml')}")
    return list(dict.fromkeys(lines))


def _check_conda(model: ModelVersion, extra: Iterable[str]) -> None:
    """Refuse a model that needs what only conda is known to have, unless it is answered for."""
    if not (model.directory / "conda.yaml").is_file():
        return
    unknown = unknown_conda_packages(model.directory, extra)
    if not unknown:
        return
    shown_names = ", ".join(shown(text) for text in unknown[:8]) + (", …" if unknown[8:] else "")
    first = re.split(r"[^A-Za-z0-9._-]", unknown[0].rpartition("::")[2].strip())[0]
    raise BentoError(
        f"The model {cleaned(model.uri)} needs conda packages, and it is not known what pip calls "
        f"them: {shown_names}.",
        hint=f"Name each as pip has it: --requirement '{first}==…' (requirements=); what is no "
        f"Python package goes into the base image, and is left out by --requirement "
        f"\"{first}; python_version < '3'\".",
    )


def model_requirements(model: ModelVersion, sources: AllowedSources = NAMES_ONLY) -> list[str]:
    """Give what a model needs, each a requirement (PEP 508) with or without hashes.

    MLflow itself is replaced by mlflow-skinny of the same version (a service needs neither the
    tracking server nor its database), unless an extra of it is asked for. Where no version is
    stated, it is that of the MLflow that logged the model.

    Raises:
        BentoError: See `bento_requirements`.
    """
    logged_by = _mlflow_version(model)
    lines = [_slim(line, logged_by) for line in requirement_texts(_reading(model, sources))]
    if not {distribution_name(line) for line in lines} & {"mlflow", "mlflow-skinny"}:
        lines.append(_slim("mlflow", logged_by))
    return lines


def bento_constraints(
    models: Iterable[ModelVersion], sources: AllowedSources = NAMES_ONLY
) -> list[str]:
    """Give the lines of the models' `constraints.txt` files.

    Raises:
        BentoError: A file cannot be read, or as `bento_requirements` says.
    """
    lines: list[str] = []
    for model in models:
        path = model.directory / _CONSTRAINTS
        if not path.is_file():
            continue
        try:
            text = read_small_file(path, _CONSTRAINTS_LIMIT).decode()
        except (OSError, ValueError):
            raise BentoError(
                f"{_CONSTRAINTS} of {_named(model)} cannot be read.", hint="Log the model again."
            ) from None
        reading = read_requirements(
            SEPARATORS.split(text),
            whose=f"{_CONSTRAINTS} of {_named(model)}",
            error=BentoError,
            sources=sources,
        )
        lines += [_slim(line) for line in requirement_texts(reading)]
    return list(dict.fromkeys(lines))


def bento_indexes(
    models: Iterable[ModelVersion], sources: AllowedSources = NAMES_ONLY
) -> list[str]:
    """Give the options for the indexes that models name and the user allows.

    Raises:
        BentoError: See `bento_requirements`.
    """
    readings = [_reading(model, sources) for model in models]
    return list(dict.fromkeys(line for reading in readings for line in index_options(reading)))


def users_requirements(
    lines: Iterable[str], whose: str, sources: AllowedSources = NAMES_ONLY, *, indexes: bool
) -> Reading:
    """Read the lines that a user wrote: names, versions, wheels at https addresses.

    Args:
        lines: The lines.
        whose: What they are of, for errors.
        sources: Which repositories they may name besides.
        indexes: Whether they may name package indexes.

    Raises:
        BentoError: See `bento_requirements`.
    """
    sources = AllowedSources(sources.prefixes, wheels=("https",), indexes=indexes)
    return read_requirements(lines, whose=whose, error=BentoError, sources=sources)


def requirement_texts(reading: Reading) -> list[str]:
    """Give the requirements of a reading as lines, with their hashes and without comments."""
    return [
        " ".join([line.text, *(f"--hash={value}" for value in line.hashes)])
        for line in reading.lines
    ]


def index_options(reading: Reading) -> list[str]:
    """Give the options of uv and of a lock for what a reading names besides requirements."""
    return [
        *(f"--extra-index-url={address}" for address in reading.indexes),
        *(f"--find-links={address}" for address in reading.pages),
    ]


def lock_requirements(
    requirements: Sequence[str],
    constraints: Sequence[str],
    python_version: str,
    directory: Path,
    indexes: Sequence[str] = (),
    *,
    for_here: bool = False,
    wheels: Iterable[DirectWheel] = (),
    way_out: str = _CORRECT,
) -> str:
    """Resolve requirements into exact versions with hashes, wheels only, for Linux.

    uv gets lines that are written anew, and never an address to follow: wheels at addresses are
    fetched for it, and wheels of repositories built, which stay in `directory / BUILT_WHEELS`.

    Args:
        requirements: Requirements, each PEP 508 with or without hashes.
        constraints: The same for constraints; may be empty.
        python_version: The minor version the lock is for, such as "3.11".
        directory: An existing scratch directory.
        indexes: Options as `index_options` gives them.
        for_here: Whether it is for this very system, instead of Linux on such a processor.
        wheels: More of what is required: files that come along.
        way_out: What to do where no versions go together.

    Returns:
        The text of a requirements file. It names no package index but those of `indexes` that
        are reached over https.

    Raises:
        BentoError: uv is missing, or finds no versions that go together, or a line is no
            requirement.
    """
    _check_python(python_version)
    with tempfile.TemporaryDirectory(prefix="lock-", dir=directory) as scratch:
        asked = _Asked(python_version, tuple(indexes), Path(scratch), for_here, way_out)
        asked.wheels.update({wheel.file.as_uri(): wheel for wheel in wheels})
        locked = _resolved(asked, requirements, constraints)
        bounds = missed_bounds(locked, requirements, python_version, asked.work, indexes)
        if bounds is not None:
            locked = _resolved(
                asked, [*requirements, *bounds.requirements], [*constraints, *bounds.constraints]
            )
        lines = [*_with_addresses(locked.splitlines(), asked.wheels)]
        for wheel in asked.wheels.values():
            if _lies_inside(wheel) and f"./{BUILT_WHEELS}/{wheel.file.name}" in "".join(lines):
                put = directory / BUILT_WHEELS / wheel.file.name
                put.parent.mkdir(exist_ok=True)
                shutil.copyfile(wheel.file, put)
    lock = "".join(f"{line}\n" for line in lines)
    return "".join(f"{line}\n" for line in indexes if "=https://" in line) + lock


@dataclass(frozen=True)
class _Asked:
    """What a lock is for; `wheels` are those at addresses, by the address that uv got."""

    python: str
    indexes: tuple[str, ...]
    work: Path
    for_here: bool
    way_out: str
    wheels: dict[str, DirectWheel] = field(default_factory=dict)


def _resolved(asked: _Asked, requirements: Sequence[str], constraints: Sequence[str]) -> str:
    """Let uv resolve; where only a bound of an old MLflow is in the way, without that bound."""
    command = ["pip", "compile", str(_written(requirements, "requirements.in", asked)), *_HOW]
    command += ["--python-version", asked.python, *asked.indexes]
    command += [*(() if asked.for_here else ("--python-platform", _platform()))]
    if constraints:
        command += ["--constraints", str(_written(constraints, "constraints.txt", asked))]
    done = _uv(asked, command)
    if done.status and _OLD_MLFLOW_IN_THE_WAY.search(done.complaint):
        overrides = asked.work / "overrides.txt"
        overrides.write_text(f"{_needed_by_bentoml('packaging')}\n", encoding="ascii")
        done = _uv(asked, [*command, "--overrides", str(overrides)])
    if done.status:
        where = f"Python {asked.python} on {_platform()}"
        raise not_locked(done.complaint, where, asked.way_out)
    return done.output


def _uv(asked: _Asked, command: Sequence[str]) -> Finished:
    return run_uv(
        command,
        doing="Locking the dependencies",
        directory=asked.work,
        seconds=LOCK_SECONDS,
        error=BentoError,
        indexes=[option.partition("=")[2] for option in asked.indexes],
    )


def _needed_by_bentoml(name: str) -> str:
    lines = (Requirement(line) for line in requires("bentoml") or ())
    return next(f"{name}{line.specifier}" for line in lines if line.name == name)


def _written(lines: Sequence[str], name: str, asked: _Asked) -> Path:
    """Write a requirements file for uv; wheels are fetched, or built, beside it."""
    file, wheels, python = asked.work / name, asked.wheels, asked.python
    brought = [wheel for wheel in wheels.values() if wheel.place is None]
    reading = read_requirements(lines, whose="the bento", error=BentoError, sources=_WHEELS)
    texts = [
        f"{parse_wheel_filename(wheel.file.name)[0]} @ {wheel.file.as_uri()}"
        for wheel in brought
        if not name.startswith("constraints")
    ]
    for line in reading.lines:
        place = line.wheel or line.repository
        if place is None:
            texts.append(rendered(line))
            continue
        found = next((wheel for wheel in wheels.values() if wheel.place == place), None)
        if found is None:
            folder = file.parent / f"wheel-{len(wheels)}"
            folder.mkdir()
            if isinstance(place, Repository):
                found = build_wheel(place, line.requirement.name, python, folder, BentoError)
            else:
                found = fetch_wheel(place, folder, BentoError)
            wheels[found.file.as_uri()] = found
        local = copy(line.requirement)
        local.url = found.file.as_uri()
        texts.append(rendered(replace(line, requirement=local)))
    file.write_text("".join(f"{text}\n" for text in texts), encoding="ascii")
    return file


def _with_addresses(lines: Iterable[str], wheels: Mapping[str, DirectWheel]) -> Iterator[str]:
    """Give the lines of a lock with the addresses of wheels where uv names their files."""
    for line in lines:
        name, at, rest = line.partition(" @ ")
        if not at:
            yield line
            continue
        place, _, end = rest.partition(" ")
        if place not in wheels:
            raise BentoError(
                f"The package {name} of the lock lies at an address that nobody asked for.",
                hint="Require it by name: add a requirement here.",
            )
        wheel = wheels[place]
        if isinstance(wheel.place, Repository):
            yield f"# {name} @ {wheel.place.text}"
        if isinstance(wheel.place, Address):
            yield f"{name} @ {wheel.place.text} {end}".rstrip()
        else:
            yield f"./{BUILT_WHEELS}/{wheel.file.name} {end}".rstrip()


def _lies_inside(wheel: DirectWheel) -> bool:
    return not isinstance(wheel.place, Address)


def _platform() -> str:
    machine = platform.machine().lower()
    return f"{'aarch64' if machine in ('aarch64', 'arm64') else 'x86_64'}-{_GLIBC}"


def _check_python(version: str) -> None:
    if not re.fullmatch(r"3\.[0-9]{1,2}", version):
        raise BentoError(
            f"{version!r} is no minor version of Python.", hint="Write it like '3.11'."
        )


def _reading(model: ModelVersion, sources: AllowedSources) -> Reading:
    return read_requirements(
        model.requirements,
        whose=_named(model),
        error=BentoError,
        sources=sources,
        constraints=_CONSTRAINTS,
    )


def _named(model: ModelVersion) -> str:
    return f"the model {cleaned(model.uri)}"


def _slim(line: str, logged_by: str = "") -> str:
    """Give a requirement with MLflow's slim distribution in place of the whole, without hashes."""
    match = None if "@" in line else _MLFLOW.match(line)
    if match is None:
        return line
    rest = line[match.end() :].partition(" --hash")[0]
    if not rest.strip() and logged_by and not Version(logged_by).is_prerelease:
        rest = f"=={logged_by}"
    exact = re.fullmatch(r"\s*==\s*(1\.[0-9.]+)\s*", rest)
    if exact and Version(exact[1]) < _FIRST_ON_PYTHON_310:
        rest = f"~={_FIRST_ON_PYTHON_310}"
    return f"mlflow-skinny{rest}"


def _mlflow_version(model: ModelVersion) -> str:
    with contextlib.suppress(InvalidVersion):
        return str(Version(model.mlflow_version)) if model.mlflow_version else ""
    raise BentoError(
        f"{shown(model.mlflow_version)!r}, by which {_named(model)} was logged, is no version of "
        "MLflow.",
        hint="Log the model again; mlflow_version stands in its MLmodel file.",
    )
