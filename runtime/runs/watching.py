"""Submitting a pipeline when an alias moves, once for each version that it moves to.

Nothing is kept in memory that counts. Each look reads the registry anew: a version whose tag says
that it was submitted is left alone, a run that has its name already is noted and not submitted.
So it makes no difference where the one who watches is killed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kfp_bento.runtime.errors import InvalidInput, KfpBentoError
from kfp_bento.runtime.runs.registry import Holder, Registry, Watched
from kfp_bento.runtime.runs.server import PipelinesApi, PipelinesServer
from kfp_bento.runtime.runs.submitting import Submission, submit_run

LONGEST_BACK_OFF = 900.0
"""Seconds between two looks while something is down; the interval, where that is longer."""

# Between two looks however often a webhook asks for one.
_LEAST = 1.0

Told = Callable[[Mapping[str, str]], None]


@dataclass(frozen=True)
class Trigger:
    """What is watched, and what is submitted for it.

    Attributes:
        watched: The aliases.
        pipeline: Name of the pipeline, for names of runs and tags.
        submission: The pipeline, and how it runs.
        arguments: Its arguments, but for the model.
        model_parameter: The parameter that gets the version's URI.
        as_list: Whether that takes a list.
    """

    watched: Sequence[Watched]
    pipeline: str
    submission: Submission
    arguments: Mapping[str, Any]
    model_parameter: str
    as_list: bool = True

    def arguments_for(self, holder: Holder) -> dict[str, Any]:
        """Give the arguments of a run for one version."""
        model = [holder.uri] if self.as_list else holder.uri
        return {**self.arguments, self.model_parameter: model}


@dataclass
class Watch:
    """One watch over a registry.

    Attributes:
        trigger: What is watched and submitted.
        registry: Where the aliases are.
        server: Where runs go.
        tell: Takes each event: its name and what belongs to it.
        wake: Set to look at once.
        stopping: Set to end.
    """

    trigger: Trigger
    registry: Registry
    server: PipelinesServer
    tell: Told = lambda event: None
    wake: threading.Event = field(default_factory=threading.Event)
    stopping: threading.Event = field(default_factory=threading.Event)
    _api: PipelinesApi | None = None
    _told: dict[str, str] = field(default_factory=dict)

    def run(self, every: float) -> None:
        """Look again and again until told to stop, seldomer while something is down.

        Raises:
            InvalidInput: Something is wrong that only whoever started it can mend.
        """
        failures = 0
        while not self.stopping.is_set():
            self.wake.clear()
            failures = failures + 1 if self.look() else 0
            self._pause(_pause_after(every, failures))

    def stop(self) -> None:
        """End after what is being done now."""
        self.stopping.set()
        self.wake.set()

    def look(self) -> int:
        """Look once at all that is watched, and give how many failures there were."""
        failures = 0
        for watched in self.trigger.watched:
            place = f"{watched.model or '='.join(watched.tag)}@{watched.alias}"
            try:
                holders = self.registry.holders(watched)
            except InvalidInput:
                raise
            except KfpBentoError as failure:
                failures += self._failed(place, failure)
                continue
            self._told.pop(place, None)
            failures += sum(self._settle(holder) for holder in holders)
        return failures

    def _settle(self, holder: Holder) -> int:
        """Submit a version that was not submitted, and give 1 where that failed."""
        if self.stopping.is_set() or holder.noted(self.trigger.pipeline):
            return 0
        facts = {"model": holder.model, "version": holder.version, "alias": holder.alias}
        place = f"{holder.uri}@{holder.alias}"
        if holder.problem:
            self._once(place, {"event": "waiting", **facts, "message": holder.problem})
            return 0
        name = holder.run_name(self.trigger.pipeline)
        try:
            if self._api is None:
                self._api = PipelinesApi(self.server)
            arguments = self.trigger.arguments_for(holder)
            made = submit_run(self._api, self.trigger.submission, arguments, name)
            event = "found" if made.found else "submitted"
            run = {"run": made.name, "run_id": made.run_id, "page": made.url}
            self.tell({"event": event, **facts, **run})
            self.registry.note(holder, self.trigger.pipeline, made.run_id)
        except InvalidInput:
            raise
        except KfpBentoError as failure:
            self._api = None
            return self._failed(place, failure, **facts)
        self._told.pop(place, None)
        return 0

    def _failed(self, place: str, failure: KfpBentoError, **facts: str) -> int:
        told = {"event": "failed", "what": place, **facts, "message": failure.message}
        self._once(place, told | {"hint": failure.hint})
        return 1

    def _once(self, place: str, event: Mapping[str, str]) -> None:
        """Tell what goes on for a while when it begins, and when it changes."""
        if self._told.get(place) != event.get("message"):
            self._told[place] = event.get("message", "")
            self.tell(event)

    def _pause(self, seconds: float) -> None:
        began = time.monotonic()
        self.wake.wait(seconds)
        left = min(_LEAST, seconds) - (time.monotonic() - began)
        if left > 0:
            self.stopping.wait(left)


def _pause_after(every: float, failures: int) -> float:
    longest = max(every, LONGEST_BACK_OFF)
    return min(longest, every * 2.0 ** min(failures, 20))
