"""What the full MLflow asks for that mlflow-skinny, which stands in for it, says nothing of.

The models of a release were logged, and are tested by MLflow itself, within those bounds: NumPy 2
or pandas 3 break MLflow of before, and scikit-learn of before, without a word in their metadata.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution, distributions
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import Specifier
from packaging.utils import canonicalize_name
from packaging.version import Version

from kfp_bento.runtime.errors import BentoError
from kfp_bento.runtime.programs import run_uv

SETUPTOOLS = "setuptools<81"
"""The last ones with `pkg_resources`, which MLflow before 2.16 imports and nobody asks for."""

_SECONDS = 600.0
_FULL, _SLIM = "mlflow", "mlflow-skinny"
_SAID_BY_BOTH = ("mlflow", "packaging")
_PINNED = re.compile(r"^([A-Za-z0-9._-]+)==([^ \\;]+)", re.M)
_IMPORTS_PKG_RESOURCES = re.compile(rb"^[ \t]*(?:import|from)[ \t]+pkg_resources\b", re.M)
_REQUIRE_AT_LEAST = frozenset({"==", "===", ">=", ">", "~="})

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Bounds:
    """What a lock has to keep to besides what was asked for.

    Attributes:
        constraints: Requirement lines that bound packages without asking for them.
        requirements: Requirement lines that ask for what is missing.
    """

    constraints: tuple[str, ...] = ()
    requirements: tuple[str, ...] = ()


def missed_bounds(
    lock: str, requirements: Iterable[str], python: str, directory: Path, indexes: Sequence[str]
) -> Bounds | None:
    """Give the bounds of the full MLflow, if a lock with mlflow-skinny does not keep them.

    Where the user or a model says something else of a package, that counts.

    Args:
        lock: The text of the lock.
        requirements: What was locked.
        python: The minor version of the interpreter.
        directory: An existing scratch directory.
        indexes: Options for uv.
    """
    locked = {str(canonicalize_name(name)): value for name, value in _PINNED.findall(lock)}
    release = locked.get(_SLIM)
    if release is None or _FULL in locked:
        return None
    full = _installed(release) or _fetched(release, python, directory, indexes)
    if full is None:
        return None
    stated = _stated(requirements)
    bounds = {name: bound for name, bound in _bounds(full) if not _contradicts(stated, bound)}
    missing = (SETUPTOOLS,) if _needs_setuptools(full, locked, stated) else ()
    broken = any(
        name in locked and not bound.specifier.contains(locked[name], prereleases=True)
        for name, bound in bounds.items()
    )
    if not broken and not missing:
        return None
    lines = [f"{bound.name}{bound.specifier}" for _, bound in sorted(bounds.items())]
    return Bounds((f"{_SLIM}=={release}", *lines), missing)


def _installed(release: str) -> Distribution | None:
    try:
        found = distribution(_FULL)
    except PackageNotFoundError:
        return None
    return found if found.version == release else None


def _fetched(
    release: str, python: str, directory: Path, indexes: Sequence[str]
) -> Distribution | None:
    target = directory / "mlflow"
    done = run_uv(
        [
            *("pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:"),
            *("--python-version", python, "--target", str(target), *indexes),
            f"{_FULL}=={release}",
        ],
        doing="Reading what MLflow requires",
        directory=directory,
        seconds=_SECONDS,
        error=BentoError,
        indexes=[option.partition("=")[2] for option in indexes],
    )
    found = next(iter(distributions(name=_FULL, path=[str(target)])), None)
    if done.status or found is None:
        _log.warning(
            "The package index has no mlflow %s to read its bounds for NumPy, pandas and others "
            "from; the newest that fit the requirements are locked.",
            release,
        )
        return None
    return found


def _bounds(full: Distribution) -> Iterable[tuple[str, Requirement]]:
    for line in full.requires or ():
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue
        name = canonicalize_name(requirement.name)
        marker = requirement.marker
        applies = marker is None or marker.evaluate({"extra": "", "platform_system": "Linux"})
        if applies and requirement.specifier and not name.startswith(_SAID_BY_BOTH):
            yield name, requirement


def _stated(requirements: Iterable[str]) -> dict[str, list[Specifier]]:
    stated: dict[str, list[Specifier]] = {}
    for line in requirements:
        try:
            requirement = Requirement(line.partition(" --hash")[0])
        except InvalidRequirement:
            continue
        stated.setdefault(canonicalize_name(requirement.name), []).extend(requirement.specifier)
    return stated


def _contradicts(stated: dict[str, list[Specifier]], bound: Requirement) -> bool:
    """Tell whether somebody asks for a version of the package that the bound leaves out."""
    return any(
        not bound.specifier.contains(clause.version.removesuffix(".*"), prereleases=True)
        for clause in stated.get(canonicalize_name(bound.name), ())
        if clause.operator in _REQUIRE_AT_LEAST
    )


def _needs_setuptools(
    full: Distribution, locked: dict[str, str], stated: dict[str, list[Specifier]]
) -> bool:
    asked = Requirement(SETUPTOOLS)
    has = locked.get("setuptools")
    if (has and Version(has) in asked.specifier) or _contradicts(stated, asked):
        return False
    # Loading a model imports it, in every release that has it at all.
    module = Path(str(full.locate_file("mlflow/utils/requirements_utils.py")))
    try:
        return bool(_IMPORTS_PKG_RESOURCES.search(module.read_bytes()))
    except OSError:
        return False
