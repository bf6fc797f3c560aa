"""What a model says that it needs: interpreter and packages, of pip and conda, for pip."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.errors import ModelError
from kfp_bento.runtime.files import YAML_LIMIT, parse_yaml, read_small_file, reading
from kfp_bento.runtime.models.conda import CondaPackage, parse_conda_package
from kfp_bento.runtime.models.mlmodel import version_text
from kfp_bento.runtime.models.text import checked_text

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

ENVIRONMENT_FILES = frozenset(
    {
        *("requirements.txt", "constraints.txt", "original_requirements.txt"),
        *("conda.yaml", "python_env.yaml", "pyproject.toml", "uv.lock"),
    }
)
"""Files in which MLflow writes where packages come from, with accounts if somebody gave one."""

ENVIRONMENT_LIMIT = 16 << 20
_REQUIREMENTS_LIMIT = 4 << 20
_MOST_PACKAGES = 20_000
_LONGEST_PACKAGE = 1_000
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
# Names of variables in an account are no secrets, and refused where lines are read.
_ACCOUNT = re.compile(r"(?<=://)(?!(?:\$\{\w+\}:?)+@)[^/\s\"'\\]*@")
_QUERY = re.compile(r"(://[^\s\"'?#\\]*\?)(?!\*\*\*)[^\s\"'#\\]+")
_PREFIX = re.compile(r"^prefix:.*(?:\n|\Z)", re.M)

_log = logging.getLogger(__name__)


def stated_python(directory: Path) -> str:
    """Give the interpreter that `python_env.yaml`, or else `conda.yaml`, states, or ""."""
    stated = _yaml(directory / "python_env.yaml").get("python")
    if stated:
        return version_text(stated, "python_env.yaml")
    packages = (package for package in _conda_packages(directory) if package.name == "python")
    return version_text(next((package.pinned for package in packages), ""), "conda.yaml")


def stated_requirements(directory: Path) -> tuple[str, ...]:
    """Give what a model needs as requirement lines, without comments, blank ones and accounts.

    They are those of `requirements.txt`, and what `conda.yaml` adds: packages that pip knows by the
    same name or a known other one; of models logged before MLflow 1.19 its pip part too. Conda
    packages that pip has no known name for are in `unknown_conda_packages`.

    Raises:
        ModelError: A file is too large, or has control characters.
    """
    content = _beside(directory / "requirements.txt", _REQUIREMENTS_LIMIT)
    lines = (
        _conda_pip_lines(directory)
        if content is None
        else content.decode("utf-8-sig", "replace").splitlines()
    )
    stripped = (line.strip() for line in lines)
    checked = [
        checked_text(line.expandtabs(1), "A requirement of the model", longest=8_192)
        for line in stripped
        if line and not line.startswith("#")
    ]
    named = {_distribution(line) for line in checked}
    for package in _conda_packages(directory):
        if package.requirement and package.distribution not in named:
            checked.append(package.requirement)
    clean = tuple(without_accounts(line) for line in checked)
    if any(_ACCOUNT.search(line) or _QUERY.search(line) for line in checked):
        _log.warning(
            "The model's requirements hold an account or a token for a package index. It is not "
            "used and not kept: accounts belong into UV_INDEX or a netrc file where bentos are "
            "built. Whoever can read the registry can read it: change that password."
        )
    return clean


def unknown_conda_packages(directory: Path, known: Iterable[str] = ()) -> tuple[str, ...]:
    """Give the conda packages of a model, as written, that pip has no known name for.

    Args:
        directory: The model's directory.
        known: Names that somebody answered for.

    Raises:
        ModelError: As `stated_requirements` says.
    """
    answered = {_distribution(name) for name in known}
    answered |= {_distribution(line) for line in stated_requirements(directory)}
    return tuple(
        package.text
        for package in _conda_packages(directory)
        if not package.requirement
        and not package.is_provided
        and package.distribution not in answered
    )


def without_accounts(text: str) -> str:
    """Give text without users, passwords and tokens in its addresses.

    Args:
        text: Requirement lines, or a file of them.
    """
    return _QUERY.sub(r"\1***", _ACCOUNT.sub("", text))


def portable_environment(name: str, content: bytes) -> bytes:
    """Give one of `ENVIRONMENT_FILES` without accounts and without a path of the machine.

    Args:
        name: The file's name.
        content: What it holds.
    """
    text = content.decode("utf-8", "surrogateescape")
    clean = without_accounts(text)
    if name == "conda.yaml":  # `conda env export` says where the environment was
        clean = _PREFIX.sub("", clean)
    return clean.encode("utf-8", "surrogateescape")


def _conda_entries(directory: Path) -> list[Any]:
    entries = _yaml(directory / "conda.yaml").get("dependencies")
    return entries[:_MOST_PACKAGES] if isinstance(entries, list) else []


def _conda_pip_lines(directory: Path) -> list[str]:
    parts = (entry for entry in _conda_entries(directory) if isinstance(entry, dict))
    lines = (part["pip"] for part in parts if isinstance(part.get("pip"), list))
    return [str(line) for line in next(lines, [])]


def _conda_packages(directory: Path) -> list[CondaPackage]:
    return [
        parse_conda_package(
            checked_text(entry, "A package in conda.yaml", longest=_LONGEST_PACKAGE)
        )
        for entry in _conda_entries(directory)
        if isinstance(entry, str) and entry.strip()
    ]


def _distribution(line: str) -> str:
    match = _NAME.match(line.strip())
    return re.sub(r"[-_.]+", "-", match[0]).lower() if match else ""


def _yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping beside `MLmodel`; {} where there is none."""
    content = _beside(path, YAML_LIMIT)
    with reading(
        f"The model's {path.name} is not valid YAML",
        ModelError,
        hint="Log the model again, or take the file out of it.",
    ):
        data = parse_yaml(content or b"")
    return data if isinstance(data, dict) else {}


def _beside(path: Path, limit: int) -> bytes | None:
    """Read a file beside `MLmodel`; None where there is none."""
    if not path.exists():
        return None
    hint = "Pull the model again, or log it again."
    with reading(f"The model's {path.name} cannot be read", ModelError, hint=hint):
        return read_small_file(path, limit)
