"""How a program ended that said nothing of it, and what helps against that."""

from __future__ import annotations

import contextlib
import re
import signal
from pathlib import Path

MEMORY_HINT = "Give the step, or this machine, more memory (set_memory_limit of the task)."

_CGROUP = Path("/sys/fs/cgroup")
_LIMITS = ("memory.max", "memory/memory.limit_in_bytes")
_EVENTS = ("memory.events", "memory/memory.oom_control")
_KILLS = re.compile(r"^oom_kill (\d+)$", re.M)
_NO_LIMIT = 1 << 60
"""Bytes; cgroup v1 writes "no limit" as a number near 2^63."""
_SHELL = 128
"""A shell says 128 + the signal that ended a program."""


def memory_limit() -> int | None:
    """Give the bytes of memory that this container may have; None where nothing limits it."""
    for name in _LIMITS:
        with contextlib.suppress(OSError):
            text = (_CGROUP / name).read_text().strip()
            if text.isdigit() and int(text) < _NO_LIMIT:
                return int(text)
    return None


def how_ended(status: int) -> str:
    """Say how a program ended that said nothing, as a part of a sentence.

    Args:
        status: Exit status; negative is the signal that ended it.
    """
    number = -status if status < 0 else status - _SHELL
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"it ended with status {status} without a word"
    if was_killed(status):
        return f"it was killed ({name}){_for_memory()}"
    return f"it was ended by {name}"


def was_killed(status: int | None) -> bool:
    """Say whether nothing but the kernel, or whoever else may, has ended a program."""
    return status in (-signal.SIGKILL, _SHELL + signal.SIGKILL)


def _for_memory() -> str:
    limit = memory_limit()
    allowed = "" if limit is None else f"; the limit is {limit / (1 << 20):.0f} MiB"
    certain = "" if _kills() else "probably "
    return f", {certain}for want of memory{allowed}"


def _kills() -> int:
    """Give how many processes of this container the kernel has killed for want of memory."""
    for name in _EVENTS:
        with contextlib.suppress(OSError):
            if found := _KILLS.search((_CGROUP / name).read_text()):
                return int(found[1])
    return 0
