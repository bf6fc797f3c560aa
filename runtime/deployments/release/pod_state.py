"""What the pods of a release, and of the build of its image, tell about themselves."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from kfp_bento.runtime.deployments.kube.objects import Manifest
from kfp_bento.runtime.deployments.targets.readiness import Problem, Snapshot, conditions_of

# Waiting reasons of the kubelet that do not pass by themselves in any useful time.
_IMAGE = frozenset(
    (
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
    )
)
_START = frozenset(("CreateContainerConfigError", "CreateContainerError", "RunContainerError"))
_LOOP = "CrashLoopBackOff"
_OOM_KILLS = 2
# Of pods in a row, each on whatever node was left.
_EVICTIONS = 3
# All of the kubelet's messages about local storage that a pod itself has limited; those about
# what a node lacks hold names of containers.
_OWN_LIMIT = re.compile(r"\bexceed(s|ed) (its|the)\b[^.]*\blimit\b")
# Of the seven pods that a Job of a builder tries.
_FAILED_BUILDS = 3
# Seconds for which those of an attempt before may still be there.
_BEFORE = 3.0
_REVISION = "deployment.kubernetes.io/revision"


def container_problems(pod: Manifest) -> Iterator[Problem]:
    """Say what keeps the containers of a pod from running."""
    name = pod["metadata"]["name"]
    for status in container_statuses(pod):
        waiting = (status.get("state") or {}).get("waiting") or {}
        reason = str(waiting.get("reason") or "")
        told = waiting.get("message") or "no message"
        ended = ended_of(status)
        subject = f"Container {status['name']} of pod {name}"
        restarts = int(status.get("restartCount") or 0)
        if ended.get("reason") == "OOMKilled" and (restarts >= _OOM_KILLS or reason == _LOOP):
            message = f"{subject} was killed for its memory, {restarts} restarts; raise the limit"
            yield Problem("OOMKilled", message, pods=(name,))
        elif reason in _IMAGE:
            yield Problem(
                reason, f"{subject} has no image {status.get('image')}: {told}", pods=(name,)
            )
        elif reason in _START:
            yield Problem(reason, f"{subject} cannot start: {told}", pods=(name,))
        elif reason == _LOOP:
            message = f"{subject} keeps ending with {exit_of(ended)}, {restarts} restarts"
            yield Problem(reason, message, pods=(name,))


def eviction_problems(evicted: Sequence[Manifest]) -> Iterator[Problem]:
    """Say where nodes throw pods out: for a limit of their own, or again and again.

    A node that has run out of something throws out pods that another node may keep.
    """
    for number, pod in enumerate(evicted, 1):
        told = str(pod["status"].get("message") or "no message").strip()
        if _OWN_LIMIT.search(told) or number >= _EVICTIONS:
            name = pod["metadata"]["name"]
            yield Problem("Evicted", f"A node has thrown out pod {name}: {told}", pods=(name,))


def is_evicted(pod: Manifest) -> bool:
    """Say whether a node has ended a pod for what it used."""
    status = pod.get("status") or {}
    return status.get("phase") == "Failed" and status.get("reason") == "Evicted"


def builder_problems(snapshot: Snapshot) -> Iterator[Problem]:
    """Judge what builds the image: its Job tries six times more, and a builder waits for that.

    What is seen has to last, as the pods of an attempt before are still there for a moment.
    """
    builders = [one for one in snapshot.builders if not one["metadata"].get("deletionTimestamp")]
    pods = [one for one in builders if one["kind"] == "Pod"]
    for pod in pods:
        for problem in container_problems(pod):
            yield replace(problem, patience=_BEFORE)
    for job in (one for one in builders if one["kind"] == "Job"):
        if ((job.get("status") or {}).get("failed") or 0) >= _FAILED_BUILDS:
            told = "; ".join(text for pod in pods for text in _ends(pod)) or "they are gone"
            message = f"Pods of build Job {job['metadata']['name']} keep failing: {told}"
            names = tuple(pod["metadata"]["name"] for pod in pods)
            yield Problem("BuildFailed", message, _BEFORE, names)


def _ends(pod: Manifest) -> Iterator[str]:
    for status in container_statuses(pod):
        if (ended := ended_of(status)).get("exitCode"):
            yield f"{status['name']} of {pod['metadata']['name']} ended with {exit_of(ended)}"


def new_pods(live: Manifest, snapshot: Snapshot) -> list[Manifest]:
    """Give the pods of a Deployment's newest revision; those of older ones prove nothing."""
    revision = _revision_of(live)
    return [pod for pod, found in _pods_by_revision(live, snapshot) if found == revision]


def pods_of_others(live: Manifest, snapshot: Snapshot) -> list[Manifest]:
    """Give the pods of a Deployment's older revisions."""
    revision = _revision_of(live)
    return [pod for pod, found in _pods_by_revision(live, snapshot) if found != revision]


def _revision_of(live: Manifest) -> str | None:
    found = (live["metadata"].get("annotations") or {}).get(_REVISION)
    return None if found is None else str(found)


def _pods_by_revision(live: Manifest, snapshot: Snapshot) -> Iterator[tuple[Manifest, str | None]]:
    uid = live["metadata"].get("uid")
    owners = {
        entry["metadata"]["uid"]: _revision_of(entry)
        for entry in snapshot.replica_sets
        if _owned(entry, uid)
    }
    for pod in snapshot.pods:
        if not pod["metadata"].get("deletionTimestamp"):
            for owner, revision in owners.items():
                if _owned(pod, owner):
                    yield pod, revision


def container_statuses(pod: Manifest) -> list[Mapping[str, Any]]:
    """Give the statuses of all containers of a pod, those that come first included."""
    status = pod.get("status") or {}
    return [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]


def ended_of(status: Mapping[str, Any]) -> Mapping[str, Any]:
    """Give how a container has ended, now or the time before; empty where it has not."""
    for key in ("state", "lastState"):
        if ended := (status.get(key) or {}).get("terminated"):
            return dict(ended)
    return {}


def exit_of(ended: Mapping[str, Any]) -> str:
    """Give an exit code with its reason."""
    reason = f" ({ended['reason']})" if ended.get("reason") else ""
    return f"exit code {ended.get('exitCode', 'unknown')}{reason}"


def restarts_of(pod: Manifest) -> int:
    """Give how often the containers of a pod were started again."""
    return sum(int(status.get("restartCount") or 0) for status in container_statuses(pod))


def is_ready(pod: Manifest) -> bool:
    """Say whether a pod is ready."""
    return (conditions_of(pod).get("Ready") or {}).get("status") == "True"


def _owned(live: Manifest, uid: Any) -> bool:
    references = live["metadata"].get("ownerReferences") or []
    return any(reference.get("uid") == uid for reference in references)
