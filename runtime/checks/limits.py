"""Limits on metrics: at least, at most, and how much worse than the champion's they may be."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kfp_bento.runtime.checks.scores import BETTER, HIGHER
from kfp_bento.runtime.errors import InvalidInput

_BOUNDS = {"min": "at least", "max": "at most"}
_DROPS = ("max_drop", "max_drop_ratio")
_WRITTEN = re.compile(r"([a-z0-9_]+)\s*(>=|<=)\s*(\S+)")


@dataclass(frozen=True)
class Limit:
    """One limit on one metric.

    Attributes:
        metric: Its name.
        kind: "min" or "max" of its value; "max_drop" (in its own unit) or "max_drop_ratio" (of the
            champion's value) of how much worse than the champion's it may be.
        value: The number.
    """

    metric: str
    kind: str
    value: float

    @property
    def of_champion(self) -> bool:
        """Whether the champion is needed to judge it."""
        return self.kind in _DROPS

    def told(self) -> str:
        """Give it in words."""
        if self.kind in _BOUNDS:
            return f"{_BOUNDS[self.kind]} {self.value:g}"
        if self.kind == "max_drop":
            return f"at most {self.value:g} worse than the champion's"
        return f"at most {100 * self.value:g} % worse than the champion's"

    def holds(self, found: float, champion: float | None) -> bool:
        """Say whether a value keeps it; the champion's is needed where `of_champion` says so."""
        if self.kind == "min":
            return found >= self.value
        if self.kind == "max":
            return found <= self.value
        assert champion is not None  # noqa: S101 - its caller has one
        worse = champion - found if BETTER[self.metric] == HIGHER else found - champion
        allowed = self.value * (abs(champion) if self.kind == "max_drop_ratio" else 1.0)
        # A drop by the very number that is allowed is one, in spite of how floats subtract.
        return worse <= allowed + 1e-12 * max(1.0, abs(champion))


def read_limits(
    thresholds: Mapping[str, Any], champion: Mapping[str, Any] | None = None
) -> tuple[Limit, ...]:
    """Read limits as a step is given them.

    Args:
        thresholds: Such as `{"accuracy": {"min": 0.9}, "rmse": {"max": 3}}`.
        champion: Such as `{"accuracy": {"max_drop": 0.01}}` or `{"rmse": {"max_drop_ratio": 0.1}}`.

    Raises:
        InvalidInput: A metric or a limit is unknown, or no number; it is named.
    """
    given = [
        ("thresholds", thresholds, tuple(_BOUNDS)),
        ("champion limits", champion or {}, _DROPS),
    ]
    return tuple(
        _limit(place, metric, kind, value, allowed)
        for place, limits, allowed in given
        for metric, kinds in limits.items()
        for kind, value in _kinds(place, metric, kinds, allowed).items()
    )


def written_limits(texts: Iterable[str]) -> dict[str, dict[str, float]]:
    """Read thresholds that are written as `accuracy>=0.9` or `rmse<=3`.

    Raises:
        InvalidInput: One is written otherwise.
    """
    found: dict[str, dict[str, float]] = {}
    for text in texts:
        parts = _WRITTEN.fullmatch(text.strip())
        try:
            if parts is None:
                raise ValueError
            found.setdefault(parts[1], {})["min" if parts[2] == ">=" else "max"] = float(parts[3])
        except ValueError:
            raise InvalidInput(
                f"The threshold {text!r} is none.", hint="Write accuracy>=0.9 or rmse<=3."
            ) from None
    return found


def _kinds(place: str, metric: str, kinds: Any, allowed: tuple[str, ...]) -> Mapping[str, Any]:
    if metric not in BETTER:
        raise InvalidInput(
            f"There is no metric {metric!r} ({place}).", hint=f"There are: {', '.join(BETTER)}."
        )
    if not isinstance(kinds, Mapping) or not kinds:
        raise InvalidInput(
            f"{metric} in {place} is {kinds!r}.", hint=f'Write {{"{allowed[0]}": NUMBER}}.'
        )
    return kinds


def _limit(place: str, metric: str, kind: str, value: Any, allowed: tuple[str, ...]) -> Limit:
    if kind not in allowed:
        raise InvalidInput(
            f"{metric} in {place} has the limit {kind!r}.", hint=f"Known are {', '.join(allowed)}."
        )
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or (kind in _DROPS and value < 0):
        raise InvalidInput(
            f"{metric}.{kind} in {place} is {value!r}.", hint="Give a finite number; drops from 0."
        )
    return Limit(metric, kind, float(value))
