"""What a release leaves on its objects: its revision, its labels and the last good one.

The facts are annotations of one object, the holder: the primary object itself, or a
ConfigMap beside an InferenceService. KServe hands every annotation of an InferenceService on
to its pod templates, where each change would start another rollout (kserve, predictor
reconciler: only a fixed list of keys is filtered).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kfp_bento.runtime.errors import DeploymentError

from .apply import primary_of
from .cluster import ClusterConnection, Manifest, ObjectRef, Refused

# Not the manager of the apply: a later apply without the annotation must not remove it.
RECORDER = "kfp-bento-record"
RELEASE_LABEL = "kfp-bento/release"
KIND_LABEL = "kfp-bento/kind"
IMAGE, BENTO, REVISION = "kfp-bento/image", "kfp-bento/bento", "kfp-bento/revision"
LAST_GOOD, PREVIOUS_GOOD = "kfp-bento/last-good", "kfp-bento/previous-good"
ROLLED_BACK = "kfp-bento/rolled-back"
# All annotations of an object together may have 256 KiB, and there are two such records.
LARGEST_RECORD = 100_000

_OWN = frozenset((IMAGE, BENTO, REVISION, LAST_GOOD, PREVIOUS_GOOD, ROLLED_BACK))
_TRIES = 10
# A ceiling for what a record may unpack to, against one that somebody else wrote.
_LARGEST_UNPACKED = 20_000_000


@dataclass(frozen=True)
class Record:
    """What the holder says about a release.

    Attributes:
        revision: Digest of the rendered manifests, 16 hex digits.
        image: Image reference by digest.
        bento: `name:version`.
        last_good: The last release whose wait passed; None when there is none.
        previous_good: The one that was good before it.
        rolled_back: Revision that the last roll back has left, until another release is good.
    """

    revision: str = ""
    image: str = ""
    bento: str = ""
    last_good: GoodRelease | None = None
    previous_good: GoodRelease | None = None
    rolled_back: str = ""

    @property
    def serves_good(self) -> bool:
        """Whether the last good release is what is applied."""
        return self.last_good is not None and self.revision == self.last_good.revision

    def good(self, revision: str) -> GoodRelease | None:
        """Give the good release of a revision, or of the digits it begins with."""
        known = (one for one in (self.last_good, self.previous_good) if one)
        return next((one for one in known if one.revision.startswith(revision)), None)


@dataclass(frozen=True)
class GoodRelease:
    """A release that was ready once.

    Attributes:
        revision: Its revision.
        image: Its image.
        bento: Its bento.
        manifests: Its manifests as they were applied; empty when they were too large to keep.
    """

    revision: str
    image: str = ""
    bento: str = ""
    manifests: tuple[Manifest, ...] = ()


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
    told = _holder_annotations(manifests, holder)
    facts = {IMAGE: image or told.get(IMAGE, ""), BENTO: bento or told.get(BENTO, "")}
    plain = [_plain(manifest) for manifest in manifests]
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
    plain = sorted((_plain(manifest) for manifest in manifests), key=ObjectRef.of)
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


def read_record(holder: Manifest | None) -> Record:
    """Read the facts of a release from its holder as it is live."""
    told = _annotations(holder or {})
    return Record(
        revision=told.get(REVISION, ""),
        image=told.get(IMAGE, ""),
        bento=told.get(BENTO, ""),
        last_good=decode_good(told[LAST_GOOD]) if told.get(LAST_GOOD) else None,
        previous_good=decode_good(told[PREVIOUS_GOOD]) if told.get(PREVIOUS_GOOD) else None,
        rolled_back=told.get(ROLLED_BACK, ""),
    )


def revision_on(live: Manifest | None) -> str:
    """Give the revision that an object carries; empty when it has none."""
    return _annotations(live or {}).get(REVISION, "")


def encode_good(manifests: Sequence[Manifest]) -> str:
    """Pack recorded manifests into the text of an annotation.

    More than `LARGEST_RECORD` characters are not kept: then only revision, image and
    bento are, and a roll back needs the manifests from elsewhere.
    """
    holder = holder_of(ObjectRef.of(primary_of(manifests)))
    told = _holder_annotations(manifests, holder)
    facts = {
        "revision": told.get(REVISION, ""),
        "image": told.get(IMAGE, ""),
        "bento": told.get(BENTO, ""),
    }
    packed = _pack({**facts, "manifests": list(manifests)})
    return packed if len(packed) <= LARGEST_RECORD else _pack(facts)


def decode_good(text: str) -> GoodRelease:
    """Unpack what `encode_good` gave.

    Raises:
        DeploymentError: Somebody else changed the annotation.
    """
    try:
        unpacker = zlib.decompressobj()
        raw = unpacker.decompress(base64.b64decode(text, validate=True), _LARGEST_UNPACKED)
        told = json.loads(raw)
        return GoodRelease(
            revision=str(told["revision"]),
            image=str(told.get("image", "")),
            bento=str(told.get("bento", "")),
            manifests=tuple(told.get("manifests", ())),
        )
    except (binascii.Error, zlib.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DeploymentError(
            f"The annotation {LAST_GOOD} (or {PREVIOUS_GOOD}) cannot be read: {error}",
            hint="Remove it, and apply the release that you want.",
        ) from error


def mark_good(
    cluster: ClusterConnection, manifests: Sequence[Manifest], *, restored: bool = False
) -> bool:
    """Record manifests as the last good release, if they are still what is applied.

    What was the last good one becomes the previous one.

    Args:
        cluster: Where the release is.
        manifests: As they were applied.
        restored: Whether a roll back brought them; then it stays noted.

    Returns:
        False when another release has taken over in the meantime.
    """
    primary = ObjectRef.of(primary_of(manifests))
    holder = holder_of(primary)
    revision = _holder_annotations(manifests, holder).get(REVISION, "")
    packed = encode_good(manifests)

    def changes(told: Mapping[str, str]) -> dict[str, str | None] | None:
        if told.get(REVISION) != revision:
            return None
        marks: dict[str, str | None] = {}
        before = told.get(LAST_GOOD, "")
        if before != packed:
            marks[LAST_GOOD] = packed
            if _readable_revision(before) not in ("", revision):
                marks[PREVIOUS_GOOD] = before
        if ROLLED_BACK in told and not restored:
            marks[ROLLED_BACK] = None
        return marks

    return _annotate(cluster, holder, changes)


def mark_step_back(
    cluster: ClusterConnection, primary: ObjectRef, good: GoodRelease, leaving: str
) -> bool:
    """Record that a release goes back to a good one, before anything is applied.

    So a roll back that is killed anywhere goes the same way when it is tried again.

    Args:
        cluster: Where the release is.
        primary: Its primary object.
        good: Where it goes.
        leaving: The revision that it leaves.

    Returns:
        False when that is not what is applied any more.
    """

    def changes(told: Mapping[str, str]) -> dict[str, str | None] | None:
        if told.get(REVISION) != leaving:
            return None
        marks: dict[str, str | None] = {ROLLED_BACK: leaving}
        if _readable_revision(told.get(PREVIOUS_GOOD, "")) == good.revision:
            marks |= {LAST_GOOD: told[PREVIOUS_GOOD], PREVIOUS_GOOD: None}
        return marks

    return _annotate(cluster, holder_of(primary), changes)


def _annotate(
    cluster: ClusterConnection,
    holder: ObjectRef,
    changes: Callable[[Mapping[str, str]], Mapping[str, str | None] | None],
) -> bool:
    """Change annotations by what they are now, never over somebody else's change."""
    for _ in range(_TRIES):
        live = cluster.get(holder)
        marks = changes(_annotations(live)) if live is not None else None
        if live is None or marks is None:
            return False
        if not marks:
            return True
        metadata = {
            "annotations": dict(marks),
            "resourceVersion": live["metadata"]["resourceVersion"],
        }
        try:
            cluster.merge(holder, {"metadata": metadata}, manager=RECORDER)
        except Refused as refused:
            # 409: status or another run came in between, so look again; 404: deleted.
            if refused.status not in (404, 409):
                raise
        else:
            return True
    return False


def _readable_revision(text: str) -> str:
    """Give the revision of a packed release; empty where there is none to be read."""
    try:
        return decode_good(text).revision if text else ""
    except DeploymentError:
        return ""


def _pack(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def _annotations(manifest: Manifest) -> dict[str, str]:
    return dict((manifest.get("metadata") or {}).get("annotations") or {})


def _holder_annotations(manifests: Sequence[Manifest], holder: ObjectRef) -> dict[str, str]:
    held = (manifest for manifest in manifests if ObjectRef.of(manifest) == holder)
    return _annotations(next(held, {}))


def _with(
    manifest: Manifest, labels: Mapping[str, str], annotations: Mapping[str, str]
) -> dict[str, Any]:
    metadata = dict(manifest["metadata"])
    metadata["labels"] = {**(metadata.get("labels") or {}), **labels}
    if annotations:
        metadata["annotations"] = {**(metadata.get("annotations") or {}), **annotations}
    return {**manifest, "metadata": metadata}


def _plain(manifest: Manifest) -> dict[str, Any]:
    """Give a manifest without our own marks."""
    metadata = dict(manifest["metadata"])
    marks = {"labels": {RELEASE_LABEL, KIND_LABEL}, "annotations": _OWN}
    for block, own in marks.items():
        kept = {key: value for key, value in (metadata.get(block) or {}).items() if key not in own}
        metadata.pop(block, None)
        if kept:
            metadata[block] = kept
    return {**manifest, "metadata": metadata}
