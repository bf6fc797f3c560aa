"""Settling a release on trial: it is confirmed as good, or the last good one comes back."""

from __future__ import annotations

import binascii
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kfp_bento.runtime.deployments.kube.cluster import ClusterConnection, connect
from kfp_bento.runtime.deployments.kube.objects import ObjectRef
from kfp_bento.runtime.deployments.local_target import local_target, settle_locally
from kfp_bento.runtime.deployments.release.delete import (
    delete_objects,
    delete_stale_objects,
    release_objects,
)
from kfp_bento.runtime.deployments.release.good_release import (
    opened_note,
    pack,
    sealed_note,
    unpack,
)
from kfp_bento.runtime.deployments.release.record import (
    Record,
    mark_confirmed,
    mark_contract,
    mark_promoted,
    read_record,
)
from kfp_bento.runtime.deployments.release.release_facts import ReleaseFacts
from kfp_bento.runtime.deployments.release.rollout import (
    Rollout,
    fall_back,
    registered_models,
)
from kfp_bento.runtime.deployments.release.status import served_release
from kfp_bento.runtime.deployments.release.verdict import (
    DEFAULT_WAITING,
    Verdict,
    Waiting,
)
from kfp_bento.runtime.deployments.release.verdict import SUPERSEDED as OTHER_APPLIED
from kfp_bento.runtime.deployments.targets.marks import CONTRACT
from kfp_bento.runtime.deployments.targets.target import Target
from kfp_bento.runtime.deployments.targets.targets import release_ref, target_of
from kfp_bento.runtime.errors import DeploymentError, NotServed

CONFIRMED, BROUGHT_BACK, TAKEN_AWAY = "confirmed", "brought back", "taken away"
KEPT, SUPERSEDED, NOTHING = "kept", "superseded", "nothing"
# Beside three records, and all annotations together may have 256 KiB.
LARGEST_CONTRACT = 8_000


@dataclass(frozen=True)
class Settlement:
    """What became of a release on trial.

    Attributes:
        outcome: `CONFIRMED`, `BROUGHT_BACK` (the last good release serves instead), `TAKEN_AWAY`
            (there was none before), `KEPT` (it stays, the message says why), `SUPERSEDED` (another
            one was applied in the meantime) or `NOTHING` (it was only rendered).
        message: The same in a sentence for people.
        revision: The revision that is applied now, where that is known.
        rollout: What going back did; None where nothing went back.
    """

    outcome: str
    message: str
    revision: str = ""
    rollout: Rollout | None = None


def confirm_release(release: ReleaseFacts, *, promotion: str = "") -> Settlement:
    """Record a release on trial as the last good one, and remove what earlier ones left.

    Confirming again changes nothing.

    Args:
        release: The release.
        promotion: A note of the promotion that begins with it, up to 900 characters; it stays
            on the release until `end_promotion`.

    Raises:
        NotServed: It does not serve, or pods run another image; nothing is kept then.
        DeploymentError: Another release was applied in the meantime, or what is on record of the
            trial is not believed.
    """
    if release.mode == "rendered":
        return Settlement(NOTHING, "It was only rendered: there is nothing to confirm.")
    if release.mode == "local":
        settle_locally(local_target(), release.url, confirm=True)
        return Settlement(CONFIRMED, "It goes on serving on this machine.", release.revision)
    ref, target = release_ref(release.name, release.target, release.namespace), _target(release)
    holder, note = target.holder_of(ref), sealed_note(promotion, ref)
    with connect(release.context) as cluster:
        verdict = served_release(release, cluster=cluster)
        if not verdict.ready and verdict.reason != OTHER_APPLIED:
            raise NotServed(
                f"{ref} is not kept as good ({verdict.reason}): {verdict.message}",
                hint="kfp-bento release status says what answers; deploy again what shall.",
            )
        if not mark_confirmed(cluster, holder, ref, release.revision, promotion=note):
            raise _superseded(ref, release, read_record(cluster.get(holder), ref))
        good = read_record(cluster.get(holder), ref).last_good
        if good is not None and good.release is not None:
            delete_stale_objects(cluster, good.release)
    message = f"{ref} at revision {release.revision} is the good release now."
    return Settlement(CONFIRMED, message, release.revision)


def last_good_image(release: ReleaseFacts) -> str:
    """Give the image of the last good release of that name; empty where there is none.

    Args:
        release: Any release of that name.
    """
    ref, target = release_ref(release.name, release.target, release.namespace), _target(release)
    with connect(release.context) as cluster:
        if not cluster.knows(ref.api_version, ref.kind):
            return ""
        good = read_record(cluster.get(target.holder_of(ref)), ref).last_good
    return good.image if good else ""


def kept_contract(release: ReleaseFacts) -> dict[str, Any] | None:
    """Give what the last good release of that name has promised its clients.

    Args:
        release: Any release of that name.

    Returns:
        What `keep_contract` was given; None where it is not known.

    Raises:
        DeploymentError: The cluster does not answer, or somebody changed the record.
    """
    if release.mode != "applied":
        return None
    ref, target = release_ref(release.name, release.target, release.namespace), _target(release)
    with connect(release.context) as cluster:
        packed = read_record(cluster.get(target.holder_of(ref)), ref).contract
    try:
        return unpack(packed) if packed else None
    except (binascii.Error, zlib.error, ValueError) as error:
        raise DeploymentError(
            f"What {ref} has promised its clients is on record and cannot be read: {error}.",
            hint=f"Somebody changed the annotation {CONTRACT}; remove it to begin anew.",
        ) from None


def keep_contract(release: ReleaseFacts, contract: Mapping[str, Any]) -> None:
    """Keep what a release on trial promises its clients, for the time when it is the good one.

    One of more than `LARGEST_CONTRACT` characters, packed, is not kept.

    Args:
        release: The release.
        contract: JSON values.
    """
    packed = pack(contract)
    if release.mode != "applied" or not packed or len(packed) > LARGEST_CONTRACT:
        return
    ref, target = release_ref(release.name, release.target, release.namespace), _target(release)
    with connect(release.context) as cluster:
        mark_contract(cluster, target.holder_of(ref), release.revision, packed)


def end_promotion(release: ReleaseFacts, promotion: str) -> None:
    """Take back the note of a promotion that is over."""
    if release.mode != "applied":
        return
    ref, target = release_ref(release.name, release.target, release.namespace), _target(release)
    with connect(release.context) as cluster:
        mark_promoted(cluster, target.holder_of(ref), sealed_note(promotion, ref))


@dataclass(frozen=True)
class PromotionUnderWay:
    """A promotion that was begun and not ended.

    Attributes:
        note: What `confirm_release` was given.
        models: Name and version of the registered models of the release that is good.
        serves: Whether that release is what is applied.
    """

    note: str
    models: frozenset[tuple[str, str]]
    serves: bool


def promotion_under_way(release: ReleaseFacts) -> PromotionUnderWay | None:
    """Give the promotion that was begun with a release of that name; None where there is none.

    Args:
        release: Any release of that name.

    Raises:
        DeploymentError: The cluster does not answer, or the note has no seal of the shared key.
    """
    if release.mode != "applied":
        return None
    ref, target = release_ref(release.name, release.target, release.namespace), _target(release)
    with connect(release.context) as cluster:
        record = read_record(cluster.get(target.holder_of(ref)), ref)
    if not record.promotion:
        return None
    good = record.last_good.release if record.last_good else None
    models = frozenset(registered_models(good)) if good else frozenset()
    return PromotionUnderWay(opened_note(record.promotion, ref), models, record.serves_good)


def leave_release(
    release: ReleaseFacts,
    why: str,
    *,
    waiting: Waiting = DEFAULT_WAITING,
    force: bool = False,
) -> Settlement:
    """Bring the last good release back for one on trial that was refused.

    Where no release was ever good and only pipeline runs put any on trial, it is taken away. What
    was good before stays, and so does what somebody deployed by hand, where nothing better is
    known: the message says so. Leaving again changes nothing.

    Args:
        release: The release that was refused.
        why: The reason.
        waiting: How long the restored one may take to serve.
        force: Take over others' fields.

    Raises:
        DeploymentError: The cluster or the local target does not answer, or refuses.
    """
    if release.mode == "rendered":
        return Settlement(NOTHING, "It was only rendered: nothing serves.")
    if release.mode == "local":
        serves = settle_locally(local_target(), release.url, confirm=False)
        if serves:
            return Settlement(BROUGHT_BACK, f"The one before it serves again at {serves}.")
        return Settlement(TAKEN_AWAY, "It was stopped: nothing serves on this machine.")
    ref, target = release_ref(release.name, release.target, release.namespace), _target(release)
    with connect(release.context) as cluster:
        return _leave(cluster, ref, target, release.revision, why, waiting, force=force)


def _leave(
    cluster: ClusterConnection,
    ref: ObjectRef,
    target: Target,
    revision: str,
    why: str,
    waiting: Waiting,
    *,
    force: bool,
) -> Settlement:
    holder = target.holder_of(ref)
    record = read_record(cluster.get(holder), ref)
    if record.revision != revision:
        now = f"{ref} is at revision {record.revision} now." if record.revision else "It is gone."
        outcome = BROUGHT_BACK if record.serves_good else SUPERSEDED
        return Settlement(outcome, now, record.revision)
    if record.serves_good:
        message = f"{ref} at revision {revision} was found good before, and stays."
        return Settlement(KEPT, message, revision)
    refused = Rollout(revision, (), Verdict(False, "Refused", why), image=record.image)
    live = list(release_objects(cluster, ref, target))
    made = fall_back(cluster, holder, ref, refused, live, waiting, force=force)
    if made.restored is not None:
        return Settlement(BROUGHT_BACK, made.what_serves_now, made.rolled_back_to, made)
    if made.not_restored:
        return Settlement(KEPT, made.what_serves_now, revision, made)
    if record.is_new and record.last_good is None:
        delete_objects(cluster, ref, target)
        message = "No release of that name was ever good, so it was taken away: nothing serves."
        return Settlement(TAKEN_AWAY, message)
    message = "It stays as it is: no good release is on record that could come back."
    return Settlement(KEPT, message, revision, made)


def _superseded(ref: ObjectRef, release: ReleaseFacts, record: Record) -> DeploymentError:
    if record.revision == release.revision:
        return DeploymentError(
            f"{ref} at revision {release.revision} is not on trial: nothing is on record of it.",
            hint="Deploy it again, and have it checked.",
        )
    now = f"revision {record.revision} is applied now" if record.revision else "it is gone"
    return DeploymentError(
        f"{ref} cannot be confirmed at revision {release.revision}: {now}.",
        hint="Another run has deployed or deleted in the meantime; look at it: "
        f"kfp-bento release status {release.name} -n {release.namespace}",
    )


def _target(release: ReleaseFacts) -> Target:
    return target_of(release.target)
