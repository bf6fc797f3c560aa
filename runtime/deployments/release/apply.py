"""Server-side apply: everything is tried first, then applied in order."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from kfp_bento.runtime.deployments.kube.cluster import (
    PATIENCE_SECONDS,
    ClusterConnection,
    Manifest,
    ObjectRef,
    Refused,
    connect,
)
from kfp_bento.runtime.deployments.kube.manifests import normalised
from kfp_bento.runtime.deployments.kube.replicas import (
    is_replicas_conflict,
    let_go_of_replicas,
    take_over_replicas,
)
from kfp_bento.runtime.deployments.targets.yatai.portable_subset import (
    PORTABLE_SUBSET,
    manifest_problems,
)
from kfp_bento.runtime.errors import DeploymentError

# What others refer to comes first; what starts pods comes last.
_FIRST = ("ServiceAccount", "Secret", "ConfigMap", "PersistentVolumeClaim", "Service")
PRIMARY_KINDS = ("BentoDeployment", "InferenceService", "Deployment")
# Of two Deployments in one release, the second is the canary.
COMPONENT_LABEL, CANARY = "app.kubernetes.io/component", "canary"

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


def apply_manifests(
    manifests: Sequence[Manifest],
    *,
    dry_run: bool = False,
    context: str = "",
    force: bool = False,
    patience_seconds: float = PATIENCE_SECONDS,
) -> tuple[Applied, ...]:
    """Hand manifests to the cluster by server-side apply, as field manager `kfp-bento`.

    All of them are tried as a dry run first, so that a refusal changes nothing. Applying
    the same manifests again changes nothing either, and the result says so.

    Args:
        manifests: What a target rendered.
        dry_run: Stop after the dry run.
        context: Context of the kubeconfig; the current one, or the pod's own, when empty.
        force: Take over fields that another field manager owns instead of failing.
        patience_seconds: How long one request is tried again on 409, 429, 5xx and silence.

    Returns:
        One entry per object in the order of applying; of a dry run, what would happen.

    Raises:
        DeploymentError: The manifests are not portable; no cluster answers; it lacks the
            CRDs, the namespace or the permission; another field manager owns a field.
    """
    check_portable(manifests)
    with connect(context, patience_seconds=patience_seconds) as cluster:
        return apply_all(cluster, manifests, dry_run=dry_run, force=force)


def apply_all(
    cluster: ClusterConnection,
    manifests: Sequence[Manifest],
    *,
    dry_run: bool = False,
    force: bool = False,
    later: Collection[ObjectRef] = (),
) -> tuple[Applied, ...]:
    """`apply_manifests` over a connection that is open already.

    Args:
        cluster: The connection.
        manifests: What a target rendered.
        dry_run: Stop after the dry run.
        force: Take over fields that another field manager owns.
        later: Objects that are tried with all others and not applied yet.
    """
    ordered = in_order(manifests)
    before = [_settled(cluster, ObjectRef.of(manifest)) for manifest in ordered]
    taken = take_over_replicas(cluster, ordered, dry_run=True)
    after = [try_one(cluster, manifest, force=force, taken=taken) for manifest in ordered]
    if not dry_run:
        kept = [place for place, one in enumerate(ordered) if ObjectRef.of(one) not in later]
        ordered, before = [ordered[place] for place in kept], [before[place] for place in kept]
        taken = take_over_replicas(cluster, ordered)
        after = [cluster.apply(manifest, force=force) for manifest in ordered]
        let_go_of_replicas(cluster, taken)
    return tuple(
        _applied(ObjectRef.of(manifest), old, new)
        for manifest, old, new in zip(ordered, before, after, strict=True)
    )


def try_one(
    cluster: ClusterConnection,
    manifest: Manifest,
    *,
    force: bool = False,
    taken: Collection[ObjectRef] = (),
) -> Any:
    """Give what an apply of one manifest would make of it.

    Args:
        cluster: The connection.
        manifest: The manifest.
        force: Take over fields that another field manager owns.
        taken: Deployments whose number of replicas is going to change hands first.
    """
    try:
        return cluster.apply(manifest, trial=True, force=force)
    except Refused as refused:
        if ObjectRef.of(manifest) not in taken or not is_replicas_conflict(refused):
            raise
        return cluster.apply(manifest, trial=True, force=True)


def check_portable(manifests: Sequence[Manifest]) -> None:
    """Refuse manifests of Yatai's kinds with a field that some generation would drop.

    Raises:
        DeploymentError: One sentence per field.
    """
    ours = {group_version for group_version, _ in PORTABLE_SUBSET}
    checked = [manifest for manifest in manifests if manifest.get("apiVersion") in ours]
    if problems := manifest_problems(checked):
        raise DeploymentError(
            "The manifests were not sent: " + "; ".join(problems) + ".",
            hint="Render them with a target, which refuses what cannot work.",
        )


def in_order(manifests: Sequence[Manifest]) -> list[Manifest]:
    """Give manifests in the order of applying: configuration first, what starts pods last."""

    def rank(manifest: Manifest) -> int:
        kind = manifest["kind"]
        if kind in _FIRST:
            return _FIRST.index(kind)
        return len(_FIRST) + (kind in PRIMARY_KINDS)

    return sorted(manifests, key=rank)


def primary_of(manifests: Sequence[Manifest]) -> Manifest:
    """Give the object whose name is the release's: what starts the pods, and no canary.

    Raises:
        DeploymentError: There are no manifests.
    """
    if not manifests:
        raise DeploymentError("There are no manifests.", hint="Render a target first.")

    def rank(manifest: Manifest) -> tuple[int, bool]:
        kind = manifest["kind"]
        place = PRIMARY_KINDS.index(kind) if kind in PRIMARY_KINDS else len(PRIMARY_KINDS)
        labels = manifest["metadata"].get("labels") or {}
        return place, labels.get(COMPONENT_LABEL) == CANARY

    found = min(manifests, key=rank)
    return found if found["kind"] in PRIMARY_KINDS else in_order(manifests)[-1]


def _settled(cluster: ClusterConnection, ref: ObjectRef) -> dict[str, Any] | None:
    """Give the live object; one that is going away would take the applied fields with it."""
    live = cluster.get(ref)
    if live is not None and live["metadata"].get("deletionTimestamp"):
        raise DeploymentError(
            f"{ref} is being deleted.", hint="Wait until it is gone, then apply again."
        )
    return live


def _applied(ref: ObjectRef, old: Manifest | None, new: Manifest) -> Applied:
    change: Change = "created"
    if old is not None:
        # A dry run has no version of its own, and a controller's status makes new ones anytime.
        change = "unchanged" if normalised(old) == normalised(new) else "changed"
    metadata = new.get("metadata") or {}
    return Applied(
        ref,
        change,
        uid=str(metadata.get("uid") or ""),
        generation=int(metadata.get("generation") or 0),
    )
