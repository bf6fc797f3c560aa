"""A witness of verdicts: whatever is said to serve, the pods are asked at once, on another way.

It shares with the product what a verdict is about, and nothing of how it is found.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from kube_api import KubeApi

from kfp_bento.runtime.deployments.release.verdict import ReadinessJudge, Verdict
from kfp_bento.runtime.deployments.targets.readiness import Snapshot, Watched


def pods_of_other_images(api: KubeApi, watched: Watched) -> list[str]:
    """Give what pods answer requests of a release with another image than it is to have."""
    namespace = watched.primary.namespace
    wanted = {one.name: one for one in watched.deployments if one.name and one.image}
    owners = {
        one["metadata"]["uid"]: _owner(one, "name")
        for one in api.list("apps/v1", "ReplicaSet", namespace)
    }
    found = []
    for pod in api.list("v1", "Pod", namespace, watched.pods):
        own = wanted.get(owners.get(_owner(pod, "uid"), ""))
        if own is None or pod["metadata"].get("deletionTimestamp") or not _is_ready(pod):
            continue
        containers = {one["name"]: one["image"] for one in pod["spec"]["containers"]}
        image = containers.get(own.container) or next(iter(containers.values()))
        if own.image.rpartition("@")[2] not in (image.rpartition("@")[2], image.partition("@")[0]):
            found.append(f"{pod['metadata']['name']} runs {image}, not {own.image}")
    return found


@contextmanager
def witness(api: KubeApi) -> Iterator[list[str]]:
    """Asks the pods whenever a release is said to serve inside; gives what was wrong."""
    look, wrong = ReadinessJudge.look, list[str]()

    def watched_look(judge: ReadinessJudge, snapshot: Snapshot, now: float) -> Verdict | None:
        verdict = look(judge, snapshot, now)
        if verdict and verdict.ready:
            others = pods_of_other_images(api, judge.watched.told_by(snapshot))
            # Unless somebody has applied something else in between.
            holder = judge.watched.holder or judge.watched.primary
            live = api.get(holder.api_version, holder.kind, holder.namespace, holder.name)
            if others and _revision(live) == judge.watched.revision:
                wrong.extend(others)
        return verdict

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ReadinessJudge, "look", watched_look)
        yield wrong


def _owner(live: dict[str, Any], key: str) -> str:
    for one in live["metadata"].get("ownerReferences") or []:
        if one.get("controller"):
            return str(one[key])
    return ""


def _revision(live: dict[str, Any] | None) -> str:
    found = ((live or {}).get("metadata") or {}).get("annotations") or {}
    return str(found.get("kfp-bento/revision") or "")


def _is_ready(pod: dict[str, Any]) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any((one["type"], one["status"]) == ("Ready", "True") for one in conditions)
