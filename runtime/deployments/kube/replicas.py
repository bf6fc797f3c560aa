"""Who owns the number of replicas: the release, or its autoscaler, and how it is handed over.

A Deployment that drops `spec.replicas` from its apply falls back to one pod, and one that names
it again meets a conflict with the autoscaler's writes. So a second field manager of ours holds
the number while it changes hands (Kubernetes documentation, "Transferring ownership").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kfp_bento.runtime.deployments.kube.cluster import ClusterConnection
from kfp_bento.runtime.deployments.kube.errors import Refused
from kfp_bento.runtime.deployments.kube.objects import (
    FIELD_MANAGER,
    Manifest,
    ObjectRef,
    applied_by_us,
)

HOLDER = "kfp-bento-replicas"

_FIELD = ".spec.replicas"
# Writes the number on behalf of every HorizontalPodAutoscaler, through the scale subresource.
_AUTOSCALER = "kube-controller-manager"
_HPA = ("autoscaling/v2", "HorizontalPodAutoscaler")


def is_replicas_conflict(refused: Refused) -> bool:
    """Say whether only the number of replicas belongs to somebody else."""
    return set(refused.conflicts) == {_FIELD}


def take_over_replicas(
    cluster: ClusterConnection, manifests: Sequence[Manifest], *, dry_run: bool = False
) -> tuple[ObjectRef, ...]:
    """Prepare Deployments whose number of replicas changes hands; call it before an apply.

    From a fixed number to an autoscaler, the number that runs now is held. The other way the
    release's own autoscaler is removed and the new number is set. A number that an autoscaler of
    somebody else, or a person, has set is left alone: the apply will meet the conflict.

    Args:
        cluster: Where the release is.
        manifests: What will be applied.
        dry_run: Change nothing, only say which Deployments it is about.

    Returns:
        The Deployments whose number may be taken from an autoscaler.
    """
    scaled = {one["spec"]["scaleTargetRef"]["name"] for one in manifests if one["kind"] == _HPA[1]}
    taken = []
    for manifest in manifests:
        if manifest["kind"] != "Deployment":
            continue
        ref = ObjectRef.of(manifest)
        wanted = manifest["spec"].get("replicas")
        live = cluster.get(ref)
        if live is None:
            continue
        owners = _owners(live)
        if wanted is None and ref.name in scaled and owners == {FIELD_MANAGER}:
            if not dry_run:
                _hold(cluster, ref, live["spec"]["replicas"])
        elif wanted is not None and owners & {_AUTOSCALER, HOLDER}:
            if owners - {_AUTOSCALER, HOLDER, FIELD_MANAGER}:
                continue
            scalers = _scalers(cluster, ref)
            # One of ours has the Deployment's name.
            if not all(applied_by_us(one) and _name(one) == ref.name for one in scalers):
                continue
            taken.append(ref)
            if not dry_run:
                for one in scalers:
                    cluster.delete(one)
                _hold(cluster, ref, wanted)
    return tuple(taken)


def let_go_of_replicas(cluster: ClusterConnection, deployments: Sequence[ObjectRef]) -> None:
    """Leave the number to the release alone, once its apply has set it."""
    for ref in deployments:
        cluster.apply(_partial(ref, {}), manager=HOLDER)


def _hold(cluster: ClusterConnection, ref: ObjectRef, number: int) -> None:
    cluster.apply(_partial(ref, {"replicas": number}), manager=HOLDER, force=True)


def _partial(ref: ObjectRef, spec: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": ref.name, "namespace": ref.namespace}
    partial = {"apiVersion": ref.api_version, "kind": ref.kind, "metadata": metadata}
    return {**partial, "spec": spec} if spec else partial


def _owners(live: Manifest) -> set[str]:
    """Give the field managers of the number; a person who used the scale subresource too."""
    return {
        str(entry.get("manager"))
        for entry in live["metadata"].get("managedFields") or []
        if "f:replicas" in ((entry.get("fieldsV1") or {}).get("f:spec") or {})
    }


def _name(live: Manifest) -> str:
    return str(live["metadata"]["name"])


def _scalers(cluster: ClusterConnection, ref: ObjectRef) -> list[dict[str, Any]]:
    return [
        one
        for one in cluster.select(*_HPA, ref.namespace)
        if (one["spec"]["scaleTargetRef"]["kind"], one["spec"]["scaleTargetRef"]["name"])
        == (ref.kind, ref.name)
    ]
