"""Evidence for a failed release: events of its objects and the last lines of its containers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from kfp_bento.runtime.deployments.kube.cluster import ClusterConnection
from kfp_bento.runtime.deployments.kube.objects import Manifest, ObjectRef, applied_at
from kfp_bento.runtime.deployments.targets.readiness import Snapshot, Watched
from kfp_bento.runtime.deployments.targets.targets import read_live
from kfp_bento.runtime.errors import DeploymentError
from kfp_bento.runtime.programs import cleaned

EVENTS = 5
LOG_LINES = 20
# So much of a log is looked through for errors above its last lines: where a worker does not load,
# what started it has the last word.
_LOOKED_THROUGH = 200
_ERRORS = 3
_ERROR = re.compile(r"(?:^|\s)[\w.]*(?:Error|Exception)\b: \S")
_LONGEST_LINE = 2000
# More pods of one Deployment say the same thing again.
PODS = 3


def gather_evidence(
    cluster: ClusterConnection, watched: Watched, snapshot: Snapshot, culprits: Sequence[str] = ()
) -> tuple[str, ...]:
    """Collect what the cluster tells about a release that is not ready.

    Reading evidence never fails: what cannot be read is a line that says so.

    Args:
        cluster: Where the release is.
        watched: The release.
        snapshot: The last look at it.
        culprits: Names of the pods that show the problem; all that are not ready when empty.

    Returns:
        Lines in this order: warnings about the release's objects and about what builds its image,
        then per pod its warnings and the last lines of the containers that ended or are not ready.
        Warnings are of these very objects, not of earlier ones of their names, and since the
        release was last changed.
    """
    lines: list[str] = []
    since = max(applied_at(live) for live in (snapshot.primary, snapshot.holder, snapshot.build))
    since = since.replace("Z", "")
    building = [one for one in snapshot.builders if one["kind"] != "Pod"]
    made = [snapshot.primary, snapshot.build, *building]
    for live in (*made, *snapshot.deployments, *snapshot.replica_sets):
        lines += _events(cluster, live, since) if live is not None else []
    builders = [one for one in snapshot.builders if one["kind"] == "Pod"]
    for pod in (*_pods(builders, culprits), *_pods(snapshot.pods, culprits)):
        ref = ObjectRef.of(pod)
        lines += _events(cluster, pod, since)
        for container, previous in _containers(pod):
            lines += _log(cluster, ref, container, previous=previous)
    return tuple(dict.fromkeys(cleaned(line)[:_LONGEST_LINE] for line in lines))


def _pods(pods: Sequence[Manifest], culprits: Sequence[str]) -> list[Manifest]:
    if culprits:
        chosen = [pod for pod in pods if pod["metadata"]["name"] in culprits]
    else:
        chosen = [pod for pod in pods if not _all_ready(pod)]
    return chosen[:PODS]


def _all_ready(pod: Manifest) -> bool:
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    return bool(statuses) and all(status.get("ready") for status in statuses)


def _containers(pod: Manifest) -> Iterable[tuple[str, bool]]:
    """Give the containers whose log tells something, and whether the ended one tells it."""
    status = pod.get("status") or {}
    for kind in ("initContainerStatuses", "containerStatuses"):
        for entry in status.get(kind) or []:
            state = entry.get("state") or {}
            ended = (entry.get("lastState") or {}).get("terminated")
            if ended and "running" not in state and "terminated" not in state:
                yield entry["name"], True
            elif "terminated" in state or ("running" in state and not entry.get("ready")):
                yield entry["name"], False


def _events(cluster: ClusterConnection, live: Manifest, since: str) -> list[str]:
    ref = ObjectRef.of(live)
    fields = f"involvedObject.kind={ref.kind},involvedObject.name={ref.name}"
    if uid := live["metadata"].get("uid"):
        fields += f",involvedObject.uid={uid}"
    try:
        found = cluster.select("v1", "Event", ref.namespace, fields=fields)
        for event in found:
            read_live(event)
    except DeploymentError as error:
        return [f"{ref.kind} {ref.name}: its events cannot be read: {error.message}"]
    warnings = [
        one
        for one in found
        if one.get("type") == "Warning" and not _is_noise(one) and _moment(one) >= since
    ]
    return [_event_line(ref, event) for event in sorted(warnings, key=_moment)[-EVENTS:]]


def _is_noise(event: Manifest) -> bool:
    """Say whether an event tells only that a controller was overtaken by another update."""
    return "the object has been modified" in str(event.get("message") or "")


def _moment(event: Manifest) -> str:
    # One of the two is null, depending on which event API its author used; both are in UTC, and
    # as texts in the order of time, the whole second before its parts.
    return str(event.get("lastTimestamp") or event.get("eventTime") or "").replace("Z", "")


def _event_line(ref: ObjectRef, event: Manifest) -> str:
    count: Any = event.get("count") or (event.get("series") or {}).get("count") or 1
    times = f" ({count} times)" if count > 1 else ""
    message = " ".join(str(event.get("message") or "").split())
    return f"{ref.kind} {ref.name}: {event.get('reason') or 'Warning'}{times}: {message}"


def _log(
    cluster: ClusterConnection, ref: ObjectRef, container: str, *, previous: bool
) -> list[str]:
    try:
        text = cluster.log(
            ref.namespace, ref.name, container, lines=_LOOKED_THROUGH, previous=previous
        )
    except DeploymentError as error:
        return [f"{ref.name}/{container}: its log cannot be read: {error.message}"]
    return [f"{ref.name}/{container}: {line}" for line in telling(text.splitlines()) if line]


def telling(lines: Sequence[str]) -> list[str]:
    """Give the last lines of a log, and before them the errors that stand above.

    Args:
        lines: The log.
    """
    errors = dict.fromkeys(line for line in lines[:-LOG_LINES] if _ERROR.search(line))
    return [*list(errors)[-_ERRORS:], *lines[-LOG_LINES:]]
