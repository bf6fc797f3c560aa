"""Charts as shares of their own width and height, so that a page can stretch them to any window.

Shapes go into an SVG that is stretched; texts stay outside of it, where they keep their size.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

_MOST_LABELS = 6
_FIRST_DECADE = 1e-9

Point = tuple[float, float]


@dataclass(frozen=True)
class Tick:
    """A label at an axis; `at` is its place in percent, from the left or from below."""

    at: float
    text: str


@dataclass(frozen=True)
class Bar:
    """A bar in percent: left edge, width, height of all and of the failed part, and its words."""

    left: float
    width: float
    height: float
    failed: float
    title: str


@dataclass(frozen=True)
class Axis:
    """A vertical axis from 0 to `top`, with a few round ticks."""

    top: float
    ticks: tuple[Tick, ...]

    def height(self, value: float) -> float:
        """Give where a value is, in percent from below."""
        return round(min(100.0, 100 * value / self.top), 3)


def axis(highest: float) -> Axis:
    """Give the axis that holds a highest value, its steps 1, 2 or 5 times a power of ten."""
    step = _round_step(max(highest, _FIRST_DECADE) / 4)
    count = max(1, math.ceil(highest / step - 1e-9))
    top = count * step
    ticks = tuple(Tick(round(100 * n / count, 3), number(n * step)) for n in range(count + 1))
    return Axis(top, ticks)


def seconds_axis(last: float) -> tuple[Tick, ...]:
    """Give ticks of a horizontal axis of seconds."""
    step = max(1.0, _round_step(last / _MOST_LABELS))
    return tuple(
        Tick(round(100 * n * step / last, 3), number(n * step)) for n in range(int(last / step) + 1)
    )


def line(points: Sequence[Point | None]) -> str:
    """Give the path of a line through points in percent; None breaks it, one alone is a dot."""
    pieces = []
    for run in _runs(points):
        steps = " L".join(f"{x:g} {100 - y:g}" for x, y in run)
        pieces.append(f"M{steps}" + (" h0.01" if len(run) == 1 else ""))
    return " ".join(pieces)


def band(lower: Sequence[Point | None], upper: Sequence[Point | None]) -> str:
    """Give the path of the area between two lines that break at the same places."""
    pieces = []
    for low, high in zip(_runs(lower), _runs(upper), strict=True):
        around = [*low, *reversed(high)]
        pieces.append("M" + " L".join(f"{x:g} {100 - y:g}" for x, y in around) + "Z")
    return " ".join(pieces)


def _runs(points: Sequence[Point | None]) -> Iterator[list[Point]]:
    run: list[Point] = []
    for point in [*points, None]:
        if point is not None:
            run.append(point)
        elif run:
            yield run
            run = []


def buckets(histogram: Sequence[Mapping[str, float]], total: float) -> list[Bar]:
    """Give the bars of a histogram, of the same width, the highest to the top."""
    most = max(one["requests"] for one in histogram)
    width = 100 / len(histogram)
    return [
        Bar(
            round(place * width, 3),
            round(width, 3),
            round(100 * one["requests"] / most, 3),
            0.0,
            f"{number(one['from_ms'])} to {number(one['to_ms'])} ms: "
            f"{one['requests']:,.0f} ({100 * one['requests'] / total:.1f} %)",
        )
        for place, one in enumerate(histogram)
    ]


def bucket_edges(histogram: Sequence[Mapping[str, float]]) -> tuple[Tick, ...]:
    """Give ticks at some of the edges of a histogram."""
    edges = [*(one["from_ms"] for one in histogram), histogram[-1]["to_ms"]]
    every = max(1, math.ceil(len(edges) / (_MOST_LABELS + 2)))
    return tuple(
        Tick(round(100 * place / len(histogram), 3), number(edges[place]))
        for place in range(0, len(edges), every)
    )


def in_bucket(histogram: Sequence[Mapping[str, float]], value: float) -> float:
    """Give where a value is among the buckets, in percent from the left."""
    edges = [one["from_ms"] for one in histogram]
    place = max(0, bisect_right(edges, value) - 1)
    low, high = edges[place], histogram[place]["to_ms"]
    inside = min(1.0, max(0.0, (value - low) / (high - low)))
    return round(100 * (place + inside) / len(histogram), 3)


def number(value: float) -> str:
    """Give a number as short as it goes: three digits, thousands apart."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _round_step(value: float) -> float:
    """Give the least 1, 2 or 5 times a power of ten that is not below a value."""
    power = 10.0 ** math.floor(math.log10(max(value, _FIRST_DECADE)))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value * (1 - 1e-9))
