"""What a release writes on its objects: labels, its revision, and the facts on their holder.

The facts are annotations of one object, the holder: the primary object itself, or a
ConfigMap beside an InferenceService. KServe hands every annotation of an InferenceService on
to its pod templates, where each change would start another rollout (kserve, predictor
reconciler: only a fixed list of keys is filtered).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from kfp_bento.runtime.deployments.kube.cluster import Manifest, ObjectRef
from kfp_bento.runtime.deployments.release.apply import primary_of

RELEASE_LABEL = "kfp-bento/release"
KIND_LABEL = "kfp-bento/kind"
IMAGE, BENTO, REVISION = "kfp-bento/image", "kfp-bento/bento", "kfp-bento/revision"
LAST_GOOD, PREVIOUS_GOOD = "kfp-bento/last-good", "kfp-bento/previous-good"
ROLLED_BACK = "kfp-bento/rolled-back"

_OWN = frozenset((IMAGE, BENTO, REVISION, LAST_GOOD, PREVIOUS_GOOD, ROLLED_BACK))


def record_release(
    manifests: Sequence[Manifest], *, image: str = "", bento: str = ""
) -> tuple[dict[str, Any], ...]:
    """Give manifests with the release's labels and facts; what `roll_out` applies.

    Every object gets the labels that `delete_release` looks for and the revision, the
    holder also image and bento. The same content gives the same revision, recorded or not.

    Args:
        manifests: What a target rendered.
        image: Image reference by digest.
        bento: `name:version` of the bento.
    """
    primary = ObjectRef.of(primary_of(manifests))
    holder = holder_of(primary)
    told = holder_annotations(manifests, holder)
    facts = {IMAGE: image or told.get(IMAGE, ""), BENTO: bento or told.get(BENTO, "")}
    plain = [without_marks(manifest) for manifest in manifests]
    if all(ObjectRef.of(manifest) != holder for manifest in plain):
        place = {"name": holder.name, "namespace": holder.namespace}
        plain.insert(0, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": place})
    revision = revision_of(plain)
    marks = {ObjectRef.of(manifest): {REVISION: revision} for manifest in plain}
    if primary != holder:
        marks[primary] = {}
    marks[holder] = {REVISION: revision, **{key: value for key, value in facts.items() if value}}
    labels = release_labels(primary)
    return tuple(_with(manifest, labels, marks[ObjectRef.of(manifest)]) for manifest in plain)


def revision_of(manifests: Sequence[Manifest]) -> str:
    """Give the digest of manifests, 16 hex digits; our own marks on them do not count."""
    plain = sorted((without_marks(manifest) for manifest in manifests), key=ObjectRef.of)
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def holder_of(primary: ObjectRef) -> ObjectRef:
    """Give the object whose annotations hold the facts of a release."""
    if primary.kind != "InferenceService":
        return primary
    return ObjectRef("v1", "ConfigMap", primary.namespace, f"{primary.name}-kfp-bento")


def release_labels(primary: ObjectRef) -> dict[str, str]:
    """Give the labels of all objects of a release."""
    return {RELEASE_LABEL: primary.name, KIND_LABEL: primary.kind.lower()}


def revision_on(live: Manifest | None) -> str:
    """Give the revision that an object carries; empty when it has none."""
    return annotations_of(live or {}).get(REVISION, "")


def annotations_of(manifest: Manifest) -> dict[str, str]:
    """Give the annotations of an object."""
    return dict((manifest.get("metadata") or {}).get("annotations") or {})


def holder_annotations(manifests: Sequence[Manifest], holder: ObjectRef) -> dict[str, str]:
    """Give the annotations of the holder among manifests."""
    held = (manifest for manifest in manifests if ObjectRef.of(manifest) == holder)
    return annotations_of(next(held, {}))


def without_marks(manifest: Manifest) -> dict[str, Any]:
    """Give a manifest without our own marks."""
    metadata = dict(manifest["metadata"])
    marks = {"labels": {RELEASE_LABEL, KIND_LABEL}, "annotations": _OWN}
    for block, own in marks.items():
        kept = {key: value for key, value in (metadata.get(block) or {}).items() if key not in own}
        metadata.pop(block, None)
        if kept:
            metadata[block] = kept
    return {**manifest, "metadata": metadata}


def _with(
    manifest: Manifest, labels: Mapping[str, str], annotations: Mapping[str, str]
) -> dict[str, Any]:
    metadata = dict(manifest["metadata"])
    metadata["labels"] = {**(metadata.get("labels") or {}), **labels}
    if annotations:
        metadata["annotations"] = {**(metadata.get("annotations") or {}), **annotations}
    return {**manifest, "metadata": metadata}
