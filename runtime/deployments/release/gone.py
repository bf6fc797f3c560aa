"""The wait for objects that are deleted."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable

from kfp_bento.runtime.deployments.kube.cluster import ClusterConnection
from kfp_bento.runtime.deployments.kube.errors import ClusterSilent
from kfp_bento.runtime.deployments.kube.objects import Manifest, ObjectRef
from kfp_bento.runtime.errors import DeploymentError

_POLL_SECONDS = 0.5


def await_gone(
    cluster: ClusterConnection, objects: Collection[Manifest], seconds: float = 120.0
) -> None:
    """Wait until objects are gone, by uid.

    Raises:
        DeploymentError: Some are still there when the time is up.
    """
    left = {ObjectRef.of(live): live["metadata"]["uid"] for live in objects}
    deadline = time.monotonic() + seconds
    while left:
        for ref, uid in list(left.items()):
            try:
                live = cluster.get(ref)
            except ClusterSilent:
                if time.monotonic() >= deadline:
                    raise
                continue
            if live is None or live["metadata"]["uid"] != uid:
                del left[ref]
            elif time.monotonic() >= deadline:
                holding = ", ".join(live["metadata"].get("finalizers") or ()) or "none"
                raise DeploymentError(
                    f"{ref} is still there after {seconds:g} s (finalizers: {holding}).",
                    hint="Its controller has to let go; deleting again is safe.",
                )
        if left:
            time.sleep(_POLL_SECONDS)


def await_unlisted(
    look: Callable[[], Iterable[Manifest]], objects: Collection[Manifest], seconds: float = 120.0
) -> None:
    """Wait until a list has none of some objects any more, by uid.

    Raises:
        DeploymentError: Some are still there when the time is up.
    """
    gone = {live["metadata"]["uid"] for live in objects}
    deadline = time.monotonic() + seconds
    while True:
        try:
            left = [live for live in look() if live["metadata"]["uid"] in gone]
        except ClusterSilent:
            if time.monotonic() >= deadline:
                raise
        else:
            if not left:
                return
            if time.monotonic() >= deadline:
                raise DeploymentError(
                    f"{ObjectRef.of(left[0])} is still there after {seconds:g} s.",
                    hint="The garbage collector removes it; deleting again is safe.",
                )
        time.sleep(_POLL_SECONDS)
