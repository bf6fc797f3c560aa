"""What a wait looks at: which Deployments must serve which image, and what says so."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from kfp_bento.runtime.deployments.kube.objects import Manifest, ObjectRef

POD_REVISION = "kfp-bento/pod-revision"
"""Annotation of pod templates: a digest of all that makes one pod differ from another."""


@dataclass(frozen=True)
class WatchedDeployment:
    """A Deployment that must serve the new revision.

    Attributes:
        name: Its name; "" where its controller chooses one (Knative, one per revision). Then it
            is the one among those with `component` whose pod template is the wanted one.
        image: The image that `container` must have, compared by digest; any when empty.
        container: The container that serves; the first when empty.
        labels: Labels that it carries once the operator has brought it to the new revision.
        template: Annotations that its pod template carries then, and at no other revision.
        minimum: Replicas that the Deployment must want at least; 0 where scaling to zero is
            allowed.
        component: KServe's name of the part, in labels and in `status.components`.
    """

    name: str
    image: str = ""
    container: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    template: tuple[tuple[str, str], ...] = ()
    minimum: int = 1
    component: str = ""


@dataclass(frozen=True)
class Snapshot:
    """What one look at the cluster found.

    Attributes:
        primary: The primary object; None when it is not there.
        holder: The object with the release's facts; often the primary one.
        build: What makes the image, where the cluster does.
        source: What tells the controller which image to run, where that is another object.
        builders: What works on an image that is not built yet: Jobs, and their pods.
        queue: Other objects of the kinds that a controller has not looked at, while that is so.
        deployments: The release's Deployments.
        replica_sets: Their ReplicaSets.
        pods: Their pods, of every revision.
        routes: The release's HTTPRoutes.
    """

    primary: Manifest | None
    holder: Manifest | None = None
    build: Manifest | None = None
    source: Manifest | None = None
    builders: Sequence[Manifest] = ()
    queue: Sequence[Manifest] = ()
    deployments: Sequence[Manifest] = ()
    replica_sets: Sequence[Manifest] = ()
    pods: Sequence[Manifest] = ()
    routes: Sequence[Manifest] = ()


@dataclass(frozen=True)
class Problem:
    """A reason to give up, once it has lasted.

    Attributes:
        reason: One word in the style of Kubernetes.
        message: What was seen.
        patience: Seconds that it must last; 0 gives up at once.
        pods: Names of the pods that show it.
    """

    reason: str
    message: str
    patience: float = 0.0
    pods: tuple[str, ...] = ()


@dataclass(frozen=True)
class Observation:
    """A snapshot in the eyes of a judge.

    Attributes:
        snapshot: What the cluster shows.
        healthy: Whether nothing is missing for readiness.
        arrived: Whether all Deployments have been brought to the new revision.
        unwatched_seconds: How long a controller may show no sign of life.
        first: The primary object at the first look.
    """

    snapshot: Snapshot
    healthy: bool
    arrived: bool
    unwatched_seconds: float
    first: Manifest | None = None


def _no_problems(watched: Watched, look: Observation) -> Iterable[Problem]:
    return ()


def _nothing_first(snapshot: Snapshot) -> str:
    return ""


def _in_step(wanted: WatchedDeployment, live: Manifest, snapshot: Snapshot) -> str:
    return ""


@dataclass(frozen=True)
class Watched:
    """One release as a wait sees it; its target says it of the manifests.

    Attributes:
        primary: The object whose name is the release's.
        holder: The object with the release's facts; the primary one when None.
        revision: What it must say; not looked at when empty.
        image: The image that was applied, which one of the Deployments must have; not looked at
            when empty.
        deployments: All that must be rolled out.
        pods: Label selector of the release's pods, of every revision.
        conditions: Conditions of the primary object that must be True.
        build: The object by which the cluster makes the image; None where it does not.
        source: The object that tells the controller which image to run; None where the primary
            one does.
        builders: What the cluster makes to build the image: API version, kind and label selector
            of each, of which those count that `build` owns, or something that it owns.
        in_turn: Whether its controllers work on one object after the other.
        routes: HTTPRoutes that a Gateway must have taken.
        url: Root of the HTTP service, for a last request; skipped when empty.
        problems: What the target knows about its controller's own failures.
        first: What is missing before Deployments are worth a look; empty when nothing is.
        behind: What a controller has not done yet with a Deployment that has arrived.
    """

    primary: ObjectRef
    holder: ObjectRef | None = None
    revision: str = ""
    image: str = ""
    deployments: tuple[WatchedDeployment, ...] = ()
    pods: str = ""
    conditions: tuple[str, ...] = ()
    build: ObjectRef | None = None
    source: ObjectRef | None = None
    builders: tuple[tuple[str, str, str], ...] = ()
    in_turn: bool = False
    routes: tuple[ObjectRef, ...] = ()
    url: str = ""
    problems: Callable[[Watched, Observation], Iterable[Problem]] = field(
        default=_no_problems, compare=False
    )
    first: Callable[[Snapshot], str] = field(default=_nothing_first, compare=False)
    behind: Callable[[WatchedDeployment, Manifest, Snapshot], str] = field(
        default=_in_step, compare=False
    )

    @property
    def direct(self) -> bool:
        """Whether the release's own objects are the Deployments, with no controller between."""
        return self.primary.kind == "Deployment"

    def told_by(self, snapshot: Snapshot) -> Watched:
        """Give the same with the image that its source names, where the release names none."""
        image = str(((snapshot.source or {}).get("spec") or {}).get("image") or "")
        if not image or all(one.image for one in self.deployments):
            return self
        named = (replace(one, image=one.image or image) for one in self.deployments)
        return replace(self, deployments=tuple(named))


def pod_revision_of(metadata: Manifest | None) -> tuple[tuple[str, str], ...]:
    """Give the mark of a pod template's metadata, in the form of `WatchedDeployment.template`."""
    found = ((metadata or {}).get("annotations") or {}).get(POD_REVISION)
    return ((POD_REVISION, str(found)),) if found else ()


def conditions_of(live: Manifest | None) -> dict[str, Mapping[str, Any]]:
    """Give the conditions of a live object by type."""
    found = ((live or {}).get("status") or {}).get("conditions") or []
    return {condition["type"]: condition for condition in found}


def is_observed(live: Manifest) -> bool:
    """Say whether its controller has seen the generation of a live object."""
    generation = live["metadata"].get("generation") or 0
    return ((live.get("status") or {}).get("observedGeneration") or 0) >= generation


def is_marked(wanted: WatchedDeployment, live: Manifest) -> bool:
    """Say whether a Deployment carries what only the wanted revision carries."""
    labels = live["metadata"].get("labels") or {}
    annotations = (live["spec"]["template"].get("metadata") or {}).get("annotations") or {}
    return all(labels.get(key) == value for key, value in wanted.labels) and all(
        annotations.get(key) == value for key, value in wanted.template
    )


def image_of(wanted: WatchedDeployment, live: Manifest) -> str:
    """Give the image of the container that serves in a live Deployment."""
    containers = live["spec"]["template"]["spec"]["containers"]
    named = [entry for entry in containers if entry["name"] == wanted.container] or containers
    return str(named[0].get("image") or "") if named else ""


def pod_images(wanted: WatchedDeployment, pod: Manifest) -> tuple[str, str]:
    """Give what the container that serves in a pod was to run, and what its node says it runs.

    The second is empty while nothing runs. It has the digest of what a tag meant on that node; for
    an image by digest it may be that of one platform's manifest, as some runtimes tell.
    """
    containers = (pod.get("spec") or {}).get("containers") or []
    # A mesh may have put its own in front.
    chosen = [one for one in containers if wanted.container in ("", one["name"])][:1]
    if not chosen:
        return "", ""
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    found = [str(one.get("imageID") or "") for one in statuses if one["name"] == chosen[0]["name"]]
    return str(chosen[0].get("image") or ""), next(iter(found), "")


def is_same_image(wanted: str, found: str) -> bool:
    """Compare by digest where one is wanted: a mirror may have another name.

    To a tag an admission policy may have added the digest that it means.
    """
    if "@" in wanted:
        return wanted.rpartition("@")[2] == found.rpartition("@")[2]
    return not wanted or wanted == found.partition("@")[0]


def is_run_for(wanted: str, found: str) -> bool:
    """Say whether a pod's image stands for its Deployment's, which admission may have moved."""
    moved = wanted.rpartition("/")[2] == found.partition("@")[0].rpartition("/")[2]
    return is_same_image(wanted, found) or ("@" not in wanted and moved)


def has_arrived(wanted: WatchedDeployment, live: Manifest) -> bool:
    """Say whether a Deployment was brought to the wanted revision, ready or not."""
    return is_marked(wanted, live) and is_same_image(wanted.image, image_of(wanted, live))


def live_deployment(wanted: WatchedDeployment, snapshot: Snapshot) -> Manifest | None:
    """Find a wanted Deployment: by name, or among those of its component by the pods' mark."""
    if wanted.name:
        named = (one for one in snapshot.deployments if one["metadata"]["name"] == wanted.name)
        return next(named, None)
    return next(
        (
            live
            for live in snapshot.deployments
            if (live["metadata"].get("labels") or {}).get("component") == wanted.component
            and has_arrived(wanted, live)
        ),
        None,
    )


def is_accepted(route: Manifest) -> bool:
    """Say whether a Gateway has taken an HTTPRoute in its present generation."""
    generation = route["metadata"].get("generation") or 0
    parents = (route.get("status") or {}).get("parents") or []
    return bool(parents) and all(
        any(
            (one.get("type"), one.get("status")) == ("Accepted", "True")
            and (one.get("observedGeneration") or 0) >= generation
            for one in parent.get("conditions") or []
        )
        for parent in parents
    )
