"""A stand-in for a Gateway's controller: what it says about HTTPRoutes.

The conditions Accepted and ResolvedRefs, their reasons and `observedGeneration` are those of the
Gateway API (kubernetes-sigs/gateway-api, `apis/v1/shared_types.go` and `httproute_types.go`). A
route is taken whether the Gateway exists or not, and no request is ever sent anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from played_controller import Json, PlayedController, moved, running

__all__ = ["GatewayController", "running"]


@dataclass
class GatewayController(PlayedController):
    """Reconciles the HTTPRoutes of one namespace.

    Attributes:
        refusal: Why no route is accepted, in one word such as NotAllowedByListeners.
    """

    refusal: str = ""

    kind: ClassVar = ("gateway.networking.k8s.io/v1", "HTTPRoute")
    manager: ClassVar = "example.com/gateway"

    def reconcile(self, live: Json) -> None:
        conditions = [self._accepted(), self._resolved(live)]
        generation = live["metadata"]["generation"]
        parents = []
        for parent in live["spec"].get("parentRefs") or []:
            before = self._before(live, parent)
            told = [{**one, "observedGeneration": generation} for one in conditions]
            parents.append(
                {
                    "parentRef": parent,
                    "controllerName": self.manager,
                    "conditions": moved(before, told),
                }
            )
        self.tell(live, {"parents": parents})

    def _accepted(self) -> Json:
        if self.refusal:
            return _condition("Accepted", self.refusal, "no listener takes the route")
        return _condition("Accepted", "Accepted")

    def _resolved(self, live: Json) -> Json:
        there = {one["metadata"]["name"] for one in self.api.list("v1", "Service", self.namespace)}
        named = [
            one["name"]
            for rule in live["spec"].get("rules") or []
            for one in rule.get("backendRefs") or []
        ]
        missing = sorted(set(named) - there)
        if missing:
            message = f"no Service {', '.join(missing)}"
            return _condition("ResolvedRefs", "BackendNotFound", message)
        return _condition("ResolvedRefs", "ResolvedRefs")

    def _before(self, live: Json, parent: Json) -> list[Json]:
        for one in (live.get("status") or {}).get("parents") or []:
            if one["parentRef"] == parent and one["controllerName"] == self.manager:
                return list(one["conditions"])
        return []


def _condition(kind: str, reason: str, message: str = "") -> Json:
    status = str(reason == kind)  # what is well gives the condition's own name as its reason
    return {"type": kind, "status": status, "reason": reason, "message": message}
