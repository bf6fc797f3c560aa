"""A bento that somebody else built gets one lock with hashes, and loses what it was built with.

BentoML pins versions at best, and in several places: what its image would install is read as its
own Dockerfiles do (`install.sh` of BentoML 1.0 to 1.3, `base_v2.j2` of 1.4). Nothing of it is run.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from packaging.requirements import Requirement
from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from kfp_bento.runtime.bentos.bento import LOCK_FILE
from kfp_bento.runtime.bentos.bento_file import BentoFile, change_bento_file
from kfp_bento.runtime.bentos.lock import (
    BUILT_WHEELS,
    index_options,
    lock_requirements,
    requirement_texts,
    users_requirements,
)
from kfp_bento.runtime.bentos.tree import remove_traces
from kfp_bento.runtime.errors import BentoError
from kfp_bento.runtime.files import file_sha256, read_small_file
from kfp_bento.runtime.models import model_files
from kfp_bento.runtime.requirements import (
    SEPARATORS,
    AllowedSources,
    DirectWheel,
    Reading,
    allowed_sources,
    check_metadata,
    distribution_name,
    joined_lines,
    read_requirements,
)

_LISTS = ("requirements.lock.txt", "requirements.txt")
"""In the order in which BentoML looks for what to install."""

_LIMIT = 16 << 20
_SMALL = 1 << 20
_INDEX = re.compile(r"(-i|--index-url|--extra-index-url|-f|--find-links)[= \t]+(\S+)")
_ACCOUNT = re.compile(r"://([^/\s@]+@)")
_INSIDE = re.compile(r"(?:\./)?wheels/([A-Za-z0-9][^\s/;]*)")
_WAY_OUT = (
    "Name what goes together: --requirement 'NAME==VERSION' (requirements=) stands in place of the "
    "line of the bento that names the same package, and may be repeated."
)

# What BentoML before 1.4 does not say of what it needs; its own lists would install the newest.
# Since, before, and what it needs then.
_PERIOD = (
    ("1.0", "1.4", "setuptools<81"),  # `fs` imports pkg_resources
    ("1.2", "1.3.10", "pydantic<2.8"),  # it looks into pydantic's own modules
    ("1.0", "1.1", "cattrs<23.2"),  # or bento.yaml is read without name and version
)


@dataclass(frozen=True)
class Relocking:
    """How a bento's requirements are locked.

    Attributes:
        requirements: Of the user; each stands in place of the bento's line for the same package.
        allow_sources: Beginnings of addresses that the bento's own requirements may name.
        indexes: Whether the package indexes that the bento names count.
    """

    requirements: Sequence[str] = ()
    allow_sources: Sequence[str] = ()
    indexes: bool = True


@dataclass(frozen=True)
class _Listed:
    """What a bento would install.

    Attributes:
        lines: Requirements and options, without indexes that mean nothing here.
        wheels: Files in the bento.
        accounts: `user:password@` of indexes that the bento names.
        notes: What was left out, for people.
    """

    lines: tuple[str, ...]
    wheels: tuple[Path, ...]
    accounts: tuple[str, ...]
    notes: tuple[str, ...]


def is_locked(directory: Path) -> bool:
    """Say whether a bento has one list, BentoML in it, and a hash for each requirement."""
    folder = directory / Path(LOCK_FILE).parent
    if (folder / _LISTS[0]).is_file() or [*folder.glob("wheels/*")]:
        return False
    if not (folder / _LISTS[1]).is_file():
        return False
    lines = [line for line in _joined(folder / _LISTS[1]) if not line.startswith("-")]
    named = {distribution_name(line.rpartition("/")[2]) for line in lines}
    bentoml = any(name == "bentoml" or name.startswith("bentoml-") for name in named)
    return bentoml and all("--hash=" in line for line in lines)


def lock_foreign(
    directory: Path, file: BentoFile, wanted: Relocking, work: Path
) -> tuple[str, ...]:
    """Lock a bento's requirements with hashes, and take the traces of its build away.

    Args:
        directory: The bento, which is changed.
        file: Its `bento.yaml`.
        wanted: What the user says to it.
        work: An empty scratch directory.

    Returns:
        What people are to be told.

    Raises:
        BentoError: A requirement cannot be kept, no versions go together, or it is not said for
            which Python.
    """
    listed = _listed(directory, wanted.indexes)
    sources = allowed_sources(wanted.allow_sources)
    reading = _reading(listed, f"{file.name}:{file.version}", sources)
    own = _users(wanted, sources)
    wheels = [_local_wheel(wheel, directory) for wheel in listed.wheels]
    needed = _needed(file, requirement_texts(reading), own, wheels)
    lock = lock_requirements(
        needed, [], _python(file), work, index_options(reading), wheels=wheels, way_out=_WAY_OUT
    )
    _write(directory, lock, work)
    cleared = _without_accounts(directory, listed.accounts)
    locked = sum("==" in line or line.startswith("./") for line in lock.splitlines())
    return (
        f"Locked with hashes: {locked} packages.",
        *listed.notes,
        *_told_of_period(file, listed.lines),
        *_told_of_accounts(cleared),
        *_told_of_today(file, listed.lines, own),
    )


def _reading(listed: _Listed, tag: str, sources: AllowedSources) -> Reading:
    try:
        return read_requirements(
            listed.lines, whose=f"the bento {tag}", error=BentoError, sources=sources
        )
    except BentoError as error:
        if not any(_INDEX.fullmatch(line) for line in listed.lines):
            raise
        hint = f"{error.hint} Where yours has all that is needed: --without index."
        raise BentoError(error.message, hint=hint) from None


def _users(wanted: Relocking, sources: AllowedSources) -> list[str]:
    reading = users_requirements(wanted.requirements, "the import", sources, indexes=False)
    return requirement_texts(reading)


def _python(file: BentoFile) -> str:
    found = re.fullmatch(r"(3\.[0-9]{1,2})(?:\..*)?", file.python_version)
    if found is None:
        raise BentoError(
            f"The bento {file.name}:{file.version} does not say which Python it needs "
            f"({file.at(file.section, 'python_version')}).",
            hint="Build it again with python_version set.",
        )
    return found[1]


def _listed(directory: Path, indexes: bool) -> _Listed:
    folder = directory / Path(LOCK_FILE).parent
    name = next((name for name in _LISTS if (folder / name).is_file()), "")
    kept: list[str] = []
    wheels: list[Path] = sorted(folder.glob("wheels/*"))
    accounts: list[str] = []
    notes: list[str] = []
    for line in _joined(folder / name) if name else ():
        accounts += _ACCOUNT.findall(line) if line.startswith("-") else []
        inside = _INSIDE.fullmatch(line.partition(" ")[0])
        option = _INDEX.fullmatch(line)
        if inside:
            wheels.append(_inside(directory, inside[1]))
        elif option and _is_public(option[2]):
            continue  # which index stands for it is configured where the bento is taken in
        elif option and not indexes:
            notes.append(f"Left out: the bento's own {option[1]}.")
        elif option and "://" not in option[2]:
            notes.append(f"Left out: {option[1]} of the machine that built it.")
        else:
            kept.append(line)
    return _Listed(tuple(kept), tuple(dict.fromkeys(wheels)), tuple(accounts), tuple(notes))


def _is_public(index: str) -> bool:
    """Tell whether an index is the public one, which BentoML writes down where none was chosen."""
    parts = urlsplit(index)
    name, *domain = (parts.hostname or "").split(".")
    whole = parts.scheme == "https" and parts.path.rstrip("/") == "/simple"
    return whole and name == "pypi" and len(domain) == 1 and not parts.query


def _inside(directory: Path, name: str) -> Path:
    places = [directory / "src" / BUILT_WHEELS / name, directory / "env/python/wheels" / name]
    return next((place for place in places if place.is_file()), places[0])


def _joined(path: Path) -> list[str]:
    try:
        text = read_small_file(path, _LIMIT).decode()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise BentoError(
            f"The requirements {path.name} of the bento cannot be read: {reason}.",
            hint="Export the bento again.",
        ) from None
    return [*joined_lines(SEPARATORS.split(text))]


def _local_wheel(path: Path, directory: Path) -> DirectWheel:
    shown = path.relative_to(directory).as_posix()
    try:
        parse_wheel_filename(path.name)
        inside = path.resolve().is_relative_to(directory.resolve()) and path.is_file()
    except InvalidWheelFilename:
        inside = False
    if not inside:
        raise BentoError(
            f"{shown!a} in the bento is no wheel, and nothing is built here.",
            hint="Build a wheel of it (`pip wheel --no-deps`), put it in its place in the archive, "
            "or publish it and require it by name: --requirement 'NAME==VERSION'.",
        )
    check_metadata(path, shown, BentoError)
    return DirectWheel(None, path, file_sha256(path))


def _needed(
    file: BentoFile, lines: Sequence[str], own: Sequence[str], wheels: Iterable[DirectWheel]
) -> list[str]:
    """Give what is to be locked: the user's lines before the bento's, and what BentoML needs."""
    replaced = {distribution_name(line) for line in own}
    kept = [line for line in lines if distribution_name(line) not in replaced]
    bounds = [bound for bound in _period(file) if bound.name not in replaced]
    needed = [line for line in kept if not any(_contradicts(line, bound) for bound in bounds)]
    needed += [*own, *map(str, bounds)]
    named = {distribution_name(line) for line in needed}
    named |= {str(parse_wheel_filename(wheel.file.name)[0]) for wheel in wheels}
    if "bentoml" not in named:
        needed.append(_bentoml(file))
    return list(dict.fromkeys(needed))


def _bentoml(file: BentoFile) -> str:
    try:
        return f"bentoml=={Version(file.bentoml_version).public}"
    except InvalidVersion:
        raise BentoError(
            f"The bento {file.name}:{file.version} does not say by which BentoML it was built.",
            hint="Say which one it runs with: --requirement 'bentoml==VERSION' (requirements=).",
        ) from None


def _period(file: BentoFile) -> Iterator[Requirement]:
    """Give bounds that BentoML of that time does not state, and needs."""
    try:
        built_by = Version(file.bentoml_version)
    except InvalidVersion:
        return
    for since, before, bound in _PERIOD:
        if Version(since) <= built_by < Version(before):
            yield Requirement(bound)


def _contradicts(line: str, bound: Requirement) -> bool:
    """Say whether a line pins a version that BentoML of that time cannot run with."""
    pinned = re.match(r"[A-Za-z0-9._-]+\s*==\s*([^\s;*]+)", line)
    if distribution_name(line) != bound.name or pinned is None:
        return False
    try:
        return not bound.specifier.contains(pinned[1], prereleases=True)
    except InvalidVersion:
        return False


def _write(directory: Path, lock: str, work: Path) -> None:
    remove_traces(directory)
    if (work / BUILT_WHEELS).is_dir():
        (directory / "src").mkdir(exist_ok=True)
        shutil.copytree(work / BUILT_WHEELS, directory / "src" / BUILT_WHEELS, dirs_exist_ok=True)
    shutil.rmtree(directory / "env/python/wheels", ignore_errors=True)
    path = directory / LOCK_FILE
    path.unlink(missing_ok=True)  # it may be a link to another file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(lock, encoding="utf-8")
    change_bento_file(directory, lambda data: _settle(data, lock))


def _settle(data: dict[str, Any], lock: str) -> None:
    """Let `bento.yaml` say nothing else than the lock; indexes and options are in it, or gone."""
    image, python = data.get("image"), data.get("python")
    if isinstance(image, dict):
        image["python_requirements"] = lock
    if isinstance(python, dict):
        for key in ("wheels", "pip_args", "index_url", "extra_index_url", "find_links", "no_index"):
            if key in python:
                python[key] = None


def _without_accounts(directory: Path, accounts: Sequence[str]) -> list[str]:
    """Take accounts of indexes out of the bento's own files; gives which had one."""
    changed = []
    files = model_files(directory, leave_out=frozenset()) if accounts else {}
    for relative, path in files.items():
        if relative.startswith("models/") or path.stat().st_size > _SMALL:
            continue
        content = clean = path.read_bytes()
        for account in accounts:
            clean = clean.replace(f"://{account}".encode(), b"://")
        if clean != content:
            path.write_bytes(clean)
            changed.append(relative)
    return changed


def _told_of_accounts(changed: Sequence[str]) -> Iterator[str]:
    if changed:
        yield (
            f"The account of a package index was taken out of {', '.join(changed)}; whoever had "
            "the bento could read it, so change its password."
        )


def _told_of_period(file: BentoFile, lines: Sequence[str]) -> Iterator[str]:
    for bound in _period(file):
        for line in lines:
            if _contradicts(line, bound):
                pinned = f"{line.partition(' ')[0]}: {bound} is taken"
                yield f"BentoML {file.bentoml_version} does not run with {pinned}."


def _told_of_today(file: BentoFile, lines: Sequence[str], own: Sequence[str]) -> Iterator[str]:
    """Say that versions are of today where the bento left them open."""
    open_ones = [line for line in lines if "==" not in line and not line.startswith(("-", "./"))]
    day = file.created[:10]
    if open_ones and re.fullmatch(r"\d{4}-\d\d-\d\d", day):
        yield (
            f"The bento did not pin {len(open_ones)} of its requirements: today's versions were "
            f"taken. UV_EXCLUDE_NEWER={day} takes those of the day it was built."
        )
