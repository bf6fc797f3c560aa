"""Directories of a run that nobody else on the machine can look into or change."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import stat
from pathlib import Path
from typing import TextIO

from kfp_bento.runtime.errors import LocalRunError


def private_directory(directory: Path) -> Path:
    """Make a directory that is ours alone, or make one that is there so.

    Args:
        directory: Where; directories above it are made as usual.

    Raises:
        LocalRunError: It is another user's, or others could write there: what it holds may be
            theirs.
    """
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        directory.mkdir(mode=0o700)
    except FileExistsError:
        # A symbolic link is fine where both it and what it leads to are ours.
        for found in (directory.lstat(), directory.stat()):
            if found.st_uid != os.getuid():
                raise LocalRunError(
                    f"{directory} belongs to another user.",
                    hint="Choose another directory for the run.",
                ) from None
        if not directory.is_dir() or writable_by_others(directory.stat()):
            raise LocalRunError(
                f"{directory} could be written by other users, so that what it holds may be "
                "theirs.",
                hint="Remove it, or choose another directory for the run.",
            ) from None
        directory.chmod(0o700)
    return directory


def exposed_at(path: Path, top: Path) -> Path | None:
    """Give the first place from `top` down to `path` where others can change what is there.

    Args:
        path: A resolved path of something that is there.
        top: A directory above it, or the path itself.

    Returns:
        None where nobody but us and root can change anything; besides the group of `top`, with
        whom whoever runs us shares that on purpose.
    """
    below = path.relative_to(top).parts
    for place in (top, *(top.joinpath(*below[: count + 1]) for count in range(len(below)))):
        found = place.lstat()
        ours = found.st_uid in (0, os.getuid())
        if not ours or writable_by_others(found, group=place != top):
            return place
        if found.st_uid == os.getuid() and not found.st_mode & 0o077:
            return None  # nobody else gets any further
    return None


def writable_by_others(found: os.stat_result, *, group: bool = True) -> bool:
    """Tell whether others can change a file, or replace what a directory of ours holds.

    A group that only we are in, as many systems give to each user, is nobody else; and in a
    sticky directory such as /tmp nobody can touch what is ours.

    Args:
        found: What the file system says of it.
        group: Whether its group counts.
    """
    if stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX:
        return False
    return _open_to_others(found, group=group)


def others_may_add(directory: Path) -> bool:
    """Tell whether others can put new files into a directory, sticky or not."""
    found = directory.stat()
    return _open_to_others(found) or found.st_uid not in (0, os.getuid())


def is_ours_alone(directory: Path) -> bool:
    """Tell whether a directory, and no link to one, is there that only we can enter."""
    try:
        found = directory.lstat()
    except OSError:
        return False
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
    return ours and not found.st_mode & 0o077


def _open_to_others(found: os.stat_result, *, group: bool = True) -> bool:
    shared = group and bool(found.st_mode & 0o020) and not _only_we_are_in(found.st_gid)
    return bool(found.st_mode & 0o002) or shared


def _only_we_are_in(group: int) -> bool:
    with contextlib.suppress(KeyError):
        us = pwd.getpwuid(os.getuid())
        known = grp.getgrgid(group)
        own = group == us.pw_gid and known.gr_name == us.pw_name
        return own and set(known.gr_mem) <= {us.pw_name}
    return False


def private_file(file: Path) -> TextIO:
    """Open a file for writing that only we can read; what was in it is gone."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(file, flags, 0o600)
    os.fchmod(descriptor, 0o600)
    return os.fdopen(descriptor, "w", encoding="utf-8")
