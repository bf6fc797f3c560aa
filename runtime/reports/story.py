"""What a run's summary says: whether it ended well, what became of each stop, where time went.

A summary may lack any part: a run that stopped half-way is told as far as it went.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

from kfp_bento.runtime.reports.json_text import one_line
from kfp_bento.runtime.reports.wording import counted, gathered, listed, shortened

Facts: TypeAlias = Mapping[str, Any]

# Stop, and the beginnings of the names of the steps whose time it took.
_STOPS = {
    "models": ("pull-", "scan-"),
    "bento": ("build-bento",),
    "image": ("build-image",),
    "release": ("deploy-",),
    "checks": ("check-", "smoke-", "compare-"),
    "promoted": ("promote-", "confirm-", "settle-"),
}
_ROAD = ("tracking", "train", *(step for steps in _STOPS.values() for step in steps))
_BETWEEN = "start, end and in between"
_COLOURS = ("base", "dependencies", "model", "source")


@dataclass(frozen=True)
class RunVerdict:
    """How a run ended.

    Attributes:
        promoted: Whether every check passed and the alias points to the versions.
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
        return one_line(self.served) == one_line(self.expected)


@dataclass(frozen=True)
class Layer:
    """A layer of an image, or several of dependencies with the same origin, which have no digest.

    `share` is its part of all bytes, between 0 and 1.
    """

    kind: str
    title: str
    digest: str
    origin: str
    size: float
    share: float

    @property
    def colour(self) -> str:
        """The kind, where the style sheet has a colour for it."""
        return self.kind if self.kind in _COLOURS else "other"

    @property
    def percent(self) -> str:
        """The share for reading."""
        return f"{100 * self.share:.0f} %" if self.share >= 0.01 else "< 1 %"


def _in_common(layer: Facts) -> object:
    return str(layer.get("origin", "")) if layer.get("kind") == "dependencies" else None


def _layer(layers: Sequence[Facts], whole: float) -> Layer:
    size = sum(layer.get("size", 0) for layer in layers)
    return Layer(
        kind=str(layers[0].get("kind", "?")),
        title=shortened([str(layer.get("title", "")) for layer in layers]),
        digest=str(layers[0].get("digest", "")) if len(layers) == 1 else "",
        origin=str(layers[0].get("origin", "")),
        size=size,
        share=size / whole,
    )


def part(summary: Facts, name: str) -> Facts:
    """Give one part of a summary, empty if it is missing."""
    found = summary.get(name)
    return found if isinstance(found, Mapping) else {}


def parts(summary: Facts, name: str) -> list[Facts]:
    """Give the entries of one part of a summary that is a list, empty if it is missing."""
    found = summary.get(name)
    return [one for one in found if isinstance(one, Mapping)] if isinstance(found, list) else []


def answers_of(check: Facts) -> Answers | None:
    """Give the served and expected answers that a check kept as its sample."""
    for entry in check.get("evidence") or ():
        if {"served", "expected"} <= entry.keys() and "reason" not in entry:
            return Answers(entry["served"], entry["expected"])
    return None


def sentence(text: str) -> str:
    """Give a text with a full stop at its end."""
    return text if text.endswith((".", "!", "?")) else f"{text}."


@dataclass(frozen=True)
class Story:
    """What can be told of a run from its summary."""

    summary: Facts

    @cached_property
    def checks(self) -> list[Facts]:
        """The check reports."""
        return parts(self.summary, "checks")

    @cached_property
    def models(self) -> list[Facts]:
        """The models."""
        return parts(self.summary, "models")

    @cached_property
    def promoted(self) -> list[Facts]:
        """What became of the alias of each model."""
        return parts(part(self.summary, "promoted"), "models")

    @cached_property
    def failed_checks(self) -> list[Facts]:
        """The checks that did not pass."""
        return [one for one in self.checks if one.get("passed") is not True]

    @cached_property
    def comparison(self) -> Facts:
        """The check that compared served with expected answers, empty if there is none."""
        return next((one for one in self.checks if answers_of(one)), {})

    @cached_property
    def answers(self) -> Answers | None:
        """The served and expected answers."""
        prediction = part(self.summary, "prediction")
        if {"served", "expected"} <= prediction.keys():
            return Answers(prediction["served"], prediction["expected"])
        return answers_of(self.comparison)

    @property
    def mismatches(self) -> float | None:
        """How many answers differ, where that was counted."""
        return part(self.comparison, "measures").get("mismatches")

    @property
    def title(self) -> str:
        """The models' names and versions, as far as they have them."""
        found = [_title(model) for model in self.models or self.promoted]
        return listed(found) if any(found) else "A model"

    @property
    def bento_tag(self) -> str:
        """The bento's tag, name:version."""
        bento = part(self.summary, "bento")
        return str(
            bento.get("tag") or ":".join(str(bento.get(k, "?")) for k in ("name", "version"))
        )

    @property
    def image_size(self) -> float:
        """The bytes of all layers."""
        return float(
            part(self.summary, "image").get("size") or sum(one.size for one in self.layers)
        )

    @property
    def layer_count(self) -> int:
        """How many layers the image has."""
        return len(part(self.summary, "image").get("layers") or ())

    @cached_property
    def layers(self) -> list[Layer]:
        """The layers of the image, from the lowest to the highest."""
        found: list[Facts] = list(part(self.summary, "image").get("layers") or ())
        whole = sum(layer.get("size", 0) for layer in found) or 1
        return [_layer(layers, whole) for layers in gathered(found, _in_common)]

    @cached_property
    def verdict(self) -> RunVerdict:
        """Whether the run ended with a promoted model, and if not, why."""
        moved = " ".join(text for text in (self._settled(), self._alias(expected=False)) if text)
        if self.failed_checks:
            names = listed([str(one.get("name", "a check")) for one in self.failed_checks])
            found = self.failed_checks[0].get("summary") or "No reason was recorded"
            reason = sentence(str(found))
            return RunVerdict(False, "Check failed", f"{names} failed. {reason} {moved}")
        if self._unchecked_difference():
            text = "The service does not answer as the registry's model predicts."
            return RunVerdict(False, "Answers differ", f"{text} {moved}")
        failure = str(self.summary.get("failure") or "")
        if failure:
            return RunVerdict(False, "Failed", f"{sentence(failure)} {moved}")
        if not self.checks:
            text = "No check has reported, so nothing shows that the right model is served."
            return RunVerdict(False, "Not checked", f"{text} {moved}")
        evidence = f"The service {self._agreement()}."
        if self.summary.get("confirmed") is True:
            kept = "It is the good release now; no alias was to move."
            return RunVerdict(True, "Kept", f"{evidence} {kept}")
        if not part(self.summary, "promoted"):
            return RunVerdict(False, "Not promoted", f"{evidence} {moved}")
        return RunVerdict(True, "Promoted", f"{evidence} {self._alias(expected=True)}")

    def outcome(self, stop: str) -> str:
        """Give what became of a stop: done, failed, or missing when it left no record."""
        if stop == "promoted" and self.summary.get("confirmed") is True:
            return "done"
        if stop == "checks" and (self.failed_checks or self._unchecked_difference()):
            return "failed"
        return "done" if self.summary.get(stop) else "missing"

    def seconds(self, stop: str) -> float | None:
        """Give the time that the steps of a stop took together, if it is known."""
        found = [time for name, time in self.times if _step(name).startswith(_STOPS[stop])]
        return sum(found) if found else None

    @cached_property
    def times(self) -> list[tuple[str, float]]:
        """Each step and its seconds, along the road; unknown steps come first."""
        known = [
            (str(name), float(seconds))
            for name, seconds in part(self.summary, "seconds").items()
            if name != "total" and _is_number(seconds)
        ]
        return sorted(known, key=lambda step: _place(step[0]))

    @property
    def bars(self) -> list[tuple[str, float]]:
        """The steps, with what they do not account for of the whole run; empty without steps."""
        steps = [(name.replace("_", "-"), seconds) for name, seconds in self.times]
        rest = (self.total_seconds or 0) - sum(seconds for _, seconds in steps)
        return [*steps, (_BETWEEN, rest)] if steps and rest >= 0.05 else steps

    @property
    def total_seconds(self) -> float | None:
        """The time of the whole run, if it is known."""
        total: Any = part(self.summary, "seconds").get("total")
        return float(total) if _is_number(total) else None

    def _unchecked_difference(self) -> bool:
        """Tell whether answers differ that no check compared."""
        return bool(self.answers and not self.answers.equal and not self.comparison)

    def _settled(self) -> str:
        """Say what became of a release that was refused, where that is known."""
        settled = str(self.summary.get("settled") or "")
        return sentence(settled) if settled else ""

    def _agreement(self) -> str:
        if self.answers is None:
            return f"passed {counted(len(self.checks), 'check')}"
        rows = part(self.comparison, "measures").get("rows")
        number = (
            f"{'all ' * (rows > 1)}{counted(int(rows), 'row')}" if rows else "what it was asked"
        )
        how = "exactly as" if self.answers.equal else "within the allowed tolerance of what"
        return f"answers {number} {how} the registry's model predicts"

    def _alias(self, *, expected: bool) -> str:
        if not part(self.summary, "promoted"):
            return "No alias was moved."
        alias = part(self.summary, "promoted").get("alias", "?")
        several = len(self.promoted) > 1
        reached = listed([_reached(one, of=several) for one in self.promoted] or ["version ?"])
        if not expected:
            return f"Yet the alias {alias} points to {reached}."
        if part(self.summary, "promoted").get("changed") is False:
            return f"The alias {alias} already pointed to {reached}."
        previous = "" if several or not self.promoted else self.promoted[0].get("previous")
        origin = f"from version {previous} " if previous else ""
        return f"The alias {alias} moved {origin}to {reached}."


def _title(model: Facts) -> str:
    name, version = str(model.get("name") or ""), str(model.get("version") or "")
    if name and version:
        return f"{name}, version {version}"
    return name or str(model.get("uri") or "")


def _reached(promoted: Facts, *, of: bool) -> str:
    return f"version {promoted.get('version', '?')}" + f" of {promoted.get('name', '?')}" * of


def _place(name: str) -> int:
    step = _step(name)
    return next((i for i, prefix in enumerate(_ROAD) if step.startswith(prefix)), -1)


def _step(name: str) -> str:
    return re.sub(r"[\s_]+", "-", name.lower())


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
