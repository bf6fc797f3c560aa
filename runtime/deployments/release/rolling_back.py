"""Going back to a good release on record, because somebody wants to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from kfp_bento.runtime.deployments.kube.cluster import ClusterConnection, connect
from kfp_bento.runtime.deployments.kube.objects import Manifest, ObjectRef
from kfp_bento.runtime.deployments.release.apply import completed, try_release
from kfp_bento.runtime.deployments.release.delete import release_objects
from kfp_bento.runtime.deployments.release.diff import ReleaseDiff, diff_of
from kfp_bento.runtime.deployments.release.good_release import GoodRelease
from kfp_bento.runtime.deployments.release.record import Record, mark_step_back, read_record
from kfp_bento.runtime.deployments.release.rollout import (
    Rollout,
    registered_models,
    restorable,
    restore,
)
from kfp_bento.runtime.deployments.release.verdict import DEFAULT_WAITING, Verdict, Waiting
from kfp_bento.runtime.deployments.targets.target import Target
from kfp_bento.runtime.deployments.targets.targets import release_ref, target_of, target_of_live
from kfp_bento.runtime.errors import DeploymentError


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
    Calling it again, also after it was killed anywhere, restores the same one. What is on record is
    rendered again, by all the rules of the target's options: whoever may edit the object may have
    written it. A later kfp-bento may render another revision of it, which the result names.

    Args:
        name: Name of the release.
        target: Kind of target, one of `TARGETS`.
        namespace: Its namespace.
        leaving: Image by digest that is to be left, or whatever is applied; another one stays.
        to: A good revision that is on record; chosen as above when empty.
        waiting: How long the restored release may take to serve.
        context: Context of the kubeconfig.
        force: Take over others' fields.
        before: Called with what would change, before anything does.
        dry_run: Only say where it would go (`rolled_back_to`) and what that would change (`diff`).

    Raises:
        DeploymentError: No good release is recorded, it was too large to be kept, it is not
            believed, or it would bring what only a sealed record may bring.
    """
    ref, chosen = release_ref(name, target, namespace), target_of(target)
    with connect(context) as cluster:
        live = list(release_objects(cluster, ref, chosen))
        record = _record_of(cluster, ref, chosen, live, leaving)
        good = _destination(ref, record, leaving, to)
        release = completed(cluster, restorable(ref, good, live), restoring=True)
        trial = try_release(cluster, release, force=force, restoring=True)
        diff = diff_of(cluster, release, trial)
        if before is not None:
            before(diff)
        if dry_run:
            told = Verdict(False, "DryRun", f"{ref} would go to revision {release.revision}.")
            made = Rollout(release.revision, (), told, image=good.image, bento=good.bento)
            models = registered_models(release)
            return replace(
                made, models=models, rolled_back_to=release.revision, diff=diff, left=record
            )
        left = good.is_at(record.revision) or mark_step_back(cluster, release, record.revision)
        if not left:
            raise DeploymentError(
                f"{ref} was changed by another run at the same time.",
                hint="Look at it (kfp-bento release status), then try again.",
            )
        return replace(restore(cluster, release, trial, waiting), diff=diff, left=record)


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


def _is_image(wanted: str, found: str) -> bool:
    return not wanted or wanted.rpartition("@")[2] == found.rpartition("@")[2]
