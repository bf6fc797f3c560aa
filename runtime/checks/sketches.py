"""Columns of any length in little memory: a sample of numbers, and the values that are frequent."""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np

SAMPLE = 20_000
"""Numbers that are kept of a column: quantiles of shorter ones are exact."""
CANDIDATES = 10_000
"""Different values that are counted at a time."""


class Sample:
    """An even sample of a stream of numbers; the same stream gives the same sample.

    Each number draws a lot, and the lowest stay; how the stream is cut makes no difference.
    """

    def __init__(self) -> None:
        import numpy as np

        self._lots = np.random.Generator(np.random.PCG64(0))
        self._drawn = np.empty(0)
        self.values = np.empty(0)

    def add(self, values: np.ndarray) -> None:
        """Take some numbers, shape (n,)."""
        import numpy as np

        drawn = np.concatenate([self._drawn, self._lots.random(len(values))])
        values = np.concatenate([self.values, values])
        if len(values) > SAMPLE:
            kept = np.argpartition(drawn, SAMPLE)[:SAMPLE]
            kept.sort()
            drawn, values = drawn[kept], values[kept]
        self._drawn, self.values = drawn, values


@dataclass
class Moments:
    """Count, mean and spread of a stream of numbers, put together piece by piece.

    By Chan, Golub and LeVeque (1979), so that large numbers lose nothing.
    """

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    least: float = float("inf")
    most: float = float("-inf")

    def add(self, values: np.ndarray) -> None:
        """Take some finite numbers, shape (n,)."""
        if not len(values):
            return
        count, mean = len(values), float(values.mean())
        squares = float(((values - mean) ** 2).sum())
        apart, whole = mean - self.mean, self.count + count
        self.squares += squares + apart**2 * self.count * count / whole
        self.mean += apart * count / whole
        self.count = whole
        self.least = min(self.least, float(values.min()))
        self.most = max(self.most, float(values.max()))

    @property
    def deviation(self) -> float:
        """Standard deviation of the numbers themselves, not an estimate for others."""
        return float((self.squares / self.count) ** 0.5) if self.count else 0.0


@dataclass
class Frequent:
    """The values of a stream that are frequent, whatever their order.

    After Misra and Gries (1982), merged as by Agarwal et al. (2012): each value that makes up more
    than one of `CANDIDATES` is among the candidates in the end.
    """

    candidates: Counter[str] = field(default_factory=Counter)
    complete: bool = True

    def add(self, values: Iterable[tuple[str, int]]) -> None:
        """Take different values with their numbers."""
        for value, count in values:
            self.candidates[value] += count
        if len(self.candidates) > CANDIDATES:
            self.complete = False
            taken = heapq.nlargest(CANDIDATES + 1, self.candidates.values())[-1]
            left = {one: count - taken for one, count in self.candidates.items() if count > taken}
            self.candidates = Counter(left)
