"""The verdict on a release, from what the cluster shows: pure, fed one look after another."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .cluster import Manifest
from .record import revision_on
from .watched import Watched, WatchedDeployment

READY = "Ready"
DEADLINE = "DeadlineExceeded"

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

# Seconds that a problem must last which may be gone at the next look.
_FLICKER = 2.0
_OPERATOR = 3.0
# yatai-deployment finishes its reconcile within a second unless it polls for an address.
_POLLING = 4.0
_OOM_KILLS = 2

_REVISION = "deployment.kubernetes.io/revision"
_KNATIVE_REVISION = "serving.knative.dev/revision"
_SUFFIX = re.compile(r"domain.?suffix|ingress|load.?balancer|\bnetwork\b.*config", re.IGNORECASE)


@dataclass(frozen=True)
class Verdict:
    """Whether a release serves, and if not, why.

    Attributes:
        ready: All of it serves the new revision.
        reason: One word in the style of Kubernetes: `Ready`, `ImagePullBackOff`,
            `CrashLoopBackOff`, `Quota`, `Superseded`, `DeadlineExceeded`, ...
        message: What was seen, in sentences.
        evidence: Events of pods and last log lines, one line each.
    """

    ready: bool
    reason: str
    message: str
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True)
class Snapshot:
    """What one look at the cluster found.

    Attributes:
        primary: The primary object; None when it is not there.
        holder: The object with the release's facts; often the primary one.
        build: The BentoRequest.
        deployments: The release's Deployments.
        replica_sets: Their ReplicaSets.
        pods: Their pods, of every revision.
    """

    primary: Manifest | None
    holder: Manifest | None = None
    build: Manifest | None = None
    deployments: Sequence[Manifest] = ()
    replica_sets: Sequence[Manifest] = ()
    pods: Sequence[Manifest] = ()


@dataclass(frozen=True)
class Problem:
    """A reason to give up, once it has lasted.

    Attributes:
        reason: See `Verdict`.
        message: See `Verdict`.
        patience: Seconds that it must last; 0 gives up at once.
        pods: Names of the pods that show it.
    """

    reason: str
    message: str
    patience: float = 0.0
    pods: tuple[str, ...] = ()


@dataclass
class Judge:
    """Looks at snapshots in turn and says when one settles the matter.

    Attributes:
        watched: What must become true.
        steady_seconds: How long it must stay true.
        unschedulable_seconds: How long the scheduler may find no node; an autoscaler needs
            minutes to bring one.
        unwatched_seconds: How long an operator may show no sign of life.
        tolerated: Reasons that are no failure here.
        waiting_for: What the last look still missed.
        culprits: Pods that show the problem of the verdict.
    """

    watched: Watched
    steady_seconds: float = 2.0
    unschedulable_seconds: float = 30.0
    unwatched_seconds: float = 20.0
    tolerated: frozenset[str] = frozenset()
    waiting_for: str = "the first look"
    culprits: tuple[str, ...] = ()
    _since: dict[tuple[str, str], float] = field(default_factory=dict)
    _ready_since: float | None = None
    _uid: str = ""
    _were_ready: dict[str, int] = field(default_factory=dict)
    _seen: set[str] = field(default_factory=set)

    def look(self, snapshot: Snapshot, now: float) -> Verdict | None:
        """Give the verdict, or None while there is none.

        Args:
            snapshot: What the cluster shows.
            now: Seconds on any steady clock.
        """
        waiting = "; ".join(_waiting(self.watched, snapshot))
        problems = [
            problem
            for problem in self._problems(snapshot, healthy=not waiting)
            if problem.reason not in self.tolerated
        ]
        self._remember(snapshot)
        current: dict[tuple[str, str], Problem] = {}
        for problem in problems:
            current.setdefault((problem.reason, _subject(problem)), problem)
        self._since = {key: self._since.get(key, now) for key in current}
        for key, problem in current.items():
            if now - self._since[key] >= problem.patience:
                self.culprits = problem.pods
                return Verdict(False, problem.reason, problem.message)
        told = [problem.message for problem in problems]
        self.waiting_for = "; ".join([*told, waiting] if waiting else told) or "a steady state"
        if waiting or problems:
            self.culprits = tuple(name for problem in problems for name in problem.pods)
            self._ready_since = None
            return None
        if self._ready_since is None:
            self._ready_since = now
        if now - self._ready_since < self.steady_seconds:
            return None
        return Verdict(True, READY, _ready_message(self.watched, snapshot))

    def give_up(self, seconds: float) -> Verdict:
        """Give the verdict when the time is up."""
        return Verdict(False, DEADLINE, f"Not ready after {seconds:g} s: {self.waiting_for}.")

    def _remember(self, snapshot: Snapshot) -> None:
        for entry in snapshot.deployments:
            self._seen.add(entry["metadata"]["name"])
        for pod in snapshot.pods:
            if _pod_is_ready(pod):
                self._were_ready.setdefault(pod["metadata"]["uid"], _restarts(pod))

    def _problems(self, snapshot: Snapshot, *, healthy: bool) -> Iterator[Problem]:
        watched, primary = self.watched, snapshot.primary
        yield from self._identity(snapshot)
        if primary is None:
            return
        if watched.build:
            yield from _build_problems(watched, snapshot.build, self.unwatched_seconds)
        if primary["kind"] == "BentoDeployment":
            yield from self._operator(snapshot, healthy=healthy)
        elif primary["kind"] == "InferenceService":
            yield from self._kserve(primary)
        for wanted in watched.deployments:
            live = _deployment(wanted, snapshot)
            if live is None:
                if wanted.name in self._seen:
                    message = f"Deployment {wanted.name} was deleted meanwhile"
                    yield Problem("Deleted", message, _OPERATOR)
                continue
            yield from _deployment_problems(wanted, live, primary)
            # Until then the newest pods are those of the revision before.
            if _arrived(wanted, live) and _observed(live):
                for pod in _new_pods(live, snapshot):
                    yield from self._pod(pod)

    def _identity(self, snapshot: Snapshot) -> Iterator[Problem]:
        """The object is the one that was applied, and still what was applied."""
        ref = self.watched.primary
        primary = snapshot.primary
        if primary is None:
            yield Problem("Deleted", f"{ref} is not there (any more)")
            return
        metadata = primary["metadata"]
        self._uid = self._uid or str(metadata.get("uid"))
        if metadata.get("deletionTimestamp"):
            yield Problem("Deleted", f"{ref} is being deleted")
        elif metadata.get("uid") != self._uid:
            yield Problem("Deleted", f"{ref} was deleted and another one created")
        found = revision_on(snapshot.holder)
        if self.watched.revision and found != self.watched.revision:
            yield Problem(
                "Superseded",
                f"{ref} has revision {found or 'none'} by now instead of "
                f"{self.watched.revision}: another release was applied",
            )

    def _operator(self, snapshot: Snapshot, *, healthy: bool) -> Iterator[Problem]:
        assert snapshot.primary is not None  # noqa: S101
        ref = self.watched.primary
        conditions = _conditions(snapshot.primary)
        if not conditions and not snapshot.deployments:
            yield Problem(
                "NotWatched",
                f"No operator has touched {ref}: yatai-deployment does not run, or does not "
                f"watch namespace {ref.namespace} (BENTO_DEPLOYMENT_NAMESPACES)",
                self.unwatched_seconds,
            )
        available = conditions.get("Available")
        if available is None or available.get("status") == "True":
            return
        message = str(available.get("message") or "")
        failed = available.get("status") == "False"
        if healthy and (not failed or _SUFFIX.search(message)):
            yield Problem(
                "DomainSuffix",
                f"All pods of {ref.name} are ready, but the operator does not finish "
                f"(Available={available.get('status')}: {message or 'no message'}). So it looks "
                "when ConfigMap network in the operator's namespace has no domain-suffix: the "
                "operator then waits for an address up to 20 minutes; any value ends that",
                _FLICKER if failed else _POLLING,
            )
        elif failed and not self.watched.build:
            yield Problem("OperatorError", f"yatai-deployment failed: {message}", _OPERATOR)

    def _kserve(self, primary: Manifest) -> Iterator[Problem]:
        ref, status = self.watched.primary, primary.get("status") or {}
        if not status:
            yield Problem(
                "NotWatched",
                f"KServe has not touched {ref}: its controller does not run or does not watch "
                f"namespace {ref.namespace}",
                self.unwatched_seconds,
            )
        if not _observed(primary):
            return
        model = status.get("modelStatus") or {}
        if model.get("transitionStatus") in ("BlockedByFailedLoad", "InvalidSpec"):
            info = model.get("lastFailureInfo") or {}
            told = info.get("message") or info.get("reason") or model["transitionStatus"]
            yield Problem(model["transitionStatus"], f"{ref} cannot load: {told}", _FLICKER)

    def _pod(self, pod: Manifest) -> Iterator[Problem]:
        metadata = pod["metadata"]
        name, uid = metadata["name"], metadata["uid"]
        yield from _container_problems(pod)
        scheduled = _conditions(pod).get("PodScheduled") or {}
        if scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable":
            yield Problem(
                "Unschedulable",
                f"No node takes pod {name}: {scheduled.get('message') or 'no message'}",
                self.unschedulable_seconds,
                (name,),
            )
        before = self._were_ready.get(uid)
        if before is not None and not _pod_is_ready(pod):
            for status in _container_statuses(pod):
                ended = _ended(status)
                crashed = ended.get("exitCode") and (
                    _restarts(pod) > before or "terminated" in (status.get("state") or {})
                )
                if crashed:
                    yield Problem(
                        "CrashedAfterReady",
                        f"Container {status['name']} of pod {name} was ready, then ended with "
                        f"{_exit(ended)}",
                        pods=(name,),
                    )


def _waiting(watched: Watched, snapshot: Snapshot) -> Iterator[str]:
    """Say what is still missing; nothing when the release serves."""
    primary = snapshot.primary
    if primary is None:
        yield f"{watched.primary} is not there"
        return
    if watched.build:
        available = _conditions(snapshot.build or {}).get("BentoAvailable") or {}
        if available.get("status") != "True":
            told = available.get("message") or "no word from the builder yet"
            yield f"the image is being built ({told})"
            return
    if watched.conditions:
        if not _observed(primary):
            yield f"{watched.primary} was not observed in its generation yet"
        for name in watched.conditions:
            condition = _conditions(primary).get(name) or {}
            if condition.get("status") != "True":
                told = condition.get("message") or condition.get("reason") or "no message"
                yield f"{name} is {condition.get('status') or 'not there'} ({told})"
    for wanted in watched.deployments:
        yield from _rollout(wanted, snapshot)


def _rollout(wanted: WatchedDeployment, snapshot: Snapshot) -> Iterator[str]:
    assert snapshot.primary is not None  # noqa: S101
    part = _component(wanted, snapshot.primary)
    created, ready = part.get("latestCreatedRevision"), part.get("latestReadyRevision")
    if created and created != ready:
        yield f"revision {created} is not ready; {ready or 'none'} serves"
        return
    live = _deployment(wanted, snapshot)
    if live is None:
        yield f"there is no Deployment {wanted.name} yet"
        return
    labels = live["metadata"].get("labels") or {}
    for key, value in wanted.labels:
        if labels.get(key) != value:
            yield f"Deployment {wanted.name} is still at {key}={labels.get(key)}, not {value}"
            return
    if not _same_image(wanted.image, image := _image(wanted, live)):
        yield f"Deployment {wanted.name} still has image {image}"
        return
    if not _marked(wanted, live):
        yield f"Deployment {wanted.name} still has the pods of another revision"
        return
    if not _observed(live):
        yield f"Deployment {wanted.name} was not observed in its generation yet"
        return
    status = live.get("status") or {}
    target = live["spec"].get("replicas", 1)
    counts = [status.get(f"{kind}Replicas") or 0 for kind in ("updated", "available")]
    total = status.get("replicas") or 0
    if target == 0 and not created and wanted.minimum:
        yield f"Deployment {wanted.name} is scaled to 0"
    elif [*counts, total] != [target] * 3:
        updated, available = counts
        yield (
            f"Deployment {wanted.name} has {available} of {target} replicas available, "
            f"{updated} of the new revision, {total} in all"
        )
    if (_conditions(live).get("Progressing") or {}).get("status") == "False":
        yield f"Deployment {wanted.name} does not progress"


def _deployment_problems(
    wanted: WatchedDeployment, live: Manifest, primary: Manifest
) -> Iterator[Problem]:
    name = wanted.name
    if live["metadata"].get("deletionTimestamp"):
        yield Problem("Deleted", f"Deployment {name} is being deleted", _FLICKER)
    if live["spec"].get("paused"):
        yield Problem("Paused", f"Deployment {name} is paused: nothing is rolled out")
    # Before an operator came by, another image is just the old one.
    told_apart = bool(wanted.labels or wanted.template) and _marked(wanted, live)
    right = _same_image(wanted.image, image := _image(wanted, live))
    if not right and (told_apart or primary["kind"] == "Deployment"):
        yield Problem(
            "WrongImage",
            f"Deployment {name} has image {image or 'none'} instead of {wanted.image}",
            _FLICKER,
        )
    if not _arrived(wanted, live) or not _observed(live):
        return
    conditions = _conditions(live)
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


def _refusal_reason(message: str) -> str:
    if "exceeded quota" in message or "failed quota" in message:
        return "Quota"
    if "admission webhook" in message or "calling webhook" in message:
        return "WebhookRejected"
    return "PodsRefused"


def _build_problems(
    watched: Watched, build: Manifest | None, unwatched_seconds: float
) -> Iterator[Problem]:
    if build is None:
        yield Problem("Deleted", f"BentoRequest {watched.build} is not there", _OPERATOR)
        return
    conditions = _conditions(build)
    if not conditions:
        yield Problem(
            "NotWatched",
            f"No builder has touched BentoRequest {watched.build}: yatai-image-builder does not "
            f"run, or does not watch namespace {watched.primary.namespace}",
            unwatched_seconds,
        )
    available = conditions.get("BentoAvailable") or {}
    if available.get("status") == "False":
        told = available.get("message") or "no message"
        # yatai-image-builder passes through Unknown at every reconcile; False must last.
        yield Problem("BuildFailed", f"The image was not built: {told}", _OPERATOR)


def _container_problems(pod: Manifest) -> Iterator[Problem]:
    name = pod["metadata"]["name"]
    for status in _container_statuses(pod):
        waiting = (status.get("state") or {}).get("waiting") or {}
        reason = str(waiting.get("reason") or "")
        told = waiting.get("message") or "no message"
        ended = _ended(status)
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
            message = f"{subject} keeps ending with {_exit(ended)}, {restarts} restarts"
            yield Problem(reason, message, pods=(name,))


def _new_pods(live: Manifest, snapshot: Snapshot) -> list[Manifest]:
    """Give the pods of a Deployment's newest revision; those of older ones prove nothing."""
    revision = (live["metadata"].get("annotations") or {}).get(_REVISION)
    owners = {
        entry["metadata"]["uid"]
        for entry in snapshot.replica_sets
        if _owned(entry, live["metadata"].get("uid"))
        and (entry["metadata"].get("annotations") or {}).get(_REVISION) == revision
    }
    return [
        pod
        for pod in snapshot.pods
        if not pod["metadata"].get("deletionTimestamp")
        and any(_owned(pod, owner) for owner in owners)
    ]


def _deployment(wanted: WatchedDeployment, snapshot: Snapshot) -> Manifest | None:
    """Find a wanted Deployment; Knative has one per revision, told apart by a label."""
    created = _component(wanted, snapshot.primary or {}).get("latestCreatedRevision")
    for live in snapshot.deployments:
        if created:
            if (live["metadata"].get("labels") or {}).get(_KNATIVE_REVISION) == created:
                return live
        elif live["metadata"]["name"] == wanted.name:
            return live
    return None


def _component(wanted: WatchedDeployment, primary: Manifest) -> Mapping[str, Any]:
    if primary.get("kind") != "InferenceService":
        return {}
    components = (primary.get("status") or {}).get("components") or {}
    return components.get(wanted.name.rpartition("-")[2]) or {}


def _arrived(wanted: WatchedDeployment, live: Manifest) -> bool:
    return _marked(wanted, live) and _same_image(wanted.image, _image(wanted, live))


def _marked(wanted: WatchedDeployment, live: Manifest) -> bool:
    """Say whether a Deployment carries what only the wanted revision carries."""
    labels = live["metadata"].get("labels") or {}
    metadata = live["spec"]["template"].get("metadata") or {}
    annotations = metadata.get("annotations") or {}
    return all(labels.get(key) == value for key, value in wanted.labels) and all(
        annotations.get(key) == value for key, value in wanted.template
    )


def _image(wanted: WatchedDeployment, live: Manifest) -> str:
    containers = live["spec"]["template"]["spec"]["containers"]
    named = [entry for entry in containers if entry["name"] == wanted.container] or containers
    return str(named[0].get("image") or "")


def _same_image(wanted: str, found: str) -> bool:
    """Compare by digest where there is one: a mirror may have another name."""
    if "@" in wanted:
        return wanted.rpartition("@")[2] == found.rpartition("@")[2]
    return not wanted or wanted == found


def _observed(live: Manifest) -> bool:
    generation = live["metadata"].get("generation") or 0
    return ((live.get("status") or {}).get("observedGeneration") or 0) >= generation


def _conditions(live: Manifest) -> dict[str, Mapping[str, Any]]:
    found = (live.get("status") or {}).get("conditions") or []
    return {condition["type"]: condition for condition in found}


def _owned(live: Manifest, uid: Any) -> bool:
    references = live["metadata"].get("ownerReferences") or []
    return any(reference.get("uid") == uid for reference in references)


def _container_statuses(pod: Manifest) -> list[Mapping[str, Any]]:
    status = pod.get("status") or {}
    return [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]


def _ended(status: Mapping[str, Any]) -> Mapping[str, Any]:
    for key in ("state", "lastState"):
        if ended := (status.get(key) or {}).get("terminated"):
            return dict(ended)
    return {}


def _exit(ended: Mapping[str, Any]) -> str:
    reason = f" ({ended['reason']})" if ended.get("reason") else ""
    return f"exit code {ended.get('exitCode', 'unknown')}{reason}"


def _restarts(pod: Manifest) -> int:
    return sum(int(status.get("restartCount") or 0) for status in _container_statuses(pod))


def _pod_is_ready(pod: Manifest) -> bool:
    return (_conditions(pod).get("Ready") or {}).get("status") == "True"


def _subject(problem: Problem) -> str:
    """What a problem is about: counts and times in a message do not make it a new one."""
    return ",".join(problem.pods) or problem.reason


def _ready_message(watched: Watched, snapshot: Snapshot) -> str:
    parts = []
    for wanted in watched.deployments:
        if live := _deployment(wanted, snapshot):
            count = (live.get("status") or {}).get("availableReplicas") or 0
            parts.append(f"{live['metadata']['name']} {count}/{count}")
    return f"{watched.primary} serves: {', '.join(parts) or 'all conditions are true'}."
