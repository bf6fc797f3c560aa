"""A walk through the opcodes of one pickle: what would be imported and called, nothing done.

It follows stack, marks and memo as Python's unpicklers do (`Lib/pickle.py`, `Modules/_pickle.c`).
Where both would go on it goes on; where it does not know what both would do, it says so.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from kfp_bento.runtime.scan.acts import ACTS
from kfp_bento.runtime.scan.arguments import KEYS, VALUES, Blob
from kfp_bento.runtime.scan.machine import End, Machine, Walked

if TYPE_CHECKING:
    from kfp_bento.runtime.scan.limits import Budget
    from kfp_bento.runtime.scan.source import Source

_MOST_BLOBS = 100_000
_LOOK_EVERY = 1 << 14


def walk(
    source: Source,
    start: int,
    budget: Budget,
    *,
    watched: frozenset[str] = frozenset(),
    joblib: bool = False,
) -> Walked:
    """Walk through the pickle that begins at a place.

    Args:
        source: What holds it.
        start: Where it begins.
        budget: What is left of the scan's limits.
        watched: Texts whose presence matters.
        joblib: Whether to read it as joblib does: with frames, and arrays in the stream.

    Raises:
        LimitReached: There is too much of it.
    """
    inner = partial(walk, source, budget=budget, watched=watched) if joblib else None
    machine = Machine(source, start, budget, inner)
    try:
        _run(machine, watched)
    except End as end:
        machine.found.problem = str(end)
    except (EOFError, ValueError, IndexError, KeyError) as failure:
        machine.fail_over_frame(ended=isinstance(failure, EOFError))
        machine.found.problem = str(failure) or "it is none of any Python"
    machine.found.end = machine.reader.position
    return machine.found


def _run(machine: Machine, watched: frozenset[str]) -> None:
    """Take one opcode after another, until one of them raises."""
    number = 0
    while True:
        if number % _LOOK_EVERY == 0:
            machine.look_at_limits()
        number += 1
        if 0 <= machine.frame_end <= machine.reader.position:
            machine.leave_frame()
        machine.began = machine.reader.position
        code = machine.reader.read(1)[0]
        if read := VALUES.get(code):
            value = read(machine.reader)
            machine.stack.append(value)
            if type(value) is str:
                if value in watched:
                    machine.found.texts.add(value)
            elif type(value) is Blob and len(machine.found.blobs) < _MOST_BLOBS:
                machine.found.blobs.append(value)
        elif code in KEYS:
            machine.use_memo(code, KEYS[code](machine.reader))
        elif act := ACTS.get(code):
            act(machine)
        else:
            raise ValueError(f"0x{code:02x} is no opcode")
