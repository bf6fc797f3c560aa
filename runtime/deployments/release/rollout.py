"""Rolling a release out, and back to the last one that served."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from kfp_bento.runtime.deployments.kube.cluster import (
    PATIENCE_SECONDS,
    ClusterConnection,
    Manifest,
    ObjectRef,
    Refused,
    connect,
)
from kfp_bento.runtime.deployments.kube.manifests import normalised
from kfp_bento.runtime.deployments.release.apply import (
    Applied,
    apply_all,
    check_portable,
    in_order,
    primary_of,
)
from kfp_bento.runtime.deployments.release.delete import delete_stale_objects, release_objects
from kfp_bento.runtime.deployments.release.diff import ReleaseDiff, diff_all
from kfp_bento.runtime.deployments.release.good_release import GoodRelease
from kfp_bento.runtime.deployments.release.marks import holder_of, record_release, revision_on
from kfp_bento.runtime.deployments.release.record import (
    Record,
    mark_good,
    mark_step_back,
    read_record,
)
from kfp_bento.runtime.deployments.release.verdict import ReadinessJudge, Verdict
from kfp_bento.runtime.deployments.release.wait import wait_on
from kfp_bento.runtime.deployments.targets.built_image import served_image
from kfp_bento.runtime.deployments.targets.readiness import Watched
from kfp_bento.runtime.deployments.targets.targets import release_ref, target_of, watched_release
from kfp_bento.runtime.errors import DeploymentError

# Two runs at once may both write the parts before one writes the primary object.
_SETTLING = 3
# What sends requests to pods, which have to be there first.
_TRAFFIC_KINDS = ("HTTPRoute",)


@dataclass(frozen=True)
class Rollout:
    """What rolling out did.

    Attributes:
        revision: The revision that was rolled out.
        applied: What happened to each object.
        verdict: Whether it serves.
        removed: Objects of earlier revisions that were removed.
        rolled_back_to: The revision that was restored after a failure; empty when none was.
        restored: Whether the restored one serves; None when none was restored.
        image: The image that was rolled out, or went back to.
        bento: Its bento.
        diff: What going back was about to change; None where nothing went back.
        not_restored: Why the release on record was not restored after a failure.
    """

    revision: str
    applied: tuple[Applied, ...]
    verdict: Verdict
    removed: tuple[ObjectRef, ...] = ()
    rolled_back_to: str = ""
    restored: Verdict | None = None
    image: str = ""
    bento: str = ""
    diff: ReleaseDiff | None = None
    not_restored: str = ""

    @property
    def changed(self) -> bool:
        """Whether any object was created, changed or removed."""
        return bool(self.removed) or any(entry.change != "unchanged" for entry in self.applied)

    def raise_if_failed(self, name: str) -> None:
        """Raise what the wait found wrong; nothing where the release serves.

        Args:
            name: Name of the release.

        Raises:
            DeploymentError: The reason with its evidence, and what serves now.
        """
        if self.verdict.ready:
            return
        hint = "It stays as it is: look at it (kfp-bento release status)."
        if self.restored is not None:
            serves = "which serves"
            if not self.restored.ready:
                serves = f"which does not serve: {self.restored.message}"
            hint = f"It was rolled back to revision {self.rolled_back_to}, {serves}."
        elif self.not_restored:
            hint = f"It stays as it is, and was not rolled back: {self.not_restored}"
        elif not self.rolled_back_to:
            hint = f"{hint[:-1]}, or go back (kfp-bento release roll-back)."
        raise self.verdict.error(name, hint=hint)


@dataclass(frozen=True)
class _Waiting:
    """How long and for what this run waits."""

    seconds: float
    request: bool = True
    progress: Callable[[str], None] | None = None
    judging: Mapping[str, Any] = field(default_factory=dict)

    def on(
        self,
        cluster: ClusterConnection,
        watched: Watched,
        began: float,
        meanwhile: Callable[[], None],
    ) -> Verdict:
        """Wait for what is left of the time since `began`."""
        judge = ReadinessJudge(watched, **self.judging)
        return wait_on(
            cluster,
            judge,
            self.seconds,
            began=began,
            request=self.request,
            progress=self.progress,
            meanwhile=meanwhile,
        )


def roll_out(
    manifests: Sequence[Manifest],
    *,
    image: str = "",
    bento: str = "",
    seconds: float = 600.0,
    roll_back_on_failure: bool = False,
    context: str = "",
    force: bool = False,
    steady_seconds: float = 2.0,
    unschedulable_seconds: float = 30.0,
    unwatched_seconds: float = 20.0,
    request: bool = True,
    tolerated: Collection[str] = (),
    progress: Callable[[str], None] | None = None,
    patience_seconds: float = PATIENCE_SECONDS,
) -> Rollout:
    """Apply manifests as a release, wait for it, and keep it as the last good one.

    A release that serves is recorded on its objects; what earlier revisions left is then
    removed. One that fails stays as it is, or goes back to the last good one. A route sends
    requests to new pods only once they serve.

    Args:
        manifests: What a target rendered.
        image: Image reference by digest, for the record.
        bento: `name:version`, for the record.
        seconds: Deadline of the wait; as long again for the restored release.
        roll_back_on_failure: Restore the last good release when this one fails, unless
            another run has applied something else by then.
        context: Context of the kubeconfig.
        force: Take over fields that another field manager owns.
        steady_seconds: See `wait_until_ready`, as for all up to `progress`.
        unschedulable_seconds: How long the scheduler may find no node.
        unwatched_seconds: How long an operator may show no sign of life.
        request: Ask `/readyz` at the end.
        tolerated: Reasons that are no failure.
        progress: Called with what is waited for.
        patience_seconds: How long one request is tried again.

    Returns:
        What was applied and the verdict. A failed release is no error here.

    Raises:
        DeploymentError: The manifests were refused, before or while they were applied.
    """
    check_portable(manifests)
    recorded = record_release(manifests, image=image, bento=bento)
    judging = {
        "steady_seconds": steady_seconds,
        "unschedulable_seconds": unschedulable_seconds,
        "unwatched_seconds": unwatched_seconds,
        "tolerated": frozenset(tolerated),
    }
    waiting = _Waiting(seconds, request, progress, judging)
    with connect(context, patience_seconds=patience_seconds) as cluster:
        made = _bring_out(cluster, recorded, waiting, force=force)
        if made.verdict.ready:
            return replace(made, removed=_settle(cluster, recorded))
        if not roll_back_on_failure or made.verdict.reason in ("Superseded", "Deleted"):
            return made
        return _fall_back(cluster, made, ObjectRef.of(primary_of(recorded)), waiting, force=force)


def apply_release(
    recorded: Sequence[Manifest], *, context: str = "", force: bool = False
) -> Rollout:
    """Apply manifests as a release and do not wait; nothing is kept as good or removed.

    Args:
        recorded: What `record_release` gave.
        context: Context of the kubeconfig.
        force: Take over fields that another field manager owns.

    Returns:
        What was applied, with a verdict `NotWaited`.

    Raises:
        DeploymentError: The manifests were refused, before or while they were applied.
    """
    check_portable(recorded)
    watched = watched_release(recorded)
    with connect(context) as cluster:
        applied = _apply_whole(cluster, recorded, force=force)
    message = f"{watched.primary} was applied; whether it serves was not waited for."
    return Rollout(watched.revision, applied, Verdict(False, "NotWaited", message))


def roll_back(
    name: str,
    *,
    target: str,
    namespace: str = "default",
    leaving: str = "",
    to: str = "",
    context: str = "",
    seconds: float = 600.0,
    force: bool = False,
    unschedulable_seconds: float = 30.0,
    request: bool = True,
    tolerated: Collection[str] = (),
    progress: Callable[[str], None] | None = None,
    patience_seconds: float = PATIENCE_SECONDS,
    before: Callable[[ReleaseDiff], None] | None = None,
    dry_run: bool = False,
) -> Rollout:
    """Restore a good release from what is recorded on the objects.

    From a release that failed it goes to the last good one, from a good one to the one before.
    Calling it again, also after it was killed anywhere, restores the same one; where there is
    nothing to leave, nothing changes.

    The record is an annotation, which whoever may edit the object may write. So nothing of it is
    applied that the target could not have rendered for this release; see `good_release.py`.

    Args:
        name: Name of the release.
        target: Kind of target, one of `TARGETS`.
        namespace: Its namespace.
        leaving: Image by digest that is to be left; when another one is applied by now, nothing
            changes. Whatever is applied when empty.
        to: A good revision that is on record; chosen as above when empty.
        context: Context of the kubeconfig.
        seconds: Deadline of the wait.
        force: Take over fields that another field manager owns.
        unschedulable_seconds: How long the scheduler may find no node.
        request: Ask `/readyz` at the end.
        tolerated: Reasons that are no failure.
        progress: Called with what is waited for.
        patience_seconds: How long one request is tried again.
        before: Called with what would change, before anything does.
        dry_run: Change nothing, only say where it would go (`rolled_back_to`) and what that would
            change (`diff`), with a verdict `DryRun`.

    Raises:
        DeploymentError: No good release is recorded, it was too large to be kept, or it is not
            believed.
    """
    ref = release_ref(name, target, namespace)
    judging = {
        "tolerated": frozenset(tolerated),
        "unschedulable_seconds": unschedulable_seconds,
    }
    waiting = _Waiting(seconds, request, progress, judging)
    with connect(context, patience_seconds=patience_seconds) as cluster:
        record = read_record(cluster.get(holder_of(ref)), ref)
        if "@" in leaving and "@" not in record.image:
            # The cluster has built it, and was told no digest before.
            built = served_image(cluster, list(release_objects(cluster, ref, target_of(target))))
            record = replace(record, image=built or record.image)
        good = _destination(ref, record, leaving, to)
        if not good.manifests:
            raise DeploymentError(
                f"The manifests of {ref} at revision {good.revision} were too large to keep.",
                hint=f"Deploy image {good.image} of bento {good.bento} again.",
            )
        check_portable(good.manifests)
        diff = diff_all(cluster, good.manifests, force=force)
        if before is not None:
            before(diff)
        if dry_run:
            told = Verdict(False, "DryRun", f"{ref} would go to revision {good.revision}.")
            made = Rollout(good.revision, (), told, image=good.image, bento=good.bento)
            return replace(made, rolled_back_to=good.revision, diff=diff)
        if good.revision != record.revision and not mark_step_back(
            cluster, ref, good, record.revision
        ):
            raise DeploymentError(
                f"{ref} was changed by another run at the same time.",
                hint="Look at it (kfp-bento release status), then try again.",
            )
        return replace(_restore(cluster, good, waiting, force=force), diff=diff)


def _destination(ref: ObjectRef, record: Record, leaving: str, to: str) -> GoodRelease:
    """Choose the release to go back to.

    Raises:
        DeploymentError: There is none on record, or one that is not believed.
    """
    known = [one for one in (record.last_good, record.previous_good) if one]
    if record.disbelieved and not (to and record.good(to)):
        raise record.disbelieved[0]
    if not known:
        raise DeploymentError(
            f"{ref} has no good release on record.",
            hint="A release is recorded once its wait has passed; deploy one.",
        )
    if to:
        chosen = record.good(to)
        if chosen is None:
            raise DeploymentError(
                f"{ref} has no good release {to} on record.",
                hint=f"On record: {', '.join(one.revision for one in known)}.",
            )
        return chosen
    last = known[0]
    left_already = bool(record.rolled_back) or not _is_image(leaving, record.image)
    if record.serves_good and record.previous_good and not left_already:
        return record.previous_good
    if not record.serves_good and not _is_image(leaving, record.image):
        raise DeploymentError(
            f"{ref} has image {record.image or 'unknown'} by now, and it is not the one to leave "
            f"({leaving}).",
            hint="Another release was applied in the meantime, and is not good yet: look at it.",
        )
    return last


def _is_image(wanted: str, found: str) -> bool:
    return not wanted or wanted.rpartition("@")[2] == found.rpartition("@")[2]


def _bring_out(
    cluster: ClusterConnection, recorded: Sequence[Manifest], waiting: _Waiting, *, force: bool
) -> Rollout:
    """Apply a release and wait for it; what sends it requests comes when its pods serve."""
    began = time.monotonic()
    watched = watched_release(recorded)
    traffic = [entry for entry in recorded if entry["kind"] in _TRAFFIC_KINDS]
    later = [ObjectRef.of(entry) for entry in traffic]
    applied = _apply_whole(cluster, recorded, force=force, later=later)

    def keep_whole() -> None:
        # The loser of two runs may write a part of its own after it has lost.
        with suppress(Refused):  # somebody else's field by now: the verdict will tell
            _make_whole(cluster, recorded, force=False, later=later)

    verdict = waiting.on(cluster, replace(watched, routes=()), began, keep_whole)
    if traffic and verdict.ready:
        applied += apply_all(cluster, traffic, force=force)
        verdict = waiting.on(cluster, watched, began, keep_whole)
    holder = holder_of(watched.primary)
    record = read_record(next(one for one in recorded if ObjectRef.of(one) == holder))
    return Rollout(watched.revision, applied, verdict, image=record.image, bento=record.bento)


def _fall_back(
    cluster: ClusterConnection,
    made: Rollout,
    primary: ObjectRef,
    waiting: _Waiting,
    *,
    force: bool,
) -> Rollout:
    """Leave a release that failed for the last good one, if there is another."""
    record = read_record(cluster.get(holder_of(primary)), primary)
    good = record.last_good
    if good is None and record.disbelieved:
        return replace(made, not_restored=record.disbelieved[0].message)
    if good is None or good.revision == made.revision or not good.manifests:
        return made
    if not mark_step_back(cluster, primary, good, made.revision):
        return made  # another run has applied something else by now
    if waiting.progress:
        waiting.progress(f"{made.verdict.reason}: rolling back to revision {good.revision}")
    diff = diff_all(cluster, good.manifests, force=force)
    back = _restore(cluster, good, waiting, force=force)
    return replace(
        made,
        rolled_back_to=good.revision,
        restored=back.verdict,
        removed=back.removed,
        diff=diff,
    )


def _restore(
    cluster: ClusterConnection, good: GoodRelease, waiting: _Waiting, *, force: bool
) -> Rollout:
    made = _bring_out(cluster, good.manifests, waiting, force=force)
    removed = _settle(cluster, good.manifests, restored=True) if made.verdict.ready else ()
    return replace(made, rolled_back_to=good.revision, removed=removed)


def _settle(
    cluster: ClusterConnection, manifests: Sequence[Manifest], *, restored: bool = False
) -> tuple[ObjectRef, ...]:
    """Keep a release that serves as the good one, and remove what others left."""
    with suppress(Refused):
        _make_whole(cluster, manifests, force=False)
    if not mark_good(cluster, manifests, restored=restored):
        return ()
    return delete_stale_objects(cluster, manifests)


def _apply_whole(
    cluster: ClusterConnection,
    manifests: Sequence[Manifest],
    *,
    force: bool,
    later: Collection[ObjectRef] = (),
) -> tuple[Applied, ...]:
    """Apply a release such that its parts are of one revision, even beside another run.

    The run whose primary object came last wins. It repairs parts that the other wrote in
    between; the other finds itself superseded.
    """
    applied = apply_all(cluster, manifests, force=force, later=later)
    _make_whole(cluster, manifests, force=force, later=later)
    return applied


def _make_whole(
    cluster: ClusterConnection,
    manifests: Sequence[Manifest],
    *,
    force: bool,
    later: Collection[ObjectRef] = (),
) -> None:
    """Repair what another run has written over, where the holder says that this one has won."""
    now = {ObjectRef.of(one): one for one in in_order(manifests) if ObjectRef.of(one) not in later}
    holder = holder_of(ObjectRef.of(primary_of(manifests)))
    for _ in range(_SETTLING):
        live = {ref: cluster.get(ref) for ref in now}
        if revision_on(live[holder]) != revision_on(now[holder]):
            break
        strays = [ref for ref in now if _is_stray(cluster, now[ref], live[ref], force=force)]
        for ref in strays:
            cluster.apply(now[ref], force=force)
        if not strays:
            break


def _is_stray(
    cluster: ClusterConnection, mine: Manifest, live: Manifest | None, *, force: bool
) -> bool:
    """Say whether a live object is of another revision; an InferenceService carries no mark."""
    if live is None or revision_on(mine):
        return revision_on(live) != revision_on(mine)
    return bool(normalised(cluster.apply(mine, trial=True, force=force)) != normalised(live))
