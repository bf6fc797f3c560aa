"""What an apply would change: the live objects against the results of a dry run."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kfp_bento.runtime.deployments.kube.cluster import ClusterConnection, connect
from kfp_bento.runtime.deployments.kube.manifests import manifest_text, normalised
from kfp_bento.runtime.deployments.kube.objects import Manifest, ObjectRef
from kfp_bento.runtime.deployments.release.apply import Trial, completed, try_release
from kfp_bento.runtime.deployments.release.delete import stale_objects
from kfp_bento.runtime.deployments.targets.marks import (
    CONTRACT,
    LAST_GOOD,
    NEW,
    PREVIOUS_GOOD,
    PROMOTION,
    ROLLED_BACK,
    RUN,
    TRIAL,
    TRIAL_CONTRACT,
)
from kfp_bento.runtime.deployments.targets.release import Release
from kfp_bento.runtime.programs import without_signatures

# Bookkeeping of a controller and of ours, unreadable in a diff.
_UNREADABLE = frozenset(
    (
        "deployment.kubernetes.io/revision",
        LAST_GOOD,
        PREVIOUS_GOOD,
        ROLLED_BACK,
        TRIAL,
        RUN,
        NEW,
        PROMOTION,
        CONTRACT,
        TRIAL_CONTRACT,
        "kubectl.kubernetes.io/last-applied-configuration",
    )
)


@dataclass(frozen=True)
class ObjectDiff:
    """One object before and after.

    Attributes:
        ref: The object.
        change: `created`, `changed` or `unchanged`; `removed` once the release is good.
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


def diff_release(release: Release, *, context: str = "", force: bool = False) -> ReleaseDiff:
    """Say what rolling a release out would change, object by object; nothing is changed.

    Args:
        release: The release.
        context: Context of the kubeconfig.
        force: Assume that fields of other field managers are taken over.

    Raises:
        DeploymentError: The cluster does not answer, or refuses the release.
    """
    with connect(context) as cluster:
        release = completed(cluster, release)
        return diff_of(cluster, release, try_release(cluster, release, force=force))


def diff_of(cluster: ClusterConnection, release: Release, trial: Trial) -> ReleaseDiff:
    """Give what a trial has shown, with the objects that go once the release is good.

    The other side is the API server's own dry run, so defaults, webhooks and fields of other
    managers are in it.
    """
    tried = zip(trial.manifests, trial.before, trial.after, strict=True)
    found = [object_diff(ObjectRef.of(one), old, new) for one, old, new in tried]
    found += [_removal(live) for live in stale_objects(cluster, release)]
    return ReleaseDiff(tuple(found))


def object_diff(ref: ObjectRef, live: Manifest | None, would_be: Manifest) -> ObjectDiff:
    """Compare a live object with what it would become.

    Fields of the API server, of controllers and `status` are left out; values of Secrets
    are replaced by marks that differ when the values differ, and signatures of URLs by one mark.
    """
    old = _readable_text(live) if live is not None else ""
    new = _readable_text(would_be if live is not None else _without_guesses(would_be))
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


def _without_guesses(would_be: Manifest) -> Manifest:
    """Leave out what a dry run makes up for a new object and a real one will choose otherwise."""
    if would_be.get("kind") != "Service" or not isinstance(would_be.get("spec"), Mapping):
        return would_be
    # Headless is a choice of ours, the only address that is.
    guessed = {"clusterIPs", "healthCheckNodePort"}
    if would_be["spec"].get("clusterIP") != "None":
        guessed.add("clusterIP")
    spec = {key: value for key, value in would_be["spec"].items() if key not in guessed}
    ports = [
        {key: value for key, value in port.items() if key != "nodePort"}
        for port in spec.get("ports") or ()
    ]
    return {**would_be, "spec": {**spec, **({"ports": ports} if ports else {})}}


def _removal(live: Manifest) -> ObjectDiff:
    ref = ObjectRef.of(live)
    path = f"{ref.kind.lower()}/{ref.name}"
    old = _readable_text(live).splitlines(keepends=True)
    lines = difflib.unified_diff(old, [], f"live/{path}", "/dev/null")
    return ObjectDiff(ref, "removed", "".join(lines))


def _readable_text(live: Manifest) -> str:
    return without_signatures(manifest_text(_readable(live)))


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
