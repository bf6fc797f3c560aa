"""What of a release is there already, and whose it is: ours, another release's, a controller's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from kfp_bento.runtime.deployments.kube.cluster import ClusterConnection
from kfp_bento.runtime.deployments.kube.objects import Manifest, ObjectRef, applied_by_us
from kfp_bento.runtime.deployments.targets.release import Release
from kfp_bento.runtime.deployments.targets.target import Target
from kfp_bento.runtime.deployments.targets.targets import read_live
from kfp_bento.runtime.errors import DeploymentError

ORPHAN, BACKGROUND, FOREGROUND = "Orphan", "Background", "Foreground"


@dataclass(frozen=True)
class Claims:
    """What an apply of a release may do.

    Attributes:
        manifests: What it applies; what another release uses too, and is as wanted, is left out.
        first: What is deleted before, each with what becomes of what it owns.
        following: What controllers wrote for those, and goes with them in its own time.
        taken: Objects whose fields are taken over from a controller that goes with `first`.
    """

    manifests: tuple[Manifest, ...]
    first: tuple[tuple[Manifest, str], ...] = ()
    following: tuple[Manifest, ...] = ()
    taken: frozenset[ObjectRef] = field(default_factory=frozenset)


def claim(cluster: ClusterConnection, release: Release, *, may_take: bool) -> Claims:
    """Find out what of a release an apply may write, and what has to go first.

    Args:
        cluster: Where it goes.
        release: The release.
        may_take: Whether what a controller writes may be taken over, by removing the object of
            ours that makes it write.

    Raises:
        DeploymentError: Another release, or a controller of somebody else, needs an object as it
            is.
    """
    target = release.target
    kind = target.primary_kind
    if not target.shared or not cluster.knows(kind.api_version, kind.name):
        return Claims(release.recorded)
    others = other_primaries(cluster, target, release.primary)
    manifests: list[Manifest] = []
    first: list[tuple[Manifest, str]] = []
    following: list[Manifest] = []
    taken: set[ObjectRef] = set()
    for manifest in release.recorded:
        ref = ObjectRef.of(manifest)
        live = _live(cluster, ref)
        users = [one for one in others if _uses(target, manifest, one)]
        if users and _is_kept_for(cluster, target, manifest, live, users):
            continue
        manifests.append(manifest)
        if writer := _writer(cluster, target, manifest, others, may_take=may_take):
            first.append((writer, ORPHAN))
            taken.add(ref)
        elif live is not None and not users and _starts_anew(cluster, target, manifest, live):
            first.append((live, BACKGROUND))
            following += _written_for(cluster, target, live)
    return Claims(tuple(manifests), tuple(first), tuple(following), frozenset(taken))


def is_controlled(live: Manifest) -> bool:
    """Say whether a controller has made an object its own; we never do."""
    return any(one.get("controller") for one in live["metadata"].get("ownerReferences") or [])


def is_ours(live: Manifest) -> bool:
    """Say whether we applied an object, and no controller has taken it over since."""
    return applied_by_us(live) and not is_controlled(live)


def propagation(target: Target, live: Manifest) -> str:
    """Say how an object is deleted.

    A controller that knows nothing of deletions would make what is owned again, and again, if that
    went first.
    """
    return BACKGROUND if live["kind"] in [one.name for one in target.hasty] else FOREGROUND


def users_of(live: Manifest, target: Target, others: Sequence[Manifest]) -> list[Manifest]:
    """Give the releases of other names that need an object too, by their primary objects."""
    return [one for one in others if _uses(target, live, one)]


def other_primaries(
    cluster: ClusterConnection, target: Target, primary: ObjectRef
) -> list[dict[str, Any]]:
    """Give the primary objects of other releases of a namespace, and of whoever has made some."""
    kind = target.primary_kind
    found = cluster.select(kind.api_version, kind.name, primary.namespace)
    return [read_live(live) for live in found if ObjectRef.of(live) != primary]


def _starts_anew(
    cluster: ClusterConnection, target: Target, manifest: Manifest, live: Manifest
) -> bool:
    return target.starts_anew is not None and target.starts_anew(cluster, manifest, live)


def _written_for(cluster: ClusterConnection, target: Target, live: Manifest) -> Iterator[Manifest]:
    """Give what a controller wrote for an object, where it is owned by it."""
    written = _live(cluster, target.written and target.written(live))
    owners = [] if written is None else written["metadata"].get("ownerReferences") or []
    if written is not None and live["metadata"]["uid"] in [one.get("uid") for one in owners]:
        yield written


def _uses(target: Target, manifest: Manifest, other: Manifest) -> bool:
    return target.is_in_use is not None and target.is_in_use(manifest, [other])


def _live(cluster: ClusterConnection, ref: ObjectRef | None) -> Manifest | None:
    """Give a live object; None where the cluster has none, nor such a kind."""
    if ref is None or not cluster.knows(ref.api_version, ref.kind):
        return None
    return read_live(cluster.get(ref))


def _names(objects: Sequence[Manifest]) -> str:
    return ", ".join(str(ObjectRef.of(one)) for one in objects)


def _is_kept_for(
    cluster: ClusterConnection,
    target: Target,
    manifest: Manifest,
    live: Manifest | None,
    users: Sequence[Manifest],
) -> bool:
    """Say whether an object of another release is what this one wants as well.

    Raises:
        DeploymentError: It is another: to apply this one would change that release.
    """
    ref = ObjectRef.of(manifest)
    serves = next((same for kind, same in target.shared.items() if kind.name == ref.kind), None)
    if serves is None:
        return False
    if live is not None and serves(manifest, live):
        return True
    source = target.written and target.written(manifest)
    if live is not None or _live(cluster, source) is not None:
        shown = ref if live is not None else source
        raise DeploymentError(
            f"{shown} is what {_names(users)} serves too, and is to stay as it is there.",
            hint="Deploy to another namespace, build the bento as another version, or deploy the "
            "same image there first.",
        )
    return False


def _writer(
    cluster: ClusterConnection,
    target: Target,
    manifest: Manifest,
    others: Sequence[Manifest],
    *,
    may_take: bool,
) -> Manifest | None:
    """Give what has to go so that a controller does not write over an object.

    Raises:
        DeploymentError: It may not go.
    """
    ref = ObjectRef.of(manifest)
    place = target.writer and target.writer(manifest)
    writer = _live(cluster, place)
    if writer is None:
        return None
    told = f"{ref} is written by the controller of {place}: whatever is applied, it writes over."
    if not is_ours(writer) or users_of(writer, target, others):
        raise DeploymentError(
            told, hint="Build the bento as another version, or deploy to another namespace."
        )
    if not may_take:
        raise DeploymentError(
            told,
            hint=f"With force {place} is deleted first, and what it has written stays; or build "
            "the bento as another version.",
        )
    return writer
