"""Rolling a release out, and back to the last one that served."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from kfp_bento.runtime.errors import DeploymentError

from .apply import Applied, apply_all, check_portable, in_order, primary_of
from .cluster import PATIENCE_SECONDS, ClusterConnection, Manifest, ObjectRef, connect
from .delete import delete_stale_objects, release_ref
from .record import (
    LastGood,
    holder_of,
    mark_good,
    read_record,
    record_release,
    revision_on,
)
from .verdict import Judge, Verdict
from .wait import wait_on
from .watched import Watched, watched_release

# Two runs at once may both write the parts before one writes the primary object.
_SETTLING = 3


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
    """

    revision: str
    applied: tuple[Applied, ...]
    verdict: Verdict
    removed: tuple[ObjectRef, ...] = ()
    rolled_back_to: str = ""
    restored: Verdict | None = None

    @property
    def changed(self) -> bool:
        """Whether any object was created or changed."""
        return any(entry.change != "unchanged" for entry in self.applied)


def roll_out(
    manifests: Sequence[Manifest],
    *,
    image: str = "",
    bento: str = "",
    watched: Watched | None = None,
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
    removed. One that fails stays as it is, or goes back to the last good one.

    Args:
        manifests: What a target rendered.
        image: Image reference by digest, for the record.
        bento: `name:version`, for the record.
        watched: What to wait for; from the manifests when None.
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
    described = watched_release(recorded)
    if watched is not None:
        described = replace(watched, revision=described.revision)

    def judge(of: Watched) -> Judge:
        return Judge(
            of,
            steady_seconds=steady_seconds,
            unschedulable_seconds=unschedulable_seconds,
            unwatched_seconds=unwatched_seconds,
            tolerated=frozenset(tolerated),
        )

    def wait(cluster: ClusterConnection, of: Watched) -> Verdict:
        return wait_on(cluster, judge(of), seconds, request=request, progress=progress)

    with connect(context, patience_seconds=patience_seconds) as cluster:
        applied = _apply_whole(cluster, recorded, force=force)
        verdict = wait(cluster, described)
        made = Rollout(described.revision, applied, verdict)
        if verdict.ready:
            return replace(made, removed=_settle(cluster, recorded))
        if not roll_back_on_failure or verdict.reason in ("Superseded", "Deleted"):
            return made
        good = _last_good(cluster, described.primary)
        if good is None or good.revision == described.revision or not good.manifests:
            return made
        _apply_whole(cluster, good.manifests, force=force)
        restored = wait(cluster, watched_release(good.manifests))
        removed = _settle(cluster, good.manifests) if restored.ready else ()
        return replace(made, rolled_back_to=good.revision, restored=restored, removed=removed)


def roll_back(
    name: str,
    *,
    target: str,
    namespace: str = "default",
    context: str = "",
    seconds: float = 600.0,
    force: bool = False,
    request: bool = True,
    progress: Callable[[str], None] | None = None,
    patience_seconds: float = PATIENCE_SECONDS,
) -> Rollout:
    """Restore the last good release from what is recorded on the objects.

    Restoring what is applied already changes nothing.

    Args:
        name: Name of the release.
        target: See `release_ref`.
        namespace: Its namespace.
        context: Context of the kubeconfig.
        seconds: Deadline of the wait.
        force: Take over fields that another field manager owns.
        request: Ask `/readyz` at the end.
        progress: Called with what is waited for.
        patience_seconds: How long one request is tried again.

    Raises:
        DeploymentError: No good release is recorded, or it was too large to be kept.
    """
    ref = release_ref(name, target, namespace)
    with connect(context, patience_seconds=patience_seconds) as cluster:
        good = _last_good(cluster, ref)
        if good is None:
            raise DeploymentError(
                f"{ref} has no good release on record.",
                hint="A release is recorded once its wait has passed; deploy one.",
            )
        if not good.manifests:
            raise DeploymentError(
                f"The manifests of {ref} at revision {good.revision} were too large to keep.",
                hint=f"Deploy image {good.image} of bento {good.bento} again.",
            )
        applied = _apply_whole(cluster, good.manifests, force=force)
        judge = Judge(watched_release(good.manifests))
        verdict = wait_on(cluster, judge, seconds, request=request, progress=progress)
        made = Rollout(good.revision, applied, verdict, rolled_back_to=good.revision)
        if verdict.ready:
            made = replace(made, removed=_settle(cluster, good.manifests))
        return made


def _last_good(cluster: ClusterConnection, primary: ObjectRef) -> LastGood | None:
    return read_record(cluster.get(holder_of(primary))).last_good


def _settle(cluster: ClusterConnection, manifests: Sequence[Manifest]) -> tuple[ObjectRef, ...]:
    """Keep a release that serves as the good one, and remove what others left."""
    if not mark_good(cluster, manifests):
        return ()
    primary = ObjectRef.of(primary_of(manifests))
    return delete_stale_objects(cluster, primary, {ObjectRef.of(entry) for entry in manifests})


def _apply_whole(
    cluster: ClusterConnection, manifests: Sequence[Manifest], *, force: bool
) -> tuple[Applied, ...]:
    """Apply a release such that its parts are of one revision, even beside another run.

    The run whose primary object came last wins. It repairs parts that the other wrote in
    between; the other finds itself superseded.
    """
    applied = apply_all(cluster, manifests, force=force)
    primary = ObjectRef.of(primary_of(manifests))
    holder = holder_of(primary)
    for _ in range(_SETTLING):
        live = {ObjectRef.of(entry): cluster.get(ObjectRef.of(entry)) for entry in manifests}
        mine = {ObjectRef.of(entry): revision_on(entry) for entry in manifests}
        if revision_on(live[holder]) != mine[holder]:
            break
        strays = [ref for ref, found in live.items() if revision_on(found) != mine[ref]]
        if not strays:
            break
        for entry in in_order(manifests):
            if ObjectRef.of(entry) in strays:
                cluster.apply(entry, force=force)
    return applied
