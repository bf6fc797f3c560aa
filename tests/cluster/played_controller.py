"""What the controllers that tests play have in common: the loop, and how they write."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar, TypeVar

import urllib3
from kube_api import KubeApi, Refused

Json = dict[str, Any]


@dataclass
class PlayedController:
    """Reconciles the objects of one kind in one namespace, again and again.

    Attributes:
        asleep: It does nothing at all.
        troubles: What the API server refused it, each refusal once; it tries again.
    """

    api: KubeApi
    namespace: str
    asleep: bool = False
    troubles: list[str] = field(default_factory=list, repr=False, kw_only=True)

    kind: ClassVar[tuple[str, str]]
    manager: ClassVar[str]

    def reconcile(self, live: Json) -> None:
        """Brings the cluster one step nearer to what a live object asks for."""
        raise NotImplementedError

    def look(self) -> None:
        """Reconciles every object that is not being deleted."""
        for found in self.api.list(*self.kind, self.namespace):
            live = {"apiVersion": self.kind[0], "kind": self.kind[1], **found}
            if not live["metadata"].get("deletionTimestamp"):
                self.reconcile(live)

    def put(self, live: Json, manifest: Json, *, validation: str = "Strict") -> Json:
        """Makes an object of this controller's, owned by a live one; gives it as it is then."""
        owner = {
            "apiVersion": live["apiVersion"],
            "kind": live["kind"],
            "name": live["metadata"]["name"],
            "uid": live["metadata"]["uid"],
            "controller": True,
            "blockOwnerDeletion": True,
        }
        metadata = {
            **manifest["metadata"],
            "namespace": self.namespace,
            "ownerReferences": [owner],
        }
        return self.api.apply(
            {**manifest, "metadata": metadata},
            manager=self.manager,
            force=True,
            validation=validation,
        )

    def tell(self, live: Json, status: Mapping[str, Any]) -> None:
        """Makes a status the whole status of a live object."""
        if change := merge_patch(live.get("status") or {}, status):
            place = (*self.kind, self.namespace, live["metadata"]["name"])
            change = {"status": change}
            self.api.merge(*place, change, subresource="status", manager=self.manager)

    def note(self, refusal: Exception) -> None:
        if str(refusal) not in self.troubles:
            self.troubles.append(str(refusal))


Played = TypeVar("Played", bound=PlayedController)


@contextmanager
def running(controller: Played, *, pause: float = 0.1) -> Iterator[Played]:
    """Lets a controller work inside, with seconds between its looks.

    An error of its own is raised at the end, also instead of what came of it.
    """
    ending = threading.Event()
    broken: list[Exception] = []

    def work() -> None:
        while not ending.wait(pause):
            if controller.asleep:
                continue
            try:
                controller.look()
            except (Refused, urllib3.exceptions.HTTPError) as refusal:
                # Tried again, as the API server may be away or the object changed.
                controller.note(refusal)
            except Exception as error:
                if type(error) is LookupError:  # the kind is not there yet
                    controller.note(error)
                else:
                    broken.append(error)
                    return

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield controller
    finally:
        ending.set()
        thread.join(timeout=35)
        if broken:
            raise broken[0]


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def moved(before: list[Json], after: list[Json]) -> list[Json]:
    """Conditions with the moment at which each one last changed its status."""
    times = {(one["type"], one["status"]): one.get("lastTransitionTime") for one in before}
    return [
        {**one, "lastTransitionTime": times.get((one["type"], one["status"])) or now()}
        for one in after
    ]


def condition_of(live: Mapping[str, Any] | None, kind: str) -> Json:
    """A condition of a live object, empty where there is none."""
    found = ((live or {}).get("status") or {}).get("conditions") or []
    return next((one for one in found if one["type"] == kind), {})


def merge_patch(before: Mapping[str, Any], after: Mapping[str, Any]) -> Json:
    """What turns one object into another by a JSON merge patch; empty when they are equal."""
    change: Json = {key: None for key in before if key not in after}
    for key, value in after.items():
        old = before.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            if inner := merge_patch(old, value):
                change[key] = inner
        elif old != value:
            change[key] = value
    return change
