"""The verdict on a release, from what the cluster shows: pure, fed one look after another."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from kfp_bento.runtime.deployments.kube.objects import Manifest
from kfp_bento.runtime.deployments.release.pod_state import (
    builder_problems,
    container_problems,
    container_statuses,
    ended_of,
    eviction_problems,
    exit_of,
    is_evicted,
    is_ready,
    new_pods,
    restarts_of,
)
from kfp_bento.runtime.deployments.release.served_pods import (
    ServedPod,
    other_images,
    served_pods,
)
from kfp_bento.runtime.deployments.targets.marks import revision_on
from kfp_bento.runtime.deployments.targets.readiness import (
    Observation,
    Problem,
    Snapshot,
    Watched,
    WatchedDeployment,
    conditions_of,
    has_arrived,
    image_of,
    is_accepted,
    is_marked,
    is_observed,
    is_same_image,
    live_deployment,
)
from kfp_bento.runtime.errors import DeploymentError
from kfp_bento.runtime.programs import cleaned

READY = "Ready"
WRONG_IMAGE, SUPERSEDED, DELETED = "WrongImage", "Superseded", "Deleted"
DEADLINE = "DeadlineExceeded"


# Seconds that a problem must last which may be gone at the next look.
_FLICKER = 2.0
_GONE = 3.0
_LONGEST = 8000


@dataclass(frozen=True)
class Verdict:
    """Whether a release serves, and if not, why.

    Attributes:
        ready: All of it serves the new revision.
        reason: One word in the style of Kubernetes: `Ready`, `ImagePullBackOff`,
            `CrashLoopBackOff`, `Quota`, `Superseded`, `DeadlineExceeded`, ...
        message: What was seen, in sentences.
        evidence: Events of pods and last log lines, one line each.
        pods: What serves, where it does; none where it is scaled to zero.
    """

    ready: bool
    reason: str
    message: str
    evidence: tuple[str, ...] = ()
    pods: tuple[ServedPod, ...] = ()

    def error(self, name: str, *, hint: str = "") -> DeploymentError:
        """Give the error for a release that does not serve, with its evidence.

        Args:
            name: Name of the release.
            hint: What to do next.
        """
        told = [f"{name} does not serve ({self.reason}): {self.message}"]
        return DeploymentError(
            "\n".join([*told, *(f"  {one}" for one in self.evidence)]), hint=hint
        )


@dataclass(frozen=True)
class Waiting:
    """How long and for what a release is waited for.

    Attributes:
        seconds: The deadline; as long again for a release that is restored.
        steady: Seconds that all must hold.
        unschedulable: Seconds that the scheduler may find no node; an autoscaler needs minutes
            to bring one.
        unwatched: Seconds that an operator may show no sign of life.
        tolerated: Reasons of a verdict that are no failure here, such as `DomainSuffix`.
        progress: Called with a sentence whenever what is waited for changes.
    """

    seconds: float = 600.0
    steady: float = 2.0
    unschedulable: float = 30.0
    unwatched: float = 20.0
    tolerated: Collection[str] = ()
    progress: Callable[[str], None] | None = None


DEFAULT_WAITING = Waiting()


class ReadinessJudge:
    """Looks at snapshots in turn and says when one settles the matter.

    Attributes:
        waiting_for: What the last look still missed, with all that may become a problem.
        progress: The same for people who look on: a problem is told once it has lasted.
        culprits: Pods that show the problem of the verdict.

    Args:
        watched: What must become true.
        waiting: For how long, and what is tolerated.
    """

    def __init__(self, watched: Watched, waiting: Waiting) -> None:
        self.watched = watched
        self.waiting_for = self.progress = "the first look"
        self.culprits: tuple[str, ...] = ()
        self._waiting = waiting
        self._since: dict[tuple[str, str], float] = {}
        self._ready_since: float | None = None
        self._uid = ""
        self._first: Manifest | None = None
        self._were_ready: dict[str, int] = {}
        self._seen: set[str] = set()
        # Evicted before: pods of a revision that is applied again.
        self._evicted: set[str] | None = None

    def look(self, snapshot: Snapshot, now: float) -> Verdict | None:
        """Give the verdict, or None while there is none.

        Args:
            snapshot: What the cluster shows.
            now: Seconds on any steady clock.
        """
        if self._evicted is None:
            self._evicted = {pod["metadata"]["uid"] for pod in filter(is_evicted, snapshot.pods)}
        watched = self.watched.told_by(snapshot)
        waiting = "; ".join(_waiting(watched, snapshot))
        problems = [
            problem
            for problem in self._problems(watched, snapshot, healthy=not waiting)
            if problem.reason not in self._waiting.tolerated
        ]
        self._remember(snapshot)
        current: dict[tuple[str, str], Problem] = {}
        for problem in problems:
            current.setdefault((problem.reason, _subject(problem)), problem)
        self._since = {key: self._since.get(key, now) for key in current}
        for key, problem in current.items():
            if now - self._since[key] >= problem.patience:
                self.culprits = problem.pods
                return Verdict(False, _shown(problem.reason), _shown(problem.message))
        told = [problem.message for problem in problems]
        lasting = [
            problem.message
            for key, problem in current.items()
            if now - self._since[key] >= min(problem.patience, self._waiting.unwatched) / 2
        ]
        missing = [waiting] if waiting else []
        self.waiting_for = _shown("; ".join([*told, *missing])) or "a steady state"
        self.progress = _shown("; ".join([*lasting, *missing])) or "a steady state"
        if waiting or problems:
            self.culprits = tuple(name for problem in problems for name in problem.pods)
            self._ready_since = None
            return None
        if self._ready_since is None:
            self._ready_since = now
        if now - self._ready_since < self._waiting.steady:
            return None
        message, pods = _ready_message(watched, snapshot), served_pods(watched, snapshot)
        return Verdict(True, READY, _shown(message), pods=pods)

    def give_up(self) -> Verdict:
        """Give the verdict when the time is up."""
        told = f"Not ready after {self._waiting.seconds:g} s: {self.waiting_for}."
        return Verdict(False, DEADLINE, told)

    def _remember(self, snapshot: Snapshot) -> None:
        for entry in snapshot.deployments:
            self._seen.add(entry["metadata"]["name"])
        for pod in snapshot.pods:
            if is_ready(pod):
                self._were_ready.setdefault(pod["metadata"]["uid"], restarts_of(pod))

    def _problems(
        self, watched: Watched, snapshot: Snapshot, *, healthy: bool
    ) -> Iterator[Problem]:
        primary = snapshot.primary
        yield from self._identity(snapshot)
        if primary is None:
            return
        found = [(wanted, live_deployment(wanted, snapshot)) for wanted in watched.deployments]
        arrived = all(live is not None and has_arrived(wanted, live) for wanted, live in found)
        self._first = self._first or primary
        look = Observation(snapshot, healthy, arrived, self._waiting.unwatched, self._first)
        yield from watched.problems(watched, look)
        for message in other_image(watched):
            yield Problem(WRONG_IMAGE, message, _FLICKER)
        yield from builder_problems(snapshot)
        for wanted, live in found:
            if live is None:
                if wanted.name in self._seen:
                    message = f"Deployment {wanted.name} was deleted meanwhile"
                    yield Problem(DELETED, message, _GONE)
                continue
            yield from _deployment_problems(wanted, live, direct=watched.direct)
            # Until then the newest pods are those of the revision before.
            if has_arrived(wanted, live) and is_observed(live):
                pods = new_pods(live, snapshot)
                evicted = [pod for pod in pods if is_evicted(pod)]
                for pod in (one for one in pods if one not in evicted):
                    yield from self._pod(pod)
                before = self._evicted or ()
                yield from eviction_problems(
                    [pod for pod in evicted if pod["metadata"]["uid"] not in before]
                )

    def _identity(self, snapshot: Snapshot) -> Iterator[Problem]:
        """Say whether the object is the one that was applied, and still what was applied."""
        ref = self.watched.primary
        primary = snapshot.primary
        if primary is None:
            yield Problem(DELETED, f"{ref} is not there (any more)")
            return
        metadata = primary["metadata"]
        self._uid = self._uid or str(metadata.get("uid"))
        if metadata.get("deletionTimestamp"):
            yield Problem(DELETED, f"{ref} is being deleted")
        elif metadata.get("uid") != self._uid:
            yield Problem(DELETED, f"{ref} was deleted and another one created")
        found = revision_on(snapshot.holder)
        if self.watched.revision and found != self.watched.revision:
            yield Problem(
                SUPERSEDED,
                f"{ref} has revision {found or 'none'} by now instead of "
                f"{self.watched.revision}: another release was applied",
            )

    def _pod(self, pod: Manifest) -> Iterator[Problem]:
        metadata = pod["metadata"]
        name, uid = metadata["name"], metadata["uid"]
        yield from container_problems(pod)
        scheduled = conditions_of(pod).get("PodScheduled") or {}
        if scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable":
            yield Problem(
                "Unschedulable",
                f"No node takes pod {name}: {scheduled.get('message') or 'no message'}",
                self._waiting.unschedulable,
                (name,),
            )
        before = self._were_ready.get(uid)
        if before is not None and not is_ready(pod):
            for status in container_statuses(pod):
                ended = ended_of(status)
                crashed = ended.get("exitCode") and (
                    restarts_of(pod) > before or "terminated" in (status.get("state") or {})
                )
                if crashed:
                    yield Problem(
                        "CrashedAfterReady",
                        f"Container {status['name']} of pod {name} was ready, then ended with "
                        f"{exit_of(ended)}",
                        pods=(name,),
                    )


def _waiting(watched: Watched, snapshot: Snapshot) -> Iterator[str]:
    """Say what is still missing; nothing when the release serves."""
    primary = snapshot.primary
    if primary is None:
        yield f"{watched.primary} is not there"
        return
    if missing := watched.first(snapshot):
        yield missing
        return
    for name in watched.conditions:
        condition = conditions_of(primary).get(name) or {}
        if condition.get("status") != "True":
            told = condition.get("message") or condition.get("reason") or "no message"
            yield f"{name} is {condition.get('status') or 'not there'} ({told})"
    yield from other_image(watched)
    for wanted in watched.deployments:
        yield from _rollout(watched, wanted, snapshot)
    accepted = [_route_name(route) for route in snapshot.routes if is_accepted(route)]
    for ref in watched.routes:
        if ref.name not in accepted:
            yield f"no Gateway has taken HTTPRoute {ref.name} yet"


def other_image(watched: Watched) -> Iterator[str]:
    """Say that what is live asks for another image than the one that was applied."""
    asked = [one.image for one in watched.deployments if one.image]
    if watched.image and asked and not any(is_same_image(watched.image, one) for one in asked):
        told = f"while {watched.image} was applied"
        yield f"{watched.primary} asks for image {asked[0]} by now, {told}"


def _rollout(watched: Watched, wanted: WatchedDeployment, snapshot: Snapshot) -> Iterator[str]:
    live = live_deployment(wanted, snapshot)
    if live is None:
        yield f"there is no Deployment {wanted.name or f'of the new {wanted.component}'} yet"
        return
    name = live["metadata"]["name"]
    labels = live["metadata"].get("labels") or {}
    for key, value in wanted.labels:
        if labels.get(key) != value:
            yield f"Deployment {name} is still at {key}={labels.get(key)}, not {value}"
            return
    if not is_same_image(wanted.image, image := image_of(wanted, live)):
        yield f"Deployment {name} still has image {image}"
        return
    if not is_marked(wanted, live):
        yield f"Deployment {name} still has the pods of another revision"
        return
    if missing := watched.behind(wanted, live, snapshot):
        yield missing
    if not is_observed(live):
        yield f"Deployment {name} was not observed in its generation yet"
        return
    status = live.get("status") or {}
    target = live["spec"].get("replicas", 1)
    counts = [status.get(f"{kind}Replicas") or 0 for kind in ("updated", "available")]
    total = status.get("replicas") or 0
    if target < wanted.minimum:
        # An autoscaler comes later than the Deployment, which starts with one pod.
        yield f"Deployment {name} has {target} of at least {wanted.minimum} replicas wanted so far"
    elif [*counts, total] != [target] * 3:
        updated, available = counts
        yield (
            f"Deployment {name} has {available} of {target} replicas available, "
            f"{updated} of the new revision, {total} in all"
        )
    else:
        yield from other_images(wanted, live, snapshot)
    if (conditions_of(live).get("Progressing") or {}).get("status") == "False":
        yield f"Deployment {name} does not progress"


def _deployment_problems(
    wanted: WatchedDeployment, live: Manifest, *, direct: bool
) -> Iterator[Problem]:
    name = live["metadata"]["name"]
    if live["metadata"].get("deletionTimestamp"):
        yield Problem(DELETED, f"Deployment {name} is being deleted", _FLICKER)
    # A controller that writes the Deployment whole takes that away with its next change.
    kept = direct or (has_arrived(wanted, live) and _is_under_way(live))
    if live["spec"].get("paused") and kept:
        yield Problem("Paused", f"Deployment {name} is paused: nothing is rolled out")
    # Before an operator came by, another image is just the old one.
    told_apart = bool(wanted.labels or wanted.template) and is_marked(wanted, live)
    right = is_same_image(wanted.image, image := image_of(wanted, live))
    if not right and (told_apart or direct):
        yield Problem(
            WRONG_IMAGE,
            f"Deployment {name} has image {image or 'none'} instead of {wanted.image}",
            _FLICKER,
        )
    if not has_arrived(wanted, live) or not is_observed(live):
        return
    conditions = conditions_of(live)
    progressing = conditions.get("Progressing") or {}
    if progressing.get("reason") == "ProgressDeadlineExceeded":
        yield Problem(
            "ProgressDeadlineExceeded",
            f"Deployment {name} made no progress: {progressing.get('message') or 'no message'}",
            1.0,
        )
    refused = conditions.get("ReplicaFailure") or {}
    if refused.get("status") == "True":
        message = str(refused.get("message") or refused.get("reason") or "")
        yield Problem(_refusal_reason(message), f"Pods of {name} are refused: {message}", _FLICKER)


def _is_under_way(live: Manifest) -> bool:
    status = live.get("status") or {}
    return bool((status.get("updatedReplicas") or 0) != live["spec"].get("replicas", 1))


def _refusal_reason(message: str) -> str:
    if "exceeded quota" in message or "failed quota" in message:
        return "Quota"
    if "admission webhook" in message or "calling webhook" in message:
        return "WebhookRejected"
    return "PodsRefused"


def _shown(text: str) -> str:
    """Give what objects say as it may be shown on a terminal."""
    return cleaned(text)[:_LONGEST]


def _route_name(route: Manifest) -> str:
    return str(route["metadata"]["name"])


def _subject(problem: Problem) -> str:
    """Give what a problem is about: counts and times in a message do not make it a new one."""
    return ",".join(problem.pods) or problem.reason


def _ready_message(watched: Watched, snapshot: Snapshot) -> str:
    parts = []
    for wanted in watched.deployments:
        if live := live_deployment(wanted, snapshot):
            count = (live.get("status") or {}).get("availableReplicas") or 0
            parts.append(f"{live['metadata']['name']} {count}/{count}")
    return f"{watched.primary} serves: {', '.join(parts) or 'all conditions are true'}."
