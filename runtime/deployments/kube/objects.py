"""Objects of a cluster: where they are, who applied them, and what every one of them has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kfp_bento.runtime.deployments.kube.live_shapes import LiveObject, live_problem
from kfp_bento.runtime.errors import DeploymentError
from kfp_bento.runtime.programs import cleaned

FIELD_MANAGER = "kfp-bento"
_APPLIER = (FIELD_MANAGER, "Apply")


Manifest = Mapping[str, Any]


@dataclass(frozen=True, order=True)
class ObjectRef:
    """One object of a cluster by its place."""

    api_version: str
    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"

    @classmethod
    def of(cls, manifest: Manifest) -> ObjectRef:
        """Give the place of a manifest or of a live object."""
        metadata = manifest["metadata"]
        namespace = str(metadata.get("namespace") or "default")
        return cls(manifest["apiVersion"], manifest["kind"], namespace, metadata["name"])


def checked_object(found: dict[str, Any], subject: str) -> dict[str, Any]:
    """Give an object that has what every object has.

    Raises:
        DeploymentError: Something of that is missing, or has another type.
    """
    if problem := live_problem(found, LiveObject, subject):
        raise DeploymentError(f"{cleaned(problem)}.", hint="Check what writes this object.")
    return found


def applied_at(live: Manifest | None) -> str:
    """Give when our field manager has last changed an object, by the cluster's clock; or ""."""
    entries = ((live or {}).get("metadata") or {}).get("managedFields") or []
    ours = (one for one in entries if (one.get("manager"), one.get("operation")) == _APPLIER)
    return max((str(one.get("time") or "") for one in ours), default="")


def applied_by_us(live: Manifest) -> bool:
    """Say whether our field manager has applied an object."""
    return any(
        (entry.get("manager"), entry.get("operation")) == _APPLIER
        for entry in live["metadata"].get("managedFields") or []
    )
