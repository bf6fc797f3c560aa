"""Removing a release, or what an earlier revision of it left behind."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any

from kfp_bento.runtime.deployments.kube.cluster import ClusterConnection, connect
from kfp_bento.runtime.deployments.kube.errors import Refused
from kfp_bento.runtime.deployments.kube.objects import Manifest, ObjectRef
from kfp_bento.runtime.deployments.release.claims import (
    BACKGROUND,
    is_ours,
    other_primaries,
    propagation,
    users_of,
)
from kfp_bento.runtime.deployments.release.gone import await_gone, await_unlisted
from kfp_bento.runtime.deployments.targets.marks import RELEASE_LABEL
from kfp_bento.runtime.deployments.targets.release import Release, labels_of
from kfp_bento.runtime.deployments.targets.target import OPTIONAL, Target
from kfp_bento.runtime.deployments.targets.targets import read_live, release_ref, target_of

# What stays for a while after an object that is deleted before what it owns.
_OWNED = (("apps/v1", "Deployment"), ("apps/v1", "ReplicaSet"), ("v1", "Pod"))
# Not the manager of the apply: whoever applies the object next names its own release.
_HEIR = "kfp-bento-record"


@dataclass(frozen=True)
class Deleted:
    """What a deletion did.

    Attributes:
        removed: Objects that were there and are gone; empty when there were none.
        kept: Objects with the release's labels that our field manager never applied, that no
            target would render for this release, or that another release needs.
    """

    removed: tuple[ObjectRef, ...]
    kept: tuple[ObjectRef, ...] = ()


def delete_release(
    name: str,
    *,
    target: str,
    namespace: str = "default",
    context: str = "",
    seconds: float = 120.0,
) -> Deleted:
    """Delete a release with all that belongs to it, and wait until it is gone.

    Exactly the objects are deleted that have the release's labels, the name of something that its
    target renders for it, and were applied by our field manager, after what they own: whoever may
    edit an object may give it labels. Deleting again finds nothing and is no error.

    Args:
        name: Name of the release.
        target: Kind of target, one of `TARGETS`.
        namespace: Its namespace.
        context: Context of the kubeconfig.
        seconds: How long to wait for the objects to go.

    Raises:
        DeploymentError: Something is still there when the time is up, with its finalizers.
    """
    primary = release_ref(name, target, namespace)
    chosen = target_of(target)
    with connect(context) as cluster:
        found = list(_labelled_objects(cluster, primary, chosen))
        removed = delete_objects(cluster, primary, chosen, seconds=seconds)
        kept = tuple(ref for live in found if (ref := ObjectRef.of(live)) not in removed)
        return Deleted(removed, kept)


def delete_objects(
    cluster: ClusterConnection,
    primary: ObjectRef,
    target: Target,
    *,
    keep: Collection[ObjectRef] = (),
    seconds: float = 120.0,
) -> tuple[ObjectRef, ...]:
    """Delete the objects of a release that are its own, as `delete_release` does.

    Args:
        cluster: Where the release is.
        primary: Its primary object.
        target: Its target.
        keep: Objects that are left as they are.
        seconds: How long to wait for the others to go.

    Returns:
        What was deleted.
    """
    found = list(_labelled_objects(cluster, primary, target))
    ours = _ours(cluster, primary, target, found)
    going = [live for live in ours if ObjectRef.of(live) not in keep]
    _delete_all(cluster, target, going, seconds)
    if target.shared:
        _hand_on(cluster, primary, target)
    return tuple(ObjectRef.of(live) for live in going)


def _delete_all(
    cluster: ClusterConnection, target: Target, going: Sequence[Manifest], seconds: float
) -> None:
    """Delete objects, and wait until they and what they own are gone."""

    def owned() -> list[Manifest]:
        return [one for live in going for one in _owned(cluster, target, live)]

    there = owned()
    for live in going:
        cluster.delete(live, propagation=propagation(target, live))
    await_gone(cluster, going, seconds)
    if there:
        await_unlisted(owned, there, seconds)


def _owned(cluster: ClusterConnection, target: Target, live: Manifest) -> Iterator[Manifest]:
    """Give what an object owns and does not take along before it goes, pods included."""
    if propagation(target, live) != BACKGROUND:
        return
    place = ObjectRef.of(live)
    if live["kind"] == target.primary_kind.name:
        labels = target.watched([read_live(live)]).pods
        for api_version, name in _OWNED:
            yield from cluster.select(api_version, name, place.namespace, labels=labels)
        return
    for kind in target.unlabelled:
        namesake = cluster.get(replace(place, api_version=kind.api_version, kind=kind.name))
        owners = (namesake or {"metadata": {}})["metadata"].get("ownerReferences") or []
        if namesake and live["metadata"]["uid"] in [one.get("uid") for one in owners]:
            yield namesake


def release_objects(
    cluster: ClusterConnection, primary: ObjectRef, target: Target
) -> Iterator[dict[str, Any]]:
    """Give the live objects of a release, by labels and names, the primary one first."""
    for live in _labelled_objects(cluster, primary, target):
        if _is_of(live, primary, target):
            yield live


def _labelled_objects(
    cluster: ClusterConnection, primary: ObjectRef, target: Target
) -> Iterator[dict[str, Any]]:
    labels = ",".join(f"{key}={value}" for key, value in labels_of(primary).items())
    for kind in (*target.kinds, *target.leftovers):
        if not cluster.knows(kind.api_version, kind.name):
            continue
        try:
            yield from cluster.select(kind.api_version, kind.name, primary.namespace, labels=labels)
        except Refused as refused:
            if kind not in OPTIONAL or refused.status != HTTPStatus.FORBIDDEN:
                raise


def _is_of(live: Manifest, primary: ObjectRef, target: Target) -> bool:
    """Say whether the target would give an object of the release that name."""
    return live["metadata"]["name"] in target.names(primary.name, live)


def _ours(
    cluster: ClusterConnection,
    primary: ObjectRef,
    target: Target,
    found: Sequence[dict[str, Any]],
) -> list[dict[str, Any]]:
    """Give those of labelled objects that the release may take with it."""
    ours = [live for live in found if is_ours(live) and _is_of(live, primary, target)]
    if target.is_in_use is None or not ours:
        return ours
    others = other_primaries(cluster, target, primary)
    return [live for live in ours if not users_of(live, target, others)]


def _hand_on(cluster: ClusterConnection, primary: ObjectRef, target: Target) -> None:
    """Give what another release goes on using to that one, which will remove it when it goes."""
    others = other_primaries(cluster, target, primary)
    kinds = [kind.name for kind in target.shared]
    for live in _labelled_objects(cluster, primary, target):
        if live["kind"] not in kinds:
            continue
        users = users_of(live, target, others) if is_ours(live) else []
        users = [one for one in users if RELEASE_LABEL in (one["metadata"].get("labels") or {})]
        if users and not _uses_itself(cluster, primary, target, live):
            labels = {RELEASE_LABEL: users[0]["metadata"]["name"]}
            cluster.merge(ObjectRef.of(live), {"metadata": {"labels": labels}}, manager=_HEIR)


def _uses_itself(
    cluster: ClusterConnection, primary: ObjectRef, target: Target, live: Manifest
) -> bool:
    own = cluster.get(primary)
    return own is not None and bool(users_of(live, target, [own]))


def delete_stale_objects(
    cluster: ClusterConnection, release: Release, *, seconds: float = 120.0
) -> tuple[ObjectRef, ...]:
    """Delete what earlier revisions of a release left: objects no longer rendered.

    Called once the new revision serves, so that nothing is taken from an old one in use.
    """
    stale = [*stale_objects(cluster, release), *_stale_owned_objects(cluster, release)]
    _delete_all(cluster, release.target, stale, seconds)
    if release.target.shared:
        _hand_on(cluster, release.primary, release.target)
    return tuple(ObjectRef.of(live) for live in stale)


def stale_objects(cluster: ClusterConnection, release: Release) -> list[dict[str, Any]]:
    """Find what earlier revisions of a release applied and this one does not."""
    wanted = {ObjectRef.of(one) for one in release.manifests}
    # What a controller writes for this release, and may have taken over from another.
    primary = release.target.primary(release.manifests)
    wanted |= {
        ObjectRef(kind.api_version, kind.name, release.namespace, name_of(primary))
        for kind, name_of in release.target.unlabelled.items()
    }
    labelled = _labelled_objects(cluster, release.primary, release.target)
    found = [live for live in labelled if ObjectRef.of(live) not in wanted]
    return _ours(cluster, release.primary, release.target, found)


def _stale_owned_objects(cluster: ClusterConnection, release: Release) -> list[Manifest]:
    """Find what a controller made of an earlier revision and will not remove by itself.

    Only what the release's primary object controls counts.
    """
    target = release.target
    primary = cluster.get(release.primary) if target.owned else None
    if primary is None:
        return []
    uid, labels = primary["metadata"]["uid"], release.watched.pods
    owned = [
        live
        for kind in target.owned
        for live in cluster.select(kind.api_version, kind.name, release.namespace, labels=labels)
        if any(
            one.get("uid") == uid and one.get("controller")
            for one in live["metadata"].get("ownerReferences") or []
        )
    ]
    return target.stale_owned(release.manifests, owned)
