"""Server-side apply: everything is tried first, then applied in order."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from kfp_bento.runtime.deployments.kube.cluster import ClusterConnection
from kfp_bento.runtime.deployments.kube.errors import Refused, UnknownKind
from kfp_bento.runtime.deployments.kube.manifests import normalised
from kfp_bento.runtime.deployments.kube.objects import Manifest, ObjectRef
from kfp_bento.runtime.deployments.kube.replicas import (
    is_replicas_conflict,
    let_go_of_replicas,
    take_over_replicas,
)
from kfp_bento.runtime.deployments.release.claims import claim, is_controlled
from kfp_bento.runtime.deployments.release.gone import await_gone
from kfp_bento.runtime.deployments.targets.release import Release
from kfp_bento.runtime.deployments.targets.targets import TARGETS
from kfp_bento.runtime.errors import DeploymentError

# What others refer to comes first; what starts pods comes last.
_FIRST = ("ConfigMap", "Service")
_LAST = frozenset(target.primary_kind.name for target in TARGETS.values())

Change = Literal["created", "changed", "unchanged"]


@dataclass(frozen=True)
class Applied:
    """What an apply did to one object.

    Attributes:
        ref: The object.
        change: `created`, `changed`, or `unchanged` when nothing but status and bookkeeping
            differs.
        uid: The object's uid.
        generation: The generation of its spec; 0 for kinds without one.
    """

    ref: ObjectRef
    change: Change
    uid: str = ""
    generation: int = 0

    def __str__(self) -> str:
        return f"{self.ref} {self.change}"


@dataclass(frozen=True)
class Trial:
    """What an apply would do, as the API server's own dry run says.

    Attributes:
        manifests: What would be applied, in that order.
        before: The live objects; None where there is none.
        after: What they would become.
        force: Whether fields that another field manager owns are taken over.
        first: What is deleted before, each with what becomes of what it owns.
        following: What is awaited to be gone with those.
        taken: Objects that are taken over whole, as what makes a controller write them goes.
    """

    manifests: tuple[Manifest, ...]
    before: tuple[Manifest | None, ...]
    after: tuple[Manifest, ...]
    force: bool = False
    first: tuple[tuple[Manifest, str], ...] = ()
    following: tuple[Manifest, ...] = ()
    taken: frozenset[ObjectRef] = field(default_factory=frozenset)

    def forces(self, manifest: Manifest) -> bool:
        """Say whether an object's fields are taken over from others."""
        return self.force or ObjectRef.of(manifest) in self.taken


def try_all(
    cluster: ClusterConnection,
    manifests: Sequence[Manifest],
    *,
    force: bool = False,
    taken: Collection[ObjectRef] = (),
) -> Trial:
    """Try manifests as a dry run, so that a refusal changes nothing.

    Args:
        cluster: The connection.
        manifests: What is to be applied.
        force: Take over fields that another field manager owns instead of failing.
        taken: Objects for which that holds anyway.

    Raises:
        DeploymentError: No cluster answers; it lacks the CRDs, the namespace or the permission;
            another field manager owns a field; or a controller writes the object.
    """
    ordered = in_order(manifests)
    before = tuple(cluster.get(ObjectRef.of(manifest)) for manifest in ordered)
    for live in before:
        if live is not None and ObjectRef.of(live) not in taken:
            _check_whose(live)
    scaled = take_over_replicas(cluster, ordered, dry_run=True)
    after = tuple(
        _tried(cluster, one, scaled, force=force or ObjectRef.of(one) in taken) for one in ordered
    )
    return Trial(tuple(ordered), before, after, force, taken=frozenset(taken))


def _check_whose(live: Manifest) -> None:
    if is_controlled(live):
        (owner, *_) = [one for one in live["metadata"]["ownerReferences"] if one.get("controller")]
        raise DeploymentError(
            f"{ObjectRef.of(live)} is made by a controller, for the object with uid "
            f"{owner.get('uid')}: it writes over whatever is applied.",
            hint="Choose another name, or remove what it is made for.",
        )


def completed(cluster: ClusterConnection, release: Release, *, restoring: bool = False) -> Release:
    """Give a release with what its target makes for one apply, and records nowhere.

    Raises:
        KfpBentoError: It cannot be made.
    """
    completer = release.target.completer
    if completer is None:
        return release
    return replace(release, completed=completer(cluster, release, restoring))


def try_release(
    cluster: ClusterConnection, release: Release, *, force: bool = False, restoring: bool = False
) -> Trial:
    """Try a release as `try_all` does; a kind that is missing is told with what brings it.

    Args:
        cluster: The connection.
        release: The release.
        force: Take over fields that another field manager owns instead of failing.
        restoring: Whether it was good before; then what ours has made since may go.
    """
    try:
        claims = claim(cluster, release, may_take=force or restoring)
        trial = try_all(cluster, claims.manifests, force=force, taken=claims.taken)
        return replace(trial, first=claims.first, following=claims.following)
    except UnknownKind as error:
        error.hint = release.target.installs.get(error.group, error.hint)
        raise


def apply_tried(
    cluster: ClusterConnection, trial: Trial, *, later: Collection[ObjectRef] = ()
) -> tuple[Applied, ...]:
    """Hand over by server-side apply, as field manager `kfp-bento`, what was tried.

    Applying the same again changes nothing, and the result says so.

    Args:
        cluster: The connection.
        trial: What `try_all` gave.
        later: Objects that were tried with all others and are not applied yet.

    Returns:
        One entry per object in the order of applying.

    Raises:
        DeploymentError: An object is being deleted, or as for `try_all`.
    """
    for live in trial.before:
        if live is not None and live["metadata"].get("deletionTimestamp"):
            # It would take the applied fields with it.
            raise DeploymentError(
                f"{ObjectRef.of(live)} is being deleted.",
                hint="Wait until it is gone, then apply again.",
            )
    for live, propagation in trial.first:
        cluster.delete(live, propagation=propagation)
    # Who reads what was written for the old ones would act on it for the new ones.
    await_gone(cluster, [*(live for live, _ in trial.first), *trial.following])
    pairs = zip(trial.manifests, trial.before, strict=True)
    chosen = [(one, old) for one, old in pairs if ObjectRef.of(one) not in later]
    taken = take_over_replicas(cluster, [manifest for manifest, _ in chosen])
    done = [_applied(old, cluster.apply(one, force=trial.forces(one))) for one, old in chosen]
    let_go_of_replicas(cluster, taken)
    return tuple(done)


def in_order(manifests: Sequence[Manifest]) -> list[Manifest]:
    """Give manifests in the order of applying: configuration first, what starts pods last."""

    def rank(manifest: Manifest) -> int:
        kind = manifest["kind"]
        return _FIRST.index(kind) if kind in _FIRST else len(_FIRST) + (kind in _LAST)

    return sorted(manifests, key=rank)


def _tried(
    cluster: ClusterConnection, manifest: Manifest, taken: Collection[ObjectRef], *, force: bool
) -> Any:
    """Give what an apply would make of an object; replicas of `taken` change hands before it."""
    try:
        return cluster.apply(manifest, trial=True, force=force)
    except Refused as refused:
        if ObjectRef.of(manifest) not in taken or not is_replicas_conflict(refused):
            raise
        return cluster.apply(manifest, trial=True, force=True)


def _applied(old: Manifest | None, new: Manifest) -> Applied:
    change: Change = "created"
    if old is not None:
        # A dry run has no version of its own, and a controller's status makes new ones anytime.
        change = "unchanged" if normalised(old) == normalised(new) else "changed"
    metadata = new["metadata"]
    return Applied(
        ObjectRef.of(new),
        change,
        uid=str(metadata.get("uid") or ""),
        generation=int(metadata.get("generation") or 0),
    )
