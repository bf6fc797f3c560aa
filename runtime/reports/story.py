"""What a run's summary says: whether it ended well, what became of each stop, where time went.

A summary may lack any part: a run that stopped half-way is told as far as it went.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from kfp_bento.runtime.reports.json_text import one_line
from kfp_bento.runtime.reports.quantities import counted, listed

Facts: TypeAlias = Mapping[str, Any]

# Stop, and the beginnings of the names of the steps whose time it took.
_STOPS = {
    "model": ("pull-", "scan-"),
    "bento": ("build-bento",),
    "image": ("build-image",),
    "release": ("deploy-",),
    "checks": ("smoke-", "compare-", "load-test"),
    "promoted": ("promote-",),
}
_ROAD = ("tracking", "train", *(step for steps in _STOPS.values() for step in steps))


@dataclass(frozen=True)
class Verdict:
    """How a run ended.

    Attributes:
        promoted: Whether every check passed and the alias points to the version.
        word: The same in one or two words.
        sentence: The same with its reasons.
    """

    promoted: bool
    word: str
    sentence: str


@dataclass(frozen=True)
class Answers:
    """What was served and what was expected, for the same request."""

    served: Any
    expected: Any

    @property
    def equal(self) -> bool:
        """Whether both are the same JSON; 1 and 1.0 and true are three different values."""
        return same(self.served, self.expected)


def part(summary: Facts, name: str) -> Facts:
    """Give one part of a summary, empty if it is missing."""
    found = summary.get(name)
    return found if isinstance(found, Mapping) else {}


def checks(summary: Facts) -> list[Facts]:
    """Give the check reports of a summary."""
    found = summary.get("checks")
    return [one for one in found if isinstance(one, Mapping)] if isinstance(found, list) else []


def same(one: Any, other: Any) -> bool:
    """Tell whether two values are the same JSON."""
    return one_line(one) == one_line(other)


def answers_of(check: Facts) -> Answers | None:
    """Give the served and expected answers that a check kept as its sample."""
    for entry in check.get("evidence") or ():
        if {"served", "expected"} <= entry.keys() and "reason" not in entry:
            return Answers(entry["served"], entry["expected"])
    return None


def answers(summary: Facts) -> Answers | None:
    """Give the served and expected answers of a run."""
    prediction = part(summary, "prediction")
    if {"served", "expected"} <= prediction.keys():
        return Answers(prediction["served"], prediction["expected"])
    return next(filter(None, map(answers_of, checks(summary))), None)


def comparison(summary: Facts) -> Facts:
    """Give the check that compared served with expected answers, empty if there is none."""
    return next((one for one in checks(summary) if answers_of(one)), {})


def failed_checks(summary: Facts) -> list[Facts]:
    """Give the checks that did not pass."""
    return [one for one in checks(summary) if one.get("passed") is not True]


def model_title(summary: Facts) -> str:
    """Give a model's name and version, as far as it has them."""
    model = part(summary, "model")
    name = str(model.get("name") or part(summary, "promoted").get("name") or "")
    version = str(model.get("version") or "")
    if name and version:
        return f"{name}, version {version}"
    return name or str(model.get("uri") or "") or "A model"


def verdict(summary: Facts) -> Verdict:
    """Tell whether a run ended with a promoted model, and if not, why."""
    failed, pair = failed_checks(summary), answers(summary)
    compared = comparison(summary)
    if failed:
        names = listed([str(one.get("name", "a check")) for one in failed])
        reason = sentence(str(failed[0].get("summary") or "No reason was recorded"))
        return Verdict(False, "Check failed", f"{names} failed. {reason} {_alias(summary, False)}")
    if pair and not pair.equal and not compared:
        text = "The service does not answer as the registry's model predicts."
        return Verdict(False, "Answers differ", f"{text} {_alias(summary, False)}")
    if not checks(summary):
        text = "No check has reported, so nothing shows that the right model is served."
        return Verdict(False, "Not checked", f"{text} {_alias(summary, False)}")
    evidence = f"The service {_agreement(summary, pair)}."
    if not part(summary, "promoted"):
        return Verdict(False, "Not promoted", f"{evidence} {_alias(summary, False)}")
    return Verdict(True, "Promoted", f"{evidence} {_alias(summary, True)}")


def sentence(text: str) -> str:
    """Give a text with a full stop at its end."""
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _agreement(summary: Facts, pair: Answers | None) -> str:
    if pair is None:
        return f"passed {counted(len(checks(summary)), 'check')}"
    rows = (comparison(summary).get("measures") or {}).get("rows")
    asked = "what it was asked" if not rows else f"{'all ' * (rows > 1)}{counted(int(rows), 'row')}"
    how = "exactly as" if pair.equal else "within the allowed tolerance of what"
    return f"answers {asked} {how} the registry's model predicts"


def _alias(summary: Facts, expected: bool) -> str:
    promoted = part(summary, "promoted")
    if not promoted:
        return "No alias was moved."
    alias, version = promoted.get("alias", "?"), promoted.get("version", "?")
    if not expected:
        return f"Yet the alias {alias} points to version {version}."
    if promoted.get("changed") is False:
        return f"The alias {alias} already pointed to version {version}."
    previous = promoted.get("previous")
    return f"The alias {alias} moved {f'from version {previous} ' if previous else ''}" + (
        f"to version {version}."
    )


def stop_outcome(summary: Facts, stop: str) -> str:
    """Give what became of a stop: done, failed, or missing when it left no record."""
    if stop == "checks":
        pair = answers(summary)
        differ = bool(pair and not pair.equal and not comparison(summary))
        if failed_checks(summary) or differ:
            return "failed"
    return "done" if summary.get(stop) else "missing"


def stop_seconds(summary: Facts, stop: str) -> float | None:
    """Give the time that the steps of a stop took together, if it is known."""
    found = [
        seconds
        for name, seconds in times(summary)
        if _step(name).startswith(_STOPS.get(stop, ("-",)))
    ]
    return sum(found) if found else None


def times(summary: Facts) -> list[tuple[str, float]]:
    """Give each step and its seconds, along the road; unknown steps come first."""
    known = [
        (str(name), float(seconds))
        for name, seconds in part(summary, "seconds").items()
        if name != "total" and _is_number(seconds)
    ]
    return sorted(known, key=lambda step: _place(step[0]))


def total_seconds(summary: Facts) -> float | None:
    """Give the time of the whole run, if it is known."""
    total: Any = part(summary, "seconds").get("total")
    return float(total) if _is_number(total) else None


def _place(name: str) -> int:
    step = _step(name)
    return next((i for i, prefix in enumerate(_ROAD) if step.startswith(prefix)), -1)


def _step(name: str) -> str:
    return re.sub(r"[\s_]+", "-", name.lower())


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
