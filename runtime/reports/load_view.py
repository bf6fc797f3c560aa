"""What a load test has found, part by part, as it is shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.reports.wording import measure

if TYPE_CHECKING:
    from kfp_bento.runtime.checks import CheckReport

Facts = Mapping[str, Any]


@dataclass(frozen=True)
class HeldLimit:
    """A limit as it is shown: its label, the bound, what was measured, whether it holds."""

    label: str
    bound: str
    measured: str
    holds: bool


@dataclass(frozen=True)
class LoadView:
    """What the evidence of a load test says, part by part; empty where there is none."""

    report: CheckReport

    @cached_property
    def limits(self) -> list[HeldLimit]:
        """The limits."""
        return [
            HeldLimit(
                measure(one["limit"], 0)[0],
                f"{one['bound']} {measure(one['limit'], one['expected'])[1]}",
                "nothing" if one["served"] is None else measure(one["limit"], one["served"])[1],
                "reason" not in one,
            )
            for one in self._entry("limits", [])
        ]

    @property
    def failures(self) -> list[Facts]:
        """The first failures of each kind."""
        return [one for one in self.report.evidence if "count" in one]

    @property
    def asked(self) -> Facts:
        """How the service was asked."""
        found: Facts = self._entry("asked", {})
        return found

    @property
    def steps(self) -> list[Facts]:
        """The load over time."""
        found: list[Facts] = self._entry("over_time", [])
        return found

    @property
    def histogram(self) -> list[Facts]:
        """The distribution of latency."""
        found: list[Facts] = self._entry("histogram", [])
        return found

    @property
    def last(self) -> float:
        """When the last step ends, in seconds."""
        step = self.steps[-1]
        return float(step["second"]) + float(step["seconds"])

    @property
    def ramp(self) -> float:
        """How much of the time was the ramp, in percent."""
        share: float = 100 * self.asked.get("ramp_seconds", 0) / self.last
        return round(min(100.0, share), 3)

    def bound(self, name: str) -> float | None:
        """Give a limit's number."""
        limits: list[Facts] = self._entry("limits", [])
        return next((one["expected"] for one in limits if one["limit"] == name), None)

    def _entry(self, name: str, default: Any) -> Any:
        return next((one[name] for one in self.report.evidence if name in one), default)
