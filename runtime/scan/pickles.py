"""All pickles of a file: one after another, as pickle, joblib and torch would read them."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING

from kfp_bento.runtime.scan.acts import NEWEST_PROTOCOL
from kfp_bento.runtime.scan.machine import OVER_FRAME, Walked
from kfp_bento.runtime.scan.walk import walk

if TYPE_CHECKING:
    from kfp_bento.runtime.scan.arguments import Blob
    from kfp_bento.runtime.scan.limits import Budget
    from kfp_bento.runtime.scan.source import Source
    from kfp_bento.runtime.scan.values import Name

# torch's own format before it took zip files: five pickles, then the bytes of the tensors.
_TORCH_MAGIC = 0x1950A86A20F9469CFC6C
_TORCH_PICKLES = 5
_MOST_PICKLES = 10_000


@dataclass
class Pickled:
    """What the pickles of a file would do.

    Attributes:
        names: What they import, and whether they call it.
        asked: Module and name of each import as they are written.
        puzzles: What they do that cannot be followed, in words.
        texts: Which of the watched texts they hold.
        blobs: Bytes in them, where and how many.
        acts: Whether they call anything.
        whole: Whether the first one ends as a pickle does.
        problem: Why not, or what stands behind the last one.
    """

    names: dict[Name, bool] = field(default_factory=dict)
    asked: set[tuple[str, str]] = field(default_factory=set)
    puzzles: dict[str, None] = field(default_factory=dict)
    texts: set[str] = field(default_factory=set)
    blobs: list[Blob] = field(default_factory=list)
    acts: bool = False
    whole: bool = False
    problem: str = ""

    def add(self, walked: Walked) -> None:
        """Add what one more pickle does."""
        for name, called in walked.names.items():
            self.names[name] = called or self.names.get(name, False)
        self.asked |= walked.asked
        self.puzzles.update(walked.puzzles)
        self.texts |= walked.texts
        self.blobs += walked.blobs
        self.acts |= walked.acts


def looks_like_pickle(head: bytes) -> bool:
    """Tell whether something begins as pickles of protocol 2 or newer do."""
    return len(head) > 1 and head[0] == 0x80 and head[1] <= NEWEST_PROTOCOL


def read_pickles(
    source: Source, start: int, budget: Budget, *, watched: frozenset[str] = frozenset()
) -> Pickled:
    """Walk through the pickle that begins at a place, and through those behind it.

    Args:
        source: What holds them.
        start: Where the first one begins.
        budget: What is left of the scan's limits.
        watched: Texts whose presence matters.

    Raises:
        LimitReached: There is too much.
    """
    found = Pickled()
    place, torch = start, False
    for number in range(_MOST_PICKLES):
        budget.look_at_clock()
        walked = _both_ways(source, place, budget, watched, found)
        if number == 0:
            found.whole, found.problem = walked.whole, walked.problem
            torch = walked.value == _TORCH_MAGIC
        elif not walked.whole:
            found.problem = f"{source.size - place} bytes stand behind its end"
        if not walked.whole or walked.end >= source.size:
            break
        if torch and number + 1 == _TORCH_PICKLES:
            break
        place = walked.end
    else:
        found.problem = f"it holds more than {_MOST_PICKLES} pickles"
    return found


def _both_ways(
    source: Source, place: int, budget: Budget, watched: frozenset[str], found: Pickled
) -> Walked:
    """Walk as pickle does, and as joblib does where that makes a difference.

    joblib reads arrays out of the stream. Which of the two a loader is, nobody knows here; so
    what either would import counts, and it is enough that one of them comes to the end.
    """
    plain = walk(source, place, budget, watched=watched)
    if not plain.arrays:
        found.add(plain)
        return plain
    as_joblib = walk(source, place, budget, watched=watched, joblib=True)
    if as_joblib.whole:
        _leave_out_noise(plain)
    found.add(plain)
    found.add(as_joblib)
    return as_joblib if as_joblib.whole else plain


def _leave_out_noise(plain: Walked) -> None:
    """Leave out what nobody could import of a stream that only joblib reads to its end.

    An array of objects is a pickle of its own there, with its own memo. Read as one with the rest
    it names modules that there are not, or looks for `dtype` in another one, and fails.
    """
    names, puzzles = plain.before
    plain.names = {
        name: called
        for name, called in plain.names.items()
        if name in names or (name.name != "dtype" and _importable(name.module.partition(".")[0]))
    }
    plain.puzzles = {words: None for words in plain.puzzles if words in puzzles | {OVER_FRAME}}


def _importable(module: str) -> bool:
    """Tell whether there is a module of that name, without importing it."""
    try:
        return module in sys.stdlib_module_names or find_spec(module) is not None
    except (ImportError, ValueError):
        return False
