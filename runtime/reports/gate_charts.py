"""Charts of what a model is worth and how data have changed, as numbers that templates draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_COLOURS = 6
_CURVES = 8


@dataclass(frozen=True)
class Line:
    """A curve in a square of 100 by 100 whose origin is at the upper left.

    Attributes:
        name: What it is of.
        note: Its area, for reading.
        points: As an SVG polyline takes them.
        colour: Number of its colour.
    """

    name: str
    note: str
    points: str
    colour: int


@dataclass(frozen=True)
class Block:
    """A bar in a square of 100 by 100: left edge, top, width, height, and what it says."""

    x: float
    y: float
    width: float
    height: float
    title: str


def roc_lines(curves: Sequence[Mapping[str, Any]]) -> list[Line]:
    """Give receiver operating characteristics, the first eight."""
    return [
        Line(
            str(one["class"]),
            f"{one['area']:.3f}",
            " ".join(f"{100 * fpr:.2f},{100 - 100 * tpr:.2f}" for fpr, tpr, _ in one["points"]),
            place % _COLOURS,
        )
        for place, one in enumerate(curves[:_CURVES])
    ]


def histogram_blocks(edges: Sequence[float], counts: Sequence[float]) -> list[Block]:
    """Give the bars of a histogram with bins of one width."""
    most, width = max(counts), 100 / len(counts)
    return [
        Block(
            round(place * width, 3),
            round(100 - 100 * count / most, 3),
            round(width, 3),
            round(100 * count / most, 3),
            f"{edges[place]:.4g} to {edges[place + 1]:.4g}: {count:,.0f}",
        )
        for place, count in enumerate(counts)
    ]


def place_of_zero(edges: Sequence[float]) -> float:
    """Give where 0 is among edges of one width, in percent from the left; it may be outside."""
    extent = edges[-1] - edges[0]
    return round(-100 * edges[0] / extent, 3) if extent else -1.0


def pair_blocks(groups: Sequence[Sequence[Any]]) -> tuple[list[Block], list[Block]]:
    """Give shares then and now as bars side by side: those of then, and those of now."""
    most = max((max(then, now) for _, then, now in groups), default=0) or 1
    width = 100 / max(1, len(groups))

    def blocks(side: int) -> list[Block]:
        return [
            Block(
                round(place * width + (0.06 + 0.44 * side) * width, 3),
                round(100 - 100 * group[1 + side] / most, 3),
                round(0.42 * width, 3),
                round(100 * group[1 + side] / most, 3),
                f"{group[0]}: {100 * group[1]:.1f} % then, {100 * group[2]:.1f} % now",
            )
            for place, group in enumerate(groups)
        ]

    return blocks(0), blocks(1)


@dataclass(frozen=True)
class Cell:
    """A cell of a confusion matrix; `shade` is its share of its row, in percent."""

    count: int
    shade: int
    right: bool


def confusion_cells(matrix: Sequence[Sequence[int]]) -> list[list[Cell]]:
    """Give the cells of a confusion matrix, row by row."""
    return [
        [
            Cell(count, round(100 * count / max(1, sum(row))), at == place)
            for at, count in enumerate(row)
        ]
        for place, row in enumerate(matrix)
    ]
