"""Processes that a program of ours has started, also those in sessions of their own.

BentoML's workers lead sessions, so that signals to the group that we started do not reach them: who
stops them is their parent, and only if it has the time.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable
from dataclasses import dataclass

from kfp_bento.runtime.local.listening import PROC, processes


@dataclass(frozen=True)
class Descendant:
    """A process; its start tells it from a later one with the same number (proc(5), stat)."""

    number: int
    parent: int
    started: str


def descendants(leader: int) -> list[Descendant]:
    """Give the processes below one, children before grandchildren."""
    known = [one for number in processes() if (one := _process(number)) is not None]
    found: list[Descendant] = []
    parents = {leader}
    while below := [one for one in known if one.parent in parents and one not in found]:
        found += below
        parents = {one.number for one in below}
    return found


def kill_left(processes: Iterable[Descendant]) -> None:
    """Kill those of some processes that are still there."""
    for one in processes:
        now = _process(one.number)
        if now is not None and now.started == one.started:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(one.number, signal.SIGKILL)


def _process(number: int) -> Descendant | None:
    try:
        # The name, in parentheses, may hold anything.
        fields = (PROC / str(number) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return Descendant(number, int(fields[1]), fields[19])
