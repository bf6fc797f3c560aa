"""The wait for a release: looks again and again until a verdict, for as long as asked."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from kfp_bento.runtime.deployments.kube.cluster import ClusterConnection
from kfp_bento.runtime.deployments.kube.errors import ClusterSilent
from kfp_bento.runtime.deployments.kube.objects import Manifest, ObjectRef
from kfp_bento.runtime.deployments.release.evidence import gather_evidence
from kfp_bento.runtime.deployments.release.verdict import ReadinessJudge, Verdict, Waiting
from kfp_bento.runtime.deployments.targets.readiness import Snapshot, Watched, conditions_of
from kfp_bento.runtime.deployments.targets.targets import read_live
from kfp_bento.runtime.programs import cleaned

NOT_ANSWERING = "NotAnswering"
POLL_SECONDS = 2.0
MEANWHILE_SECONDS = 3.0
# Pods may change many times a second; the API server is not asked as often.
_BREATH = 0.5
# One look must not hide a restart of the API server behind its own retries.
LOOK_PATIENCE = 3.0
_REQUEST_SECONDS = 5.0
_STATUS_LINE = 1024
_REQUEST_PATIENCE = 10.0


def wait_until_ready(
    cluster: ClusterConnection,
    watched: Watched,
    waiting: Waiting,
    *,
    began: float | None = None,
    meanwhile: Callable[[], None] = lambda: None,
) -> Verdict:
    """Wait until a release serves, or it is known why it will not; give that with the evidence.

    Ready means: the revision is still ours and observed, its conditions are true, every
    Deployment has all its replicas updated and available with our image, this holds for a steady
    time, and `/readyz` answers where it can be reached. Passing failures are waited out.

    Args:
        cluster: The connection.
        watched: What is waited for.
        waiting: How long, and what is no failure.
        began: A moment of `time.monotonic` from which the deadline counts; now when None.
        meanwhile: Called before a look, every few seconds.

    Raises:
        DeploymentError: The cluster never answers, or refuses to be read.
    """
    judge = ReadinessJudge(watched, waiting)
    deadline = (time.monotonic() if began is None else began) + waiting.seconds
    url = "" if NOT_ANSWERING in waiting.tolerated else watched.url
    told, snapshot, asked_since, called = "", Snapshot(None), 0.0, time.monotonic()
    while True:
        looked, version = time.monotonic(), ""
        try:
            if looked - called >= MEANWHILE_SECONDS:
                called = looked
                meanwhile()
            snapshot, version = look_at(cluster, watched)
            verdict = judge.look(snapshot, looked)
        except ClusterSilent as silent:
            if not cluster.answered:
                raise
            verdict, judge.waiting_for = None, silent.message
            judge.progress = silent.message
        if verdict and verdict.ready and (problem := not_answering(url)):
            asked_since = asked_since or looked
            judge.waiting_for = judge.progress = problem
            lost = looked - asked_since >= _REQUEST_PATIENCE
            verdict = Verdict(False, NOT_ANSWERING, problem) if lost else None
        left = deadline - time.monotonic()
        if verdict is None and left <= 0:
            verdict = judge.give_up()
        if verdict and verdict.ready:
            return verdict
        if verdict:
            evidence = gather_evidence(cluster, watched, snapshot, judge.culprits)
            return replace(verdict, evidence=evidence)
        if waiting.progress and judge.progress != told:
            told = judge.progress
            waiting.progress(told)
        _pause(cluster, watched, version, min(POLL_SECONDS, left))


def look_at(cluster: ClusterConnection, watched: Watched) -> tuple[Snapshot, str]:
    """Take one snapshot of a release, with the version of the pods for a watch."""
    ref = watched.primary
    primary = read_live(cluster.get(ref))
    holder = watched.holder or ref
    build = read_live(cluster.get(watched.build)) if watched.build else None
    deployments: list[dict[str, Any]] = []
    if not all(wanted.name for wanted in watched.deployments):
        deployments = cluster.select("apps/v1", "Deployment", ref.namespace, labels=watched.pods)
    for wanted in watched.deployments:
        place = ObjectRef("apps/v1", "Deployment", ref.namespace, wanted.name)
        live = primary if place == ref else cluster.get(place) if wanted.name else None
        deployments += [live] if live else []
    replica_sets: list[dict[str, Any]] = []
    pods: list[dict[str, Any]] = []
    version = ""
    if watched.pods:
        replica_sets = cluster.select("apps/v1", "ReplicaSet", ref.namespace, labels=watched.pods)
        pods, version = cluster.select_at("v1", "Pod", ref.namespace, labels=watched.pods)
    routes = [live for route in watched.routes if (live := cluster.get(route))]
    source = cluster.get(watched.source) if watched.source else None
    for live in (*deployments, *replica_sets, *pods, *routes):
        read_live(live)
    snapshot = Snapshot(
        primary,
        holder=primary if holder == ref else cluster.get(holder),
        build=build,
        source=read_live(source),
        deployments=deployments,
        replica_sets=replica_sets,
        pods=pods,
        routes=routes,
    )
    return _with_what_keeps_it_waiting(cluster, watched, snapshot), version


def _builders(cluster: ClusterConnection, watched: Watched, build: Manifest) -> list[Manifest]:
    """Give what was made to build an image: what the request owns, and what that owns."""
    owners: set[str | None] = {build["metadata"].get("uid")}
    found: list[Manifest] = []
    for api_version, kind, labels in watched.builders:
        for live in cluster.select(api_version, kind, watched.primary.namespace, labels=labels):
            metadata = live["metadata"]
            if owners & {one.get("uid") for one in metadata.get("ownerReferences") or ()}:
                owners.add(metadata.get("uid"))
                found.append(read_live(live))
    return found


def _with_what_keeps_it_waiting(
    cluster: ClusterConnection, watched: Watched, snapshot: Snapshot
) -> Snapshot:
    """Give a snapshot with the build under way, and with what else waits for a controller."""
    builders: list[Manifest] = []
    if snapshot.build is not None and watched.first(snapshot):
        builders = _builders(cluster, watched, snapshot.build)
    queue: list[Manifest] = []
    for ref, seen in ((watched.primary, snapshot.primary), (watched.build, snapshot.build)):
        if watched.in_turn and ref and seen is not None and not conditions_of(seen):
            others = cluster.select(ref.api_version, ref.kind, ref.namespace)
            queue += [read_live(one) for one in others if ObjectRef.of(one) != ref]
    return replace(snapshot, builders=builders, queue=queue)


def not_answering(url: str) -> str:
    """Ask `/readyz` and say what is wrong with the answer; empty when all is well.

    A name that nobody here can resolve is no finding: the service's name is known inside
    the cluster only.
    """
    parts = urlsplit(url)
    if not parts.hostname:
        return ""
    try:
        socket.getaddrinfo(parts.hostname, parts.port or 80)
    except OSError:
        return ""
    try:
        status = _status_of(parts.hostname, parts.port or 80, f"{parts.path.rstrip('/')}/readyz")
    except (OSError, ValueError) as error:
        return f"all pods are ready, but {url}/readyz does not answer: {cleaned(str(error))}"
    if status < 300:
        return ""
    why = " (a mesh or a policy keeps this pod out)" if status in (401, 403) else ""
    return f"all pods are ready, but {url}/readyz answers {status}{why}"


def _status_of(host: str, port: int, path: str) -> int:
    """Give the status of an answer, in a limited time; nothing else of it is read or followed.

    Raises:
        OSError: No answer in time.
        ValueError: It is none of HTTP.
    """
    deadline = time.monotonic() + _REQUEST_SECONDS
    request = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n"
    with socket.create_connection((host, port), timeout=_REQUEST_SECONDS) as connection:
        connection.sendall(request.encode("ascii"))
        found = b""
        while b"\n" not in found and len(found) < _STATUS_LINE:
            connection.settimeout(max(0.01, deadline - time.monotonic()))
            piece = connection.recv(_STATUS_LINE)
            if not piece:
                break
            found += piece
    answer = re.match(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: |\r?\n)", found)
    if answer is None:
        raise ValueError("what it says is no HTTP" if found else "it closed the connection")
    return int(answer[1])


def _pause(cluster: ClusterConnection, watched: Watched, version: str, seconds: float) -> None:
    """Wait for a pod to change, `seconds` at most; what changed is found by looking again."""
    begun = time.monotonic()
    if version and seconds >= 1:
        cluster.watch_once(
            "v1",
            "Pod",
            watched.primary.namespace,
            labels=watched.pods,
            version=version,
            seconds=seconds,
        )
    pause = min(_BREATH, seconds) if version else seconds
    time.sleep(max(0.0, pause - (time.monotonic() - begun)))
