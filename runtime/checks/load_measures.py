"""What a load comes to: percentiles, rates, latency over time, and how it is distributed."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_MOST_POINTS = 600
# The preferred numbers R10 (ISO 3): ten steps to a decade, the same for every run.
_STEPS = (1.0, 1.25, 1.6, 2.0, 2.5, 3.15, 4.0, 5.0, 6.3, 8.0)
BOUNDS_MS = tuple(step * 10**power for power in range(-2, 7) for step in _STEPS)


@dataclass(frozen=True)
class Samples:
    """What became of each request, in the order in which they ended.

    Attributes:
        ended: When, in seconds since the beginning.
        took_ms: How long it took, in milliseconds.
        failed: Places of those that have no right answer.
        users: How many users there were, second by second.
        ramp: Seconds until all of them asked.
        asked: Seconds until no more requests were made.
        enough: Whether there were as many requests as may be before the time was over.
        busy: Whether the process that asked was at its own limit.
        failures: The first failures, as JSON values.
    """

    ended: Sequence[float]
    took_ms: Sequence[float]
    failed: frozenset[int]
    users: Sequence[int]
    ramp: float
    asked: float
    enough: bool = False
    busy: bool = False
    failures: Sequence[Mapping[str, Any]] = field(default_factory=tuple)

    @classmethod
    def of(cls, result: Mapping[str, Any], ramp: float) -> Samples:
        """Read what `load_process.py` says."""
        return cls(
            [moment / 1e3 for moment in result["ended_ms"]],
            [microseconds / 1e3 for microseconds in result["took_us"]],
            frozenset(result["failed"]),
            result["users"],
            ramp,
            result["seconds"],
            result["enough"],
            result["busy"],
            result["failures"],
        )

    @property
    def measured(self) -> range:
        """The places of those that ended when all users asked; of all where there are none."""
        first = bisect_right(self.ended, self.ramp)
        return range(first if first < len(self.ended) else 0, len(self.ended))


def quantile(ordered: Sequence[float], share: float) -> float:
    """Give the value that a share of ordered ones do not exceed (the nearest rank)."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def load_measures(samples: Samples) -> dict[str, float]:
    """Give the measures of a load.

    Returns:
        `requests`, `failures` and `failure_ratio` of all requests. Of those that ended when all
        users asked, failed or not: `p50_ms`, `p95_ms`, `p99_ms`, `max_ms`, `mean_ms`; and right
        answers per second as `requests_per_second`. `seconds` until no more requests were made.
    """
    count, failed = len(samples.ended), len(samples.failed)
    found = {
        "requests": float(count),
        "failures": float(failed),
        "failure_ratio": round(failed / count, 6) if count else 1.0,
        "seconds": round(samples.asked, 3),
    }
    if not count:
        return {**found, "requests_per_second": 0.0}
    places = samples.measured
    taken = sorted(samples.took_ms[place] for place in places)
    shares = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99, "max_ms": 1.0}
    latencies = {name: round(quantile(taken, share), 3) for name, share in shares.items()}
    mean = round(math.fsum(taken) / len(taken), 3)
    return {**found, **latencies, "mean_ms": mean, "requests_per_second": _rate(samples)}


def _rate(samples: Samples) -> float:
    """Give right answers per second; those that came after the last request was made do not count.

    Where there were enough requests before the time was over, the last of them end the time.
    """
    places = samples.measured
    start = samples.ramp if places.start or samples.ended[0] > samples.ramp else 0.0
    end = samples.ended[-1] if samples.enough else samples.asked
    right = sum(1 for one in places if one not in samples.failed and samples.ended[one] <= end)
    return round(right / max(end - start, 1e-3), 3)


def over_time(samples: Samples) -> list[dict[str, float]]:
    """Give the load second by second, or in longer steps where there are too many seconds.

    Returns:
        For each step `second` (when it begins), `seconds` (how long it is; the last one has what
        is left), `users`, `requests`, `failures`, `requests_per_second` (right answers), and
        `p50_ms` and `p95_ms` where requests ended in it.
    """
    last = max(samples.ended[-1] if samples.ended else 0.0, samples.asked)
    width = max(1, math.ceil(last / _MOST_POINTS))
    steps: list[list[int]] = [[] for _ in range(max(1, round(last / width)))]
    for place, moment in enumerate(samples.ended):
        steps[min(int(moment // width), len(steps) - 1)].append(place)
    lengths = [float(width)] * (len(steps) - 1) + [last - (len(steps) - 1) * width]
    return [
        _step(samples, number * width, length, places)
        for number, (length, places) in enumerate(zip(lengths, steps, strict=True))
    ]


def _step(samples: Samples, second: int, length: float, places: Sequence[int]) -> dict[str, float]:
    taken = sorted(samples.took_ms[place] for place in places)
    failed = sum(1 for place in places if place in samples.failed)
    users = samples.users[second : second + math.ceil(length)]
    shares = {"p50_ms": 0.5, "p95_ms": 0.95} if taken else {}
    return {
        "second": second,
        "seconds": round(length, 3),
        "users": max(users, default=0),
        "requests": len(places),
        "failures": failed,
        "requests_per_second": round((len(places) - failed) / max(length, 1e-3), 3),
        **{name: round(quantile(taken, share), 3) for name, share in shares.items()},
    }


def histogram(samples: Samples) -> list[dict[str, float]]:
    """Give how many of the measured requests took how long, in buckets without a gap.

    Returns:
        `from_ms`, `to_ms` (not included) and `requests` of each.
    """
    counts: dict[int, int] = {}
    for place in samples.measured if samples.ended else ():
        bucket = min(bisect_right(BOUNDS_MS, samples.took_ms[place]), len(BOUNDS_MS) - 1)
        counts[bucket] = counts.get(bucket, 0) + 1
    if not counts:
        return []
    return [
        {
            "from_ms": round(BOUNDS_MS[bucket - 1], 4) if bucket else 0.0,
            "to_ms": round(BOUNDS_MS[bucket], 4),
            "requests": counts.get(bucket, 0),
        }
        for bucket in range(min(counts), max(counts) + 1)
    ]
