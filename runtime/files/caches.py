"""Folders of the cache on this machine that are ours alone."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import stat
from pathlib import Path

CACHE_VARIABLE = "KFP_BENTO_CACHE"


def own_folder(name: str, cache: Path | None = None) -> Path | None:
    """Give a folder of the cache that is ours alone; None where there can be none.

    Args:
        name: The folder's name.
        cache: What it lies in; by default `KFP_BENTO_CACHE`, else the user's own cache.
    """
    home = os.environ.get("HOME", "")
    usual = os.environ.get("XDG_CACHE_HOME") or (home and f"{home}/.cache")
    named = str(cache or os.environ.get(CACHE_VARIABLE, ""))
    place = named or (usual and f"{usual}/kfp-bento")
    if not place or (not Path(place).is_absolute() and not named):
        return None
    folder = Path(place).absolute() / name
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
        ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
        if ours and not found.st_mode & 0o077 and os.access(folder, os.W_OK):
            return folder
    return None


def keep_latest(folder: Path, pattern: str, most: int) -> None:
    """Remove the files that were not used for longest, beyond a number of them."""
    with contextlib.suppress(OSError):
        found = [(path.stat().st_mtime, path) for path in folder.glob(pattern)]
        for _, path in sorted(found, reverse=True)[most:]:
            path.unlink(missing_ok=True)


@functools.cache
def code_digest(folder: Path) -> str:
    """Give the digest of a folder's Python files: another version of them may do otherwise."""
    files = sorted(folder.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
