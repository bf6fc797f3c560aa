"""The metrics gate among the checks of a release: its options by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.batch import BatchOptions
from kfp_bento.runtime.checks.limits import read_limits
from kfp_bento.runtime.checks.metrics import MetricsOptions, check_metrics, given_champion
from kfp_bento.runtime.checks.subjects import Subject
from kfp_bento.runtime.errors import InvalidInput

if TYPE_CHECKING:
    from kfp_bento.runtime.checks.check_report import CheckReport
    from kfp_bento.runtime.proof import Golden

_NEEDED = ("data", "label")
_KINDS: dict[str, type] = {
    **dict.fromkeys((*_NEEDED, "champion_url", "task", "prediction", "positive"), str),
    **dict.fromkeys(("api", "input_format"), str),
    **dict.fromkeys(("thresholds", "champion_limits"), dict),
    **dict.fromkeys(("classes", "inputs"), list),
}


@dataclass(frozen=True)
class MetricsGate:
    """What is measured of a release; see `check_metrics` for each."""

    data: str
    label: str
    thresholds: Mapping[str, Any] = field(default_factory=dict)
    champion_url: str = ""
    champion_limits: Mapping[str, Any] = field(default_factory=dict)
    options: MetricsOptions = field(default_factory=MetricsOptions)

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> MetricsGate:
        """Read options by name: data and label, and any of the others, before anything is asked.

        Raises:
            InvalidInput: One is missing, unknown, or of another type; it is named.
        """
        _require(options)
        read_limits(options.get("thresholds", {}), options.get("champion_limits"))
        asked = BatchOptions(
            api=options.get("api", ""),
            inputs=tuple(options.get("inputs", ())),
            input_format=options.get("input_format", ""),
        )
        reading = MetricsOptions(
            options.get("task", "auto"),
            options.get("prediction", ""),
            tuple(options.get("classes", ())),
            options.get("positive", ""),
            asked,
        )
        names = (*_NEEDED, "thresholds", "champion_url", "champion_limits")
        known = {name: options[name] for name in names if name in options}
        return cls(**known, options=reading)

    def report(self, url: str, golden: Golden) -> CheckReport:
        """Measure what is served; see `check_metrics`."""
        return check_metrics(
            golden,
            self.data,
            self.label,
            Subject(url),
            champion=given_champion(self.champion_url, None),
            thresholds=self.thresholds,
            champion_limits=self.champion_limits,
            options=self.options,
        ).report


def _require(options: Mapping[str, Any]) -> None:
    missing = [name for name in _NEEDED if not options.get(name)]
    if missing:
        raise InvalidInput(
            f"gates: metrics needs {missing[0]}.",
            hint='Write {"metrics": {"data": "s3://…", "label": "…", "thresholds": {…}}}.',
        )
    for name, value in options.items():
        if name not in _KINDS:
            raise InvalidInput(
                f"gates: metrics has no option {name!r}.", hint=f"It has: {', '.join(_KINDS)}."
            )
        if not isinstance(value, _KINDS[name]):
            raise InvalidInput(f"gates: metrics: {name} is {value!r}.")
