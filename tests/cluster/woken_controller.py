"""A played controller with one worker, woken by events as controller-runtime wakes the real ones.

What it is not woken for it does not see, however long it lasts: an annotation where only changes
of the spec count, a failure that its controller does not try again. A reconcile that blocks keeps
all other objects waiting. It knows nothing of deletionTimestamp, and goes on until an object is
gone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

from kube_api import Refused
from played_controller import Json, PlayedController, moved

# Of the rate limiter that all controllers have by default.
FIRST_RETRY = 0.005
AT_ONCE = 0.0


class Failure(Exception):
    """A reconcile failed, with these words."""


class Blocked(Exception):
    """A reconcile does not come back, and is all that the worker does."""


@dataclass(frozen=True)
class Watch:
    """What wakes a controller.

    Attributes:
        place: API version and kind of the objects.
        wakes: The names of the controller's own objects that a change of one concerns.
        spec_only: Only another generation counts, or that one is gone.
    """

    place: tuple[str, str]
    wakes: Callable[[Any, Json], Iterable[str]]
    spec_only: bool = False

    def version(self, live: Json) -> str:
        key = "generation" if self.spec_only else "resourceVersion"
        return str(live["metadata"].get(key))


@dataclass
class WokenController(PlayedController):
    """One worker before a queue of names.

    `reconcile` gives the seconds until it wants to look again, or None; `AT_ONCE`, like a failure,
    is after a pause that doubles until it says something else.
    """

    _seen: dict[tuple[str, str], tuple[str, Json]] = field(
        default_factory=dict, repr=False, kw_only=True
    )
    _due: dict[str, float] = field(default_factory=dict, repr=False, kw_only=True)
    _tries: dict[str, int] = field(default_factory=dict, repr=False, kw_only=True)

    @property
    def watches(self) -> tuple[Watch, ...]:
        raise NotImplementedError

    def reconcile(self, live: Json) -> float | None:  # type: ignore[override]
        raise NotImplementedError

    def restart(self) -> None:
        """Begins anew: every object is an event."""
        self._seen.clear()
        self._due.clear()
        self._tries.clear()

    def look(self) -> None:
        for name in self._woken():
            self._due[name] = min(self._due.get(name, time.monotonic()), time.monotonic())
        for name in sorted(self._due, key=self._due.__getitem__):
            if self._due[name] > time.monotonic() or not self._works(name):
                return

    def _works(self, name: str) -> bool:
        """Reconciles one object, and says whether the worker came back."""
        del self._due[name]
        live = self.api.get(*self.kind, self.namespace, name)
        if live is None:
            return True
        try:
            again = self.reconcile(live)
        except Blocked:
            self._due[name] = 0.0
            return False
        except (Failure, Refused):
            again = AT_ONCE
        if again != AT_ONCE:
            self._tries.pop(name, None)
        else:
            again = FIRST_RETRY * 2 ** self._tries.get(name, 0)
            self._tries[name] = self._tries.get(name, 0) + 1
        if again is not None:
            self._due[name] = time.monotonic() + again
        return True

    def _woken(self) -> Iterator[str]:
        before, self._seen = self._seen, {}
        for watch in self.watches:
            for live in self.api.list(*watch.place, self.namespace):
                key, version = (watch.place[1], live["metadata"]["uid"]), watch.version(live)
                self._seen[key] = (version, live)
                if before.pop(key, ("", {}))[0] != version:
                    yield from watch.wakes(self, live)
        for (kind, _), (_, gone) in before.items():
            for watch in self.watches:
                if watch.place[1] == kind:
                    yield from watch.wakes(self, gone)

    # -- how it writes: whole objects, by create and update -----------------------------------

    def owned(self, live: Json, manifest: Json) -> Json:
        """Gives a manifest as an object that a live one controls."""
        owner = {
            "apiVersion": self.kind[0],
            "kind": self.kind[1],
            "name": live["metadata"]["name"],
            "uid": live["metadata"]["uid"],
            "controller": True,
            "blockOwnerDeletion": True,
        }
        own = {"namespace": self.namespace, "ownerReferences": [owner]}
        return {**manifest, "metadata": {**manifest["metadata"], **own}}

    def create(self, manifest: Json) -> Json:
        return self._write("POST", manifest, "")

    def update(self, manifest: Json) -> Json:
        """Makes an object all of this, whatever it was: what is left out is gone."""
        return self._write("PUT", manifest, manifest["metadata"]["name"])

    def _write(self, method: str, manifest: Json, name: str) -> Json:
        path = self.api.path(manifest["apiVersion"], manifest["kind"], self.namespace, name)
        query = {"fieldManager": self.manager, "fieldValidation": "Ignore"}
        answer: Json = self.api.request(method, path, manifest, **query)
        # However soon it is gone again, that will be an event.
        self._seen[manifest["kind"], answer["metadata"]["uid"]] = ("", answer)
        return answer

    def say(self, live: Json, **told: tuple[str, ...]) -> None:
        """Sets conditions: status, message and, where it is another, the reason."""
        before = (live.get("status") or {}).get("conditions") or []
        changed = {
            kind: {
                "type": kind,
                "status": status,
                "message": message,
                "reason": reason[0] if reason else "Reconciling",
            }
            for kind, (status, message, *reason) in told.items()
        }
        both = {one["type"]: one for one in before} | changed
        status = {**self.empty_status, "conditions": moved(before, list(both.values()))}
        self.tell({"apiVersion": self.kind[0], "kind": self.kind[1], **live}, status)
        live["status"] = status

    empty_status: ClassVar[Json] = {}


def own_name(controller: WokenController, live: Json) -> list[str]:
    """Wakes an object for its own changes."""
    return [live["metadata"]["name"]]


def owner_name(controller: WokenController, live: Json) -> list[str]:
    """Wakes the object that controls one that has changed."""
    return [
        one["name"]
        for one in live["metadata"].get("ownerReferences") or []
        if one.get("controller") and one["kind"] == controller.kind[1]
    ]
