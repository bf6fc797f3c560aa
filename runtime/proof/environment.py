"""The environment that a bento's lock describes, made once for each lock and kept for the next."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kfp_bento.runtime.errors import BentoError, KfpBentoError
from kfp_bento.runtime.files import (
    own_folder,
    put_in_place,
    read_small_file,
    scratch_beside,
    scratch_inside,
)
from kfp_bento.runtime.programs import run_uv
from kfp_bento.runtime.proof.bytecode import lend_bytecode

if TYPE_CHECKING:
    import threading

    from kfp_bento.runtime.bentos import Bento

INSTALL_SECONDS = 1800.0
FIND_SECONDS = 60.0
MOST_KEPT = 8
"""Environments that are kept; of more, those that were not used for longest go."""

_LOCK_FILE = Path("env", "python", "requirements.txt")
_LOCK_LIMIT = 16 << 20
_DOWNLOADS = ("UV_PYTHON_DOWNLOADS", "UV_PYTHON_INSTALL_MIRROR")


def read_lock(bento: Bento) -> str:
    """Give the text of a bento's lock.

    Raises:
        BentoError: There is none.
    """
    try:
        return read_small_file(bento.directory / _LOCK_FILE, _LOCK_LIMIT).decode()
    except (OSError, ValueError) as error:
        raise BentoError(
            f"The lock {_LOCK_FILE} of the bento {bento.tag} cannot be read.",
            hint="Build the bento again.",
        ) from error


def find_python(minor: str, *, error: type[KfpBentoError] = BentoError) -> str:
    """Give an interpreter of a minor version: this one, or what uv finds on this machine.

    It is fetched only where the user set uv's own variables for that.

    Raises:
        KfpBentoError: There is none; as `error`.
    """
    if minor == f"{sys.version_info.major}.{sys.version_info.minor}":
        return sys.executable
    if any(os.environ.get(name, "never") != "never" for name in _DOWNLOADS):
        return minor
    with scratch_inside(Path(tempfile.gettempdir()), "kfp-bento-python-") as scratch:
        done = run_uv(
            ["python", "find", "--no-project", minor],
            doing=f"Looking for Python {minor}",
            directory=scratch,
            seconds=FIND_SECONDS,
            error=error,
        )
    if done.status or not done.output.strip():
        raise error(
            f"The bento is for Python {minor}, and there is no such interpreter on this machine.",
            hint=f"Install it (`uv python install {minor}`), build the bento for "
            f"Python {sys.version_info.major}.{sys.version_info.minor} with python_version, or "
            "switch verify off.",
        )
    return done.output.strip()


@contextlib.contextmanager
def locked_environment(
    bento: Bento,
    *,
    indexes: Sequence[str] = (),
    cache: Path | None = None,
    error: type[KfpBentoError] = BentoError,
    cancelled: threading.Event | None = None,
) -> Iterator[Path]:
    """Give the environment of a bento's lock for the length of a block.

    It is kept by the digest of the lock, and is there whole or not at all; of several processes
    that need the same one, one makes it and the others wait.

    Args:
        bento: The bento.
        indexes: Options for package indexes that the lock itself does not name.
        cache: Where it is kept, see `own_folder`; where nothing can be kept it is gone after the
            block.
        error: What to raise.
        cancelled: Ends the making early when set.

    Raises:
        KfpBentoError: It cannot be made; as `error`.
    """
    lock = read_lock(bento)
    interpreter = find_python(bento.python_version, error=error)
    kept = own_folder("environments", cache)
    with contextlib.ExitStack() as stack:
        if kept is None:
            scratch = scratch_inside(Path(tempfile.gettempdir()), "kfp-bento-environment-")
            made = stack.enter_context(scratch) / "environment"
            _make(made, bento, lock, interpreter, indexes, error, cancelled)
            yield made
            return
        facts = f"{lock}\0{bento.python_version}\0{interpreter}"
        environment = kept / hashlib.sha256(facts.encode()).hexdigest()[:16]
        with _alone(environment):
            if not environment.exists():
                with scratch_beside(environment) as made:
                    _make(made, bento, lock, interpreter, indexes, error, cancelled)
                    put_in_place(made, environment)
            use = os.open(environment, os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, use)
            fcntl.flock(use, fcntl.LOCK_SH)  # who makes room leaves it alone
            os.utime(environment)
        _make_room(kept)
        yield environment


def _make(
    made: Path,
    bento: Bento,
    lock: str,
    interpreter: str,
    indexes: Sequence[str],
    error: type[KfpBentoError],
    cancelled: threading.Event | None,
) -> None:
    options = [line for line in lock.splitlines() if line.startswith("--")]
    addresses = [option.partition("=")[2] for option in (*options, *indexes)]
    # Wheels in the bento are named from where its source is; accounts do not belong there.
    source = bento.directory.absolute() / "src"
    more = [option for option in indexes if option not in options]
    with scratch_inside(Path(tempfile.gettempdir()), "kfp-bento-uv-") as scratch:
        for arguments in (
            ["venv", "--quiet", "--no-project", "--relocatable", "--python", interpreter],
            [
                *("pip", "sync", "--quiet", "--require-hashes", "--only-binary", ":all:"),
                *("--directory", str(source), "--python", str(made / "bin" / "python"), *more),
            ],
        ):
            last = str(made if arguments[0] == "venv" else bento.directory.absolute() / _LOCK_FILE)
            done = run_uv(
                [*arguments, last],
                doing="Installing the bento's dependencies",
                directory=scratch,
                seconds=INSTALL_SECONDS,
                error=error,
                indexes=addresses,
                downloads=arguments[0] == "venv" and interpreter == bento.python_version,
                cancelled=cancelled,
            )
            if done.status:
                raise error(
                    "The bento's locked dependencies cannot be installed here: "
                    f"{done.last_lines()}",
                    hint="uv needs the package index (UV_DEFAULT_INDEX) or its cache for that.",
                )
    if interpreter == sys.executable:
        lend_bytecode(made)


@contextlib.contextmanager
def _alone(environment: Path) -> Iterator[None]:
    """Let nobody else make, or make room for, this environment meanwhile."""
    file = environment.with_name(f"{environment.name}.lock")
    handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _make_room(folder: Path) -> None:
    """Remove the environments that were not used for longest and that nobody uses now."""
    found = [path for path in folder.iterdir() if path.is_dir() and "." not in path.name]
    with contextlib.suppress(OSError):
        found.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for path in found[MOST_KEPT:]:
        with contextlib.suppress(OSError), _alone(path):
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                with scratch_beside(path) as gone:
                    path.rename(gone / "old")
            finally:
                os.close(handle)
