"""Rolling a release out, and back to the last one that served."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from kfp_bento.runtime.deployments.kube.cluster import ClusterConnection
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
from kfp_bento.runtime.deployments.release.claims import claim
from kfp_bento.runtime.deployments.release.delete import (
    delete_objects,
    delete_stale_objects,
    release_objects,
)
from kfp_bento.runtime.deployments.release.diff import ReleaseDiff, diff_of
from kfp_bento.runtime.deployments.release.good_release import GoodRelease
from kfp_bento.runtime.deployments.release.record import (
    Record,
    mark_good,
    mark_run,
    mark_step_back,
    mark_trial,
    read_record,
)
from kfp_bento.runtime.deployments.release.verdict import Verdict, Waiting
from kfp_bento.runtime.deployments.release.wait import wait_until_ready
from kfp_bento.runtime.deployments.targets.marks import NEW, revision_on
from kfp_bento.runtime.deployments.targets.readiness import Watched
from kfp_bento.runtime.deployments.targets.release import Release, annotated
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
        models: Its registered models, name and version; only where a release went back.
        diff: What going back was about to change; None where nothing went back.
        left: What was on record before a roll back; None where nothing went back by itself.
        not_restored: Why the release on record was not restored after a failure.
        taken_away: What was deleted after a failure: there was no release before.
        confirmed: Whether the release is on record as good.
    """

    revision: str
    applied: tuple[Applied, ...]
    verdict: Verdict
    removed: tuple[ObjectRef, ...] = ()
    rolled_back_to: str = ""
    restored: Verdict | None = None
    image: str = ""
    bento: str = ""
    models: tuple[tuple[str, str], ...] = ()
    diff: ReleaseDiff | None = None
    left: Record | None = None
    not_restored: str = ""
    taken_away: tuple[ObjectRef, ...] = ()
    confirmed: bool = False

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
        raise self.verdict.error(name, hint=self.what_serves_now)

    @property
    def what_serves_now(self) -> str:
        """What serves after a failure, in a sentence for people."""
        if self.taken_away:
            return "It was the first of its name and was taken away again: nothing serves."
        stays = "It stays as it is: look at it (kfp-bento release status)"
        if self.restored is not None:
            serves = "which serves"
            if not self.restored.ready:
                serves = f"which does not serve: {self.restored.message}"
            return f"It was rolled back to revision {self.rolled_back_to}, {serves}."
        if self.not_restored:
            return f"It stays as it is, and was not rolled back: {self.not_restored}"
        back = "" if self.rolled_back_to else ", or go back (kfp-bento release roll-back)"
        return f"{stays}{back}."


def roll_out(
    cluster: ClusterConnection,
    release: Release,
    trial: Trial,
    waiting: Waiting,
    *,
    roll_back_on_failure: bool = False,
    confirm: bool = False,
    run: str = "",
) -> Rollout:
    """Apply a release, wait for it, and leave it on trial.

    A release on trial is good only once it is confirmed; what earlier revisions left is removed
    then. One that fails stays as it is, or goes back to the last good one; where there was nothing
    before, it is taken away. A route sends requests to new pods only once they serve. With no
    seconds to wait it is applied, and nothing more.

    Args:
        cluster: The connection.
        release: What a target rendered.
        trial: What `try_all` gave for it.
        waiting: How long the release may take, and as long again the restored one.
        roll_back_on_failure: Restore the last good release when this one fails, unless
            another run has applied something else by then.
        confirm: Keep it as good as soon as it serves, without another check.
        run: The pipeline run that puts it on trial.

    Returns:
        What was applied and the verdict. A failed release is no error here.

    Raises:
        DeploymentError: The release was refused while it was applied.
    """
    trial = _of_run(cluster, release, trial, run)
    if not waiting.seconds:
        message = f"{release.primary} was applied; whether it serves was not waited for."
        applied = _apply_whole(cluster, release, trial)
        mark_trial(cluster, release, run=run, created=_is_first(release, trial))
        return Rollout(release.revision, applied, Verdict(False, "NotWaited", message))
    made = _bring_out(cluster, release, trial, waiting, run=run)
    if made.verdict.ready:
        good = confirm or read_record(cluster.get(release.holder), release.primary).serves_good
        if not good:
            return made
        return replace(made, removed=_settle(cluster, release), confirmed=True)
    if not roll_back_on_failure or made.verdict.reason in ("Superseded", "Deleted"):
        return made
    # What it had before and what it has now, the objects that only the one before has included.
    live: list[Manifest] = [one for one in trial.before if one]
    live += release_objects(cluster, release.primary, release.target)
    made = fall_back(
        cluster, release.holder, release.primary, made, live, waiting, force=trial.force
    )
    if made.restored is None and not made.not_restored and _is_first(release, trial):
        return replace(made, taken_away=_taken_away(cluster, release, trial))
    return made


def restorable(ref: ObjectRef, good: GoodRelease, live: Sequence[Manifest]) -> Release:
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


def _is_first(release: Release, trial: Trial) -> bool:
    """Say whether there was no such release before it was tried."""
    pairs = zip(trial.manifests, trial.before, strict=True)
    return any(ObjectRef.of(one) == release.primary and live is None for one, live in pairs)


def _of_run(cluster: ClusterConnection, release: Release, trial: Trial, run: str) -> Trial:
    """Say whose trial it is before it begins: a run that dies in between is settled as well."""
    tried = zip(trial.manifests, trial.before, strict=True)
    live = next((old for one, old in tried if ObjectRef.of(one) == release.holder), None)
    good = read_record(live, release.primary).last_good
    if not run or (good and good.is_at(release.revision)):
        return trial
    if live is not None:
        mark_run(cluster, release.holder, run)
        return trial
    manifests = [
        annotated(one, {NEW: run}) if ObjectRef.of(one) == release.holder else one
        for one in trial.manifests
    ]
    return replace(trial, manifests=tuple(manifests))


def _taken_away(
    cluster: ClusterConnection, release: Release, trial: Trial
) -> tuple[ObjectRef, ...]:
    """Delete what the first release of a name has brought, and nothing that was there before."""
    there = {ObjectRef.of(live) for live in trial.before if live}
    return delete_objects(cluster, release.primary, release.target, keep=there)


def _bring_out(
    cluster: ClusterConnection,
    release: Release,
    trial: Trial,
    waiting: Waiting,
    *,
    run: str | None = None,
) -> Rollout:
    """Apply a release and wait for it; what sends it requests comes when its pods serve."""
    began = time.monotonic()
    kinds = {kind.name for kind in release.target.traffic}
    traffic = [one for one in release.recorded if one["kind"] in kinds]
    later = [ObjectRef.of(one) for one in traffic]
    applied = _apply_whole(cluster, release, trial, later)
    if release.target.waker and (live := cluster.get(release.primary)):
        _, wake = release.target.waker
        wake(cluster, live)
    if run is not None:
        mark_trial(cluster, release, run=run, created=_is_first(release, trial))

    def keep_whole() -> None:
        # The loser of two runs may write a part of its own after it has lost.
        with suppress(DeploymentError):  # somebody else's by now: the verdict will tell
            _make_whole(cluster, release, force=False, later=later)

    def wait(watched: Watched) -> Verdict:
        return wait_until_ready(cluster, watched, waiting, began=began, meanwhile=keep_whole)

    verdict = wait(replace(release.watched, routes=()))
    if traffic and verdict.ready:
        applied += apply_tried(cluster, try_all(cluster, traffic, force=trial.force))
        verdict = wait(release.watched)
    return Rollout(release.revision, applied, verdict, image=release.image, bento=release.bento_tag)


def fall_back(
    cluster: ClusterConnection,
    holder: ObjectRef,
    primary: ObjectRef,
    made: Rollout,
    live: Sequence[Manifest],
    waiting: Waiting,
    *,
    force: bool,
) -> Rollout:
    """Leave a release that failed for the last good one, if there is another.

    Args:
        cluster: Where the release is.
        holder: Its holder.
        primary: Its primary object.
        made: What failed, and why.
        live: Its objects, and those that it replaced.
        waiting: How long the restored one may take.
        force: Take over others' fields.

    Returns:
        The same, with what was restored or why nothing was.
    """
    record = read_record(cluster.get(holder), primary)
    good = record.last_good
    if good is None and record.disbelieved:
        return replace(made, not_restored=record.disbelieved[0].message)
    if good is None or good.is_at(made.revision) or good.release is None:
        return made
    try:
        release = completed(cluster, restorable(primary, good, live), restoring=True)
    except KfpBentoError as error:
        return replace(made, not_restored=error.message)
    if not mark_step_back(cluster, release, made.revision):
        return made  # another run has applied something else by now
    if waiting.progress:
        waiting.progress(f"{made.verdict.reason}: rolling back to revision {release.revision}")
    trial = try_release(cluster, release, force=force, restoring=True)
    diff = diff_of(cluster, release, trial)
    back = restore(cluster, release, trial, waiting)
    return replace(
        made,
        rolled_back_to=release.revision,
        restored=back.verdict,
        removed=back.removed,
        diff=diff,
    )


def restore(
    cluster: ClusterConnection, release: Release, trial: Trial, waiting: Waiting
) -> Rollout:
    """Bring a good release out again, and keep it as the good one where it serves."""
    made = replace(_bring_out(cluster, release, trial, waiting), models=registered_models(release))
    removed = _settle(cluster, release, restored=True) if made.verdict.ready else ()
    return replace(made, rolled_back_to=release.revision, removed=removed)


def registered_models(release: Release) -> tuple[tuple[str, str], ...]:
    """Give name and version of the registered models of a release."""
    known = [model.provenance for model in release.bento.models] if release.bento else []
    pairs = [(str(one.get("name") or ""), str(one.get("version") or "")) for one in known]
    return tuple((name, version) for name, version in pairs if name and version)


def _settle(
    cluster: ClusterConnection, release: Release, *, restored: bool = False
) -> tuple[ObjectRef, ...]:
    """Keep a release that serves as the good one, and remove what others left."""
    with suppress(DeploymentError):
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
    _make_whole(cluster, release, force=trial.force, later=later, may_take=bool(trial.taken))
    return applied


def _make_whole(
    cluster: ClusterConnection,
    release: Release,
    *,
    force: bool,
    later: Collection[ObjectRef] = (),
    may_take: bool = False,
) -> None:
    """Repair what another run has written over, where the holder says that this one has won."""
    claimed = claim(cluster, release, may_take=may_take).manifests
    ordered = {ObjectRef.of(one): one for one in in_order(claimed)}
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
