"""Rolling a release out, and back to the last one that served."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from kfp_bento.runtime.deployments.kube.cluster import ClusterConnection, connect
from kfp_bento.runtime.deployments.kube.errors import Refused
from kfp_bento.runtime.deployments.kube.manifests import normalised
from kfp_bento.runtime.deployments.kube.objects import Manifest, ObjectRef
from kfp_bento.runtime.deployments.release.apply import (
    Applied,
    Trial,
    apply_tried,
    completed,
    in_order,
    try_all,
    try_release,
)
from kfp_bento.runtime.deployments.release.delete import delete_stale_objects, release_objects
from kfp_bento.runtime.deployments.release.diff import ReleaseDiff, diff_of
from kfp_bento.runtime.deployments.release.good_release import GoodRelease
from kfp_bento.runtime.deployments.release.record import (
    Record,
    mark_good,
    mark_step_back,
    read_record,
)
from kfp_bento.runtime.deployments.release.verdict import DEFAULT_WAITING, Verdict, Waiting
from kfp_bento.runtime.deployments.release.wait import wait_until_ready
from kfp_bento.runtime.deployments.targets.marks import revision_on
from kfp_bento.runtime.deployments.targets.readiness import Watched
from kfp_bento.runtime.deployments.targets.release import Release
from kfp_bento.runtime.deployments.targets.target import Target
from kfp_bento.runtime.deployments.targets.targets import release_ref, target_of, target_of_live
from kfp_bento.runtime.errors import DeploymentError, KfpBentoError

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
        image: The image that was rolled out, or went back to.
        bento: Its bento.
        diff: What going back was about to change; None where nothing went back.
        left: What was on record before a roll back; None where nothing went back by itself.
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
    left: Record | None = None
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


def roll_out(
    cluster: ClusterConnection,
    release: Release,
    trial: Trial,
    waiting: Waiting,
    *,
    roll_back_on_failure: bool = False,
) -> Rollout:
    """Apply a release, wait for it, and keep it as the last good one.

    A release that serves is recorded on its objects; what earlier revisions left is then
    removed. One that fails stays as it is, or goes back to the last good one. A route sends
    requests to new pods only once they serve. With no seconds to wait it is applied, and nothing
    is kept as good or removed.

    Args:
        cluster: The connection.
        release: What a target rendered.
        trial: What `try_all` gave for it.
        waiting: How long the release may take, and as long again the restored one.
        roll_back_on_failure: Restore the last good release when this one fails, unless
            another run has applied something else by then.

    Returns:
        What was applied and the verdict. A failed release is no error here.

    Raises:
        DeploymentError: The release was refused while it was applied.
    """
    if not waiting.seconds:
        message = f"{release.primary} was applied; whether it serves was not waited for."
        applied = _apply_whole(cluster, release, trial)
        return Rollout(release.revision, applied, Verdict(False, "NotWaited", message))
    made = _bring_out(cluster, release, trial, waiting)
    if made.verdict.ready:
        return replace(made, removed=_settle(cluster, release))
    if not roll_back_on_failure or made.verdict.reason in ("Superseded", "Deleted"):
        return made
    # What it had before and what it has now, the objects that only the one before has included.
    live: list[Manifest] = [one for one in trial.before if one]
    live += release_objects(cluster, release.primary, release.target)
    return _fall_back(cluster, release, made, live, waiting, force=trial.force)


def roll_back(
    name: str,
    *,
    target: str,
    namespace: str = "default",
    leaving: str = "",
    to: str = "",
    waiting: Waiting = DEFAULT_WAITING,
    context: str = "",
    force: bool = False,
    before: Callable[[ReleaseDiff], None] | None = None,
    dry_run: bool = False,
) -> Rollout:
    """Restore a good release from what is recorded on the objects.

    From a release that failed it goes to the last good one, from a good one to the one before.
    Calling it again, also after it was killed anywhere, restores the same one; where there is
    nothing to leave, nothing changes. What is on record is rendered again, by all the rules of the
    target's options: whoever may edit the object may have written it. A later kfp-bento may render
    another revision of it, which the result names.

    Args:
        name: Name of the release.
        target: Kind of target, one of `TARGETS`.
        namespace: Its namespace.
        leaving: Image by digest that is to be left; when another one is applied by now, nothing
            changes. Whatever is applied when empty.
        to: A good revision that is on record; chosen as above when empty.
        waiting: How long the restored release may take to serve.
        context: Context of the kubeconfig.
        force: Take over others' fields.
        before: Called with what would change, before anything does.
        dry_run: Change nothing, only say where it would go (`rolled_back_to`) and what that would
            change (`diff`), with a verdict `DryRun`.

    Raises:
        DeploymentError: No good release is recorded, it was too large to be kept, it is not
            believed, or it would bring what only a sealed record may bring.
    """
    ref, chosen = release_ref(name, target, namespace), target_of(target)
    with connect(context) as cluster:
        live = list(release_objects(cluster, ref, chosen))
        record = _record_of(cluster, ref, chosen, live, leaving)
        good = _destination(ref, record, leaving, to)
        release = completed(cluster, _restorable(ref, good, live), restoring=True)
        trial = try_release(cluster, release, force=force)
        diff = diff_of(cluster, release, trial)
        if before is not None:
            before(diff)
        if dry_run:
            told = Verdict(False, "DryRun", f"{ref} would go to revision {release.revision}.")
            made = Rollout(release.revision, (), told, image=good.image, bento=good.bento)
            return replace(made, rolled_back_to=release.revision, diff=diff, left=record)
        left = good.is_at(record.revision) or mark_step_back(cluster, release, record.revision)
        if not left:
            raise DeploymentError(
                f"{ref} was changed by another run at the same time.",
                hint="Look at it (kfp-bento release status), then try again.",
            )
        return replace(_restore(cluster, release, trial, waiting), diff=diff, left=record)


def _record_of(
    cluster: ClusterConnection,
    ref: ObjectRef,
    target: Target,
    live: Sequence[Manifest],
    leaving: str,
) -> Record:
    """Read what is on record, with the image by digest where one is to be left."""
    record = read_record(cluster.get(target.holder_of(ref)), ref)
    builder = target_of_live(target, live).builder
    if builder and live and "@" in leaving and "@" not in record.image:
        # The cluster has built it, and was told no digest before.
        return replace(record, image=builder(cluster, live) or record.image)
    return record


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


def _restorable(ref: ObjectRef, good: GoodRelease, live: Sequence[Manifest]) -> Release:
    """Give the release to restore.

    Raises:
        DeploymentError: It was too large to keep, or brings what live objects do not have.
    """
    if good.release is None:
        raise DeploymentError(
            f"The options of {ref} at revision {good.revision} were too large to keep.",
            hint=f"Deploy image {good.image} of bento {good.bento} again.",
        )
    good.check_gains(live)
    return good.release


def _is_image(wanted: str, found: str) -> bool:
    return not wanted or wanted.rpartition("@")[2] == found.rpartition("@")[2]


def _bring_out(
    cluster: ClusterConnection, release: Release, trial: Trial, waiting: Waiting
) -> Rollout:
    """Apply a release and wait for it; what sends it requests comes when its pods serve."""
    began = time.monotonic()
    kinds = {kind.name for kind in release.target.traffic}
    traffic = [one for one in release.recorded if one["kind"] in kinds]
    later = [ObjectRef.of(one) for one in traffic]
    applied = _apply_whole(cluster, release, trial, later)

    def keep_whole() -> None:
        # The loser of two runs may write a part of its own after it has lost.
        with suppress(Refused):  # somebody else's field by now: the verdict will tell
            _make_whole(cluster, release, force=False, later=later)

    def wait(watched: Watched) -> Verdict:
        return wait_until_ready(cluster, watched, waiting, began=began, meanwhile=keep_whole)

    verdict = wait(replace(release.watched, routes=()))
    if traffic and verdict.ready:
        applied += apply_tried(cluster, try_all(cluster, traffic, force=trial.force))
        verdict = wait(release.watched)
    return Rollout(release.revision, applied, verdict, image=release.image, bento=release.bento_tag)


def _fall_back(
    cluster: ClusterConnection,
    failed: Release,
    made: Rollout,
    live: Sequence[Manifest],
    waiting: Waiting,
    *,
    force: bool,
) -> Rollout:
    """Leave a release that failed for the last good one, if there is another."""
    record = read_record(cluster.get(failed.holder), failed.primary)
    good = record.last_good
    if good is None and record.disbelieved:
        return replace(made, not_restored=record.disbelieved[0].message)
    if good is None or good.is_at(made.revision) or good.release is None:
        return made
    try:
        release = completed(cluster, _restorable(failed.primary, good, live), restoring=True)
    except KfpBentoError as error:
        return replace(made, not_restored=error.message)
    if not mark_step_back(cluster, release, made.revision):
        return made  # another run has applied something else by now
    if waiting.progress:
        waiting.progress(f"{made.verdict.reason}: rolling back to revision {release.revision}")
    trial = try_release(cluster, release, force=force)
    diff = diff_of(cluster, release, trial)
    back = _restore(cluster, release, trial, waiting)
    return replace(
        made,
        rolled_back_to=release.revision,
        restored=back.verdict,
        removed=back.removed,
        diff=diff,
    )


def _restore(
    cluster: ClusterConnection, release: Release, trial: Trial, waiting: Waiting
) -> Rollout:
    made = _bring_out(cluster, release, trial, waiting)
    removed = _settle(cluster, release, restored=True) if made.verdict.ready else ()
    return replace(made, rolled_back_to=release.revision, removed=removed)


def _settle(
    cluster: ClusterConnection, release: Release, *, restored: bool = False
) -> tuple[ObjectRef, ...]:
    """Keep a release that serves as the good one, and remove what others left."""
    with suppress(Refused):
        _make_whole(cluster, release, force=False)
    if not mark_good(cluster, release, restored=restored):
        return ()
    return delete_stale_objects(cluster, release)


def _apply_whole(
    cluster: ClusterConnection,
    release: Release,
    trial: Trial,
    later: Collection[ObjectRef] = (),
) -> tuple[Applied, ...]:
    """Apply a release such that its parts are of one revision, even beside another run.

    The run whose primary object came last wins. It repairs parts that the other wrote in
    between; the other finds itself superseded.
    """
    applied = apply_tried(cluster, trial, later=later)
    _make_whole(cluster, release, force=trial.force, later=later)
    return applied


def _make_whole(
    cluster: ClusterConnection,
    release: Release,
    *,
    force: bool,
    later: Collection[ObjectRef] = (),
) -> None:
    """Repair what another run has written over, where the holder says that this one has won."""
    ordered = {ObjectRef.of(one): one for one in in_order(release.recorded)}
    now = {ref: one for ref, one in ordered.items() if ref not in later}
    for _ in range(_SETTLING):
        live = {ref: cluster.get(ref) for ref in now}
        if revision_on(live[release.holder]) != release.revision:
            break
        strays = [ref for ref in now if _is_stray(cluster, now[ref], live[ref], force=force)]
        for ref in strays:
            cluster.apply(now[ref], force=force)
        if not strays:
            break


def _is_stray(
    cluster: ClusterConnection, mine: Manifest, live: Manifest | None, *, force: bool
) -> bool:
    """Say whether a live object is of another revision; one beside its holder has no mark."""
    if live is None or revision_on(mine):
        return revision_on(live) != revision_on(mine)
    return bool(normalised(cluster.apply(mine, trial=True, force=force)) != normalised(live))
