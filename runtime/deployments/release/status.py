"""How releases stand right now."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from kfp_bento.runtime.deployments.kube.cluster import ClusterConnection, connect
from kfp_bento.runtime.deployments.kube.objects import Manifest, ObjectRef
from kfp_bento.runtime.deployments.release.delete import release_objects
from kfp_bento.runtime.deployments.release.record import read_record
from kfp_bento.runtime.deployments.release.release_facts import ReleaseFacts
from kfp_bento.runtime.deployments.release.served_pods import not_served, served_pods
from kfp_bento.runtime.deployments.release.verdict import (
    DEFAULT_WAITING,
    DELETED,
    READY,
    SUPERSEDED,
    WRONG_IMAGE,
    ReadinessJudge,
    Verdict,
    Waiting,
    other_image,
)
from kfp_bento.runtime.deployments.release.wait import LOOK_PATIENCE, look_at, wait_until_ready
from kfp_bento.runtime.deployments.targets.marks import KIND_LABEL, RELEASE_LABEL, revision_on
from kfp_bento.runtime.deployments.targets.target import Target
from kfp_bento.runtime.deployments.targets.targets import (
    TARGETS,
    read_live,
    release_ref,
    target_of,
    target_of_live,
)
from kfp_bento.runtime.errors import DeploymentError, InvalidInput

# For a release that was ready a moment ago.
SERVED_SECONDS = 60.0


@dataclass(frozen=True)
class ReleaseStatus:
    """One release as the cluster has it.

    Attributes:
        name: Its name.
        namespace: Its namespace.
        target: Its kind of target, one of `TARGETS`.
        exists: Whether its primary object is there.
        ready: Whether it serves in this moment.
        message: What it serves, or what is missing.
        revision: The applied revision; empty when it was not applied as a release.
        image: The applied image.
        bento: The applied bento.
        on_trial: Whether what is applied was not confirmed as good yet.
        run: The pipeline run that put it on trial; empty where none did.
        last_good: The last revision that was confirmed as good; empty when there is none.
        previous_good: The one that was good before it, to which a roll back goes.
        rolled_back: The revision that a roll back has left for the applied one.
        url: Where it answers inside the cluster.
        objects: All objects of the release.
        disbelieved: Why a good release that is on record would not be restored.
    """

    name: str
    namespace: str
    target: str
    exists: bool
    ready: bool
    message: str
    revision: str = ""
    image: str = ""
    bento: str = ""
    on_trial: bool = False
    run: str = ""
    last_good: str = ""
    previous_good: str = ""
    rolled_back: str = ""
    url: str = ""
    objects: tuple[ObjectRef, ...] = ()
    disbelieved: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Give the status as plain JSON values, objects as `Kind namespace/name`."""
        return {**asdict(self), "objects": [str(ref) for ref in self.objects]}


def release_status(
    name: str,
    *,
    target: str,
    namespace: str = "default",
    context: str = "",
) -> ReleaseStatus:
    """Look at a release once.

    Args:
        name: Name of the release.
        target: Kind of target, one of `TARGETS`.
        namespace: Its namespace.
        context: Context of the kubeconfig.

    Raises:
        DeploymentError: No cluster answers, or it refuses to be read.
    """
    ref = release_ref(name, target, namespace)
    with connect(context) as cluster:
        live = cluster.get(ref) if cluster.knows(ref.api_version, ref.kind) else None
        if live is None:
            return ReleaseStatus(name, namespace, target, False, False, f"{ref} is not there.")
        return _status(cluster, live, target_of(target))


def list_releases(
    namespace: str = "default",
    *,
    context: str = "",
) -> tuple[ReleaseStatus, ...]:
    """Look at every release of a namespace once, in the order of their names.

    Args:
        namespace: Where to look.
        context: Context of the kubeconfig.

    Raises:
        DeploymentError: No cluster answers, or it refuses to be read.
    """
    with connect(context) as cluster:
        found = [
            _status(cluster, live, target)
            for target in _targets_by_kind()
            for live in _primaries(cluster, target, namespace)
        ]
    return tuple(sorted(found, key=lambda one: (one.name, one.target)))


def release_facts(
    name: str, *, target: str, namespace: str = "default", context: str = ""
) -> ReleaseFacts:
    """Give what is applied of a release, as its deployment handed it on.

    Args:
        name: Name of the release.
        target: Kind of target, one of `TARGETS`.
        namespace: Its namespace.
        context: Context of the kubeconfig.

    Raises:
        InvalidInput: There is none.
        DeploymentError: No cluster answers, or it refuses to be read.
    """
    found = release_status(name, target=target, namespace=namespace, context=context)
    if not found.revision:
        raise InvalidInput(
            f"{target} {namespace}/{name} is no release of kfp-bento.", hint="Deploy it first."
        )
    return ReleaseFacts(
        found.target,
        "applied",
        name,
        namespace,
        found.revision,
        url=found.url,
        image=found.image,
        bento_tag=found.bento,
        context=context,
    )


def unsettled_releases(
    run: str, *, target: str, namespace: str = "default", context: str = ""
) -> tuple[tuple[ReleaseFacts, bool], ...]:
    """Find what a pipeline run has left on trial, and releases with a promotion under way.

    Args:
        run: The run.
        target: Kind of target, one of `TARGETS`.
        namespace: Where to look.
        context: Context of the kubeconfig.

    Returns:
        Each release, and whether it is on trial for that run.

    Raises:
        DeploymentError: No cluster answers, or it refuses to be read.
    """
    found = []
    chosen = target_of(target)
    with connect(context) as cluster:
        for live in _primaries(cluster, chosen, namespace):
            ref = ObjectRef.of(live)
            holder = chosen.holder_of(ref)
            record = read_record(live if holder == ref else cluster.get(holder), ref)
            on_trial = record.on_trial and bool(run) and record.run == run
            if on_trial or record.promotion:
                facts = ReleaseFacts(
                    target, "applied", ref.name, namespace, record.revision, image=record.image
                )
                found.append((facts, on_trial))
    return tuple(found)


def find_release(
    name: str,
    *,
    namespace: str = "default",
    context: str = "",
) -> str:
    """Give the kind of target of a release that is known by its name only.

    Raises:
        InvalidInput: There is none of that name, or there are several.
        DeploymentError: No cluster answers, or it refuses to be read.
    """
    with connect(context) as cluster:
        kinds = [
            target.kind
            for target in _targets_by_kind()
            for live in _primaries(cluster, target, namespace)
            if live["metadata"]["name"] == name
        ]
    if len(kinds) == 1:
        return kinds[0]
    if kinds:
        raise InvalidInput(
            f"{name}: namespace {namespace} has releases of that name on {', '.join(kinds)}.",
            hint="Say which with the target.",
        )
    raise InvalidInput(
        f"{name}: namespace {namespace} has no release of that name.",
        hint="kfp-bento release list shows those that are there; what a deletion that was stopped "
        "has left is found by the target.",
    )


def wait_for_release(
    name: str,
    *,
    target: str,
    namespace: str = "default",
    waiting: Waiting = DEFAULT_WAITING,
    context: str = "",
) -> Verdict:
    """Wait until a release that is applied already serves.

    Args:
        name: Name of the release.
        target: Kind of target, one of `TARGETS`.
        namespace: Its namespace.
        waiting: How long, and what is no failure.
        context: Context of the kubeconfig.

    Raises:
        InvalidInput: There is no such release.
        DeploymentError: As for `wait_until_ready`.
    """
    ref, chosen = release_ref(name, target, namespace), target_of(target)
    with connect(context, patience_seconds=LOOK_PATIENCE) as cluster:
        live = cluster.get(ref) if cluster.knows(ref.api_version, ref.kind) else None
        if live is None:
            raise InvalidInput(f"{ref} is not there.", hint="Deploy it first.")
        watched = chosen.watched(_objects(cluster, live, chosen))
        return wait_until_ready(cluster, watched, waiting)


def served_release(
    release: ReleaseFacts,
    seconds: float | None = None,
    *,
    cluster: ClusterConnection | None = None,
) -> Verdict:
    """Ask the cluster, down to the pods, whether what answers is a release that was ready before.

    Its pods have to run its image: by the reference that they were given, or by the digest that
    their nodes tell. Whether all replicas are there, as a wait asks, is not asked again.

    Args:
        release: The release, as its deployment gave it.
        seconds: How long it may take, as pods may be on the move; a minute when None.
        cluster: The connection, where there is one already.

    Returns:
        The verdict, with the pods where it is ready. `Superseded` where another release is
        applied by now, `Deleted` where it is gone or going.

    Raises:
        DeploymentError: The cluster does not answer, or refuses to be read.
    """
    if cluster is None:
        with connect(release.context) as connected:
            return served_release(release, seconds, cluster=connected)
    deadline = time.monotonic() + (SERVED_SECONDS if seconds is None else seconds)
    while True:
        verdict = _answering(cluster, release)
        settled = verdict.ready or verdict.reason in (SUPERSEDED, DELETED)
        if settled or time.monotonic() >= deadline:
            return verdict
        time.sleep(1.0)


def _answering(cluster: ClusterConnection, release: ReleaseFacts) -> Verdict:
    ref = release_ref(release.name, release.target, release.namespace)
    target = target_of(release.target)
    live = cluster.get(ref) if cluster.knows(ref.api_version, ref.kind) else None
    if live is None or live["metadata"].get("deletionTimestamp"):
        return Verdict(False, DELETED, f"{ref} is not there (any more), or is being deleted")
    watched = target.watched(_objects(cluster, live, target))
    snapshot, _ = look_at(cluster, watched)
    if revision_on(snapshot.holder) != release.revision:
        return Verdict(False, SUPERSEDED, f"{ref} is at another revision: another was applied")
    # A builder has a tag on record; the digest is compared below.
    watched = replace(watched, image="" if target.builder else release.image).told_by(snapshot)
    if told := next(other_image(watched), ""):
        return Verdict(False, WRONG_IMAGE, told)
    if told := not_served(watched, snapshot):
        return Verdict(False, "NotReady", told)
    pods = served_pods(watched, snapshot)
    # Beside a canary there are pods of another image.
    enough = all if len({one.image for one in watched.deployments}) == 1 else any
    if release.image and pods and not enough(one.is_of(release.image) for one in pods):
        runs = ", ".join(sorted({one.runs or one.image for one in pods}))
        return Verdict(False, WRONG_IMAGE, f"The pods of {ref} run {runs}, not {release.image}")
    asked = ", ".join(one.name for one in pods) or "no pod, as there is none"
    return Verdict(True, READY, f"{ref} answers. Asked: {asked}.", pods=pods)


def _objects(cluster: ClusterConnection, primary: Manifest, target: Target) -> list[Manifest]:
    """Give the live objects of a release, the primary one first."""
    ref = ObjectRef.of(primary)
    objects: list[Manifest] = [primary]
    objects += [live for live in release_objects(cluster, ref, target) if ObjectRef.of(live) != ref]
    for kind, name_of in target.unlabelled.items():
        place = ObjectRef(kind.api_version, kind.name, ref.namespace, name_of(read_live(primary)))
        known = cluster.knows(kind.api_version, kind.name)
        there = [ObjectRef.of(live) for live in objects]
        if known and place not in there and (live := cluster.get(place)):
            objects.append(live)
    return [read_live(one) for one in objects]


def _status(cluster: ClusterConnection, live: Manifest, target: Target) -> ReleaseStatus:
    ref = ObjectRef.of(live)
    holder = target.holder_of(ref)
    record = read_record(live if holder == ref else cluster.get(holder), ref)
    objects = _objects(cluster, live, target)
    watched = target.watched(objects)
    judge = ReadinessJudge(watched, Waiting(steady=0.0))
    verdict = judge.look(look_at(cluster, watched)[0], time.monotonic())
    disbelieved = [error.message for error in record.disbelieved]
    for good in (record.last_good, record.previous_good):
        try:
            if good is not None:
                good.check_gains(objects)
        except DeploymentError as error:
            disbelieved.append(error.message)
    labelled = [one for one in objects if RELEASE_LABEL in (one["metadata"].get("labels") or {})]
    return ReleaseStatus(
        ref.name,
        ref.namespace,
        target_of_live(target, objects).kind,
        exists=True,
        ready=bool(verdict and verdict.ready),
        message=verdict.message if verdict else f"Not ready: {judge.waiting_for}.",
        revision=record.revision,
        image=record.image,
        bento=record.bento,
        on_trial=record.on_trial,
        run=record.run if record.on_trial else "",
        last_good=record.last_good.revision if record.last_good else "",
        previous_good=record.previous_good.revision if record.previous_good else "",
        rolled_back=record.rolled_back if record.serves_good else "",
        url=target.address(objects, live),
        objects=tuple(ObjectRef.of(one) for one in labelled),
        disbelieved=tuple(disbelieved),
    )


def _targets_by_kind() -> Iterator[Target]:
    """Give one target for each kind of primary object."""
    seen = set()
    for target in TARGETS.values():
        if target.primary_kind not in seen:
            seen.add(target.primary_kind)
            yield target


def _primaries(cluster: ClusterConnection, target: Target, namespace: str) -> Iterator[Manifest]:
    kind = target.primary_kind
    if not cluster.knows(kind.api_version, kind.name):
        return
    labels = f"{RELEASE_LABEL},{KIND_LABEL}={kind.name.lower()}"
    for live in cluster.select(kind.api_version, kind.name, namespace, labels=labels):
        metadata = live["metadata"]
        if metadata["labels"][RELEASE_LABEL] == metadata["name"]:
            yield live
