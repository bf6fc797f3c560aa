"""What an apply would change: the live objects against the results of a dry run."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kfp_bento.runtime.deployments.kube.cluster import (
    PATIENCE_SECONDS,
    ClusterConnection,
    Manifest,
    ObjectRef,
    connect,
)
from kfp_bento.runtime.deployments.kube.manifests import manifest_text, normalised
from kfp_bento.runtime.deployments.kube.replicas import take_over_replicas
from kfp_bento.runtime.deployments.release.apply import check_portable, in_order, try_one
from kfp_bento.runtime.deployments.release.delete import stale_objects
from kfp_bento.runtime.deployments.release.marks import RELEASE_LABEL

# Bookkeeping of a controller and of ours, unreadable in a diff.
_UNREADABLE = frozenset(
    (
        "deployment.kubernetes.io/revision",
        "kfp-bento/last-good",
        "kfp-bento/previous-good",
        "kfp-bento/rolled-back",
        "kubectl.kubernetes.io/last-applied-configuration",
    )
)


@dataclass(frozen=True)
class ObjectDiff:
    """One object before and after.

    Attributes:
        ref: The object.
        change: `created`, `changed` or `unchanged`; `removed` once the release serves.
        text: A unified diff; empty when nothing changes.
    """

    ref: ObjectRef
    change: str
    text: str


@dataclass(frozen=True)
class ReleaseDiff:
    """What an apply of several manifests would change."""

    objects: tuple[ObjectDiff, ...]

    @property
    def changed(self) -> bool:
        """Whether an apply would change anything."""
        return any(entry.change != "unchanged" for entry in self.objects)

    @property
    def text(self) -> str:
        """One unified diff of all objects; empty when nothing changes."""
        return "".join(entry.text for entry in self.objects)


def diff_manifests(
    manifests: Sequence[Manifest],
    *,
    context: str = "",
    force: bool = False,
    patience_seconds: float = PATIENCE_SECONDS,
) -> ReleaseDiff:
    """Say what an apply would change, object by object; nothing is changed.

    For the manifests of a release (`record_release`) also what `roll_out` would remove then.

    The other side is the API server's own dry run, so defaults, webhooks and fields of
    other managers are in it.

    Args:
        manifests: What a target rendered.
        context: Context of the kubeconfig.
        force: Assume that fields of other field managers are taken over.
        patience_seconds: How long one request is tried again.

    Raises:
        DeploymentError: As `apply_manifests` would.
    """
    check_portable(manifests)
    with connect(context, patience_seconds=patience_seconds) as cluster:
        return diff_all(cluster, manifests, force=force)


def diff_all(
    cluster: ClusterConnection, manifests: Sequence[Manifest], *, force: bool = False
) -> ReleaseDiff:
    """`diff_manifests` over a connection that is open already."""
    taken = take_over_replicas(cluster, manifests, dry_run=True)
    found = [
        object_diff(
            ObjectRef.of(manifest),
            cluster.get(ObjectRef.of(manifest)),
            try_one(cluster, manifest, force=force, taken=taken),
        )
        for manifest in in_order(manifests)
    ]
    if RELEASE_LABEL in (manifests[0]["metadata"].get("labels") or {}):
        found += [_removal(live) for live in stale_objects(cluster, manifests)]
    return ReleaseDiff(tuple(found))


def object_diff(ref: ObjectRef, live: Manifest | None, would_be: Manifest) -> ObjectDiff:
    """Compare a live object with what it would become.

    Fields of the API server, of controllers and `status` are left out; values of Secrets
    are replaced by marks that differ when the values differ.
    """
    old = manifest_text(_readable(live)) if live is not None else ""
    new = manifest_text(_readable(would_be))
    if old == new:
        # Only a mark that is left out of the text can still differ.
        same = live is not None and normalised(live) == normalised(would_be)
        return ObjectDiff(ref, "unchanged" if same else "changed", "")
    path = f"{ref.kind.lower()}/{ref.name}"
    lines = difflib.unified_diff(
        old.splitlines(keepends=True),
        new.splitlines(keepends=True),
        "/dev/null" if live is None else f"live/{path}",
        f"release/{path}",
    )
    return ObjectDiff(ref, "created" if live is None else "changed", "".join(lines))


def _removal(live: Manifest) -> ObjectDiff:
    ref = ObjectRef.of(live)
    path = f"{ref.kind.lower()}/{ref.name}"
    old = manifest_text(_readable(live)).splitlines(keepends=True)
    lines = difflib.unified_diff(old, [], f"live/{path}", "/dev/null")
    return ObjectDiff(ref, "removed", "".join(lines))


def _readable(live: Manifest) -> dict[str, Any]:
    plain = normalised(live)
    annotations = plain["metadata"].get("annotations") or {}
    readable = {key: value for key, value in annotations.items() if key not in _UNREADABLE}
    plain["metadata"] = {**plain["metadata"], "annotations": readable}
    if not readable:
        del plain["metadata"]["annotations"]
    if plain.get("kind") == "Secret":
        for block in ("data", "stringData"):
            if isinstance(plain.get(block), Mapping):
                plain[block] = {key: _mask(value) for key, value in plain[block].items()}
    return plain


def _mask(value: Any) -> str:
    # Too few digits to find a value by trying, enough to see that one changed.
    return f"masked-{hashlib.sha256(str(value).encode()).hexdigest()[:4]}"
