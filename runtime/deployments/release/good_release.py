"""A release that was good, packed into an annotation, and what of it is believed when read back.

Whoever may edit the holder may write the annotation. So nothing of it is applied that its target
could not have rendered for this very release: objects of its kinds, under its names, in its
namespace, with fields that its renderer writes. What remains is what options can ask for, among
it another image and the Secrets of the namespace: only a seal with a shared key
(`KFP_BENTO_RECORD_KEY`) says that the record is one of our own.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from kfp_bento.runtime import files
from kfp_bento.runtime.deployments.kube.cluster import Manifest, ObjectRef
from kfp_bento.runtime.deployments.kube.shapes import Exactly, Fields, Free, shape_problems
from kfp_bento.runtime.deployments.options.core_shapes import ANNOTATIONS, LABELS, TEXT
from kfp_bento.runtime.deployments.release.apply import primary_of
from kfp_bento.runtime.deployments.release.marks import (
    BENTO,
    IMAGE,
    LAST_GOOD,
    PREVIOUS_GOOD,
    REVISION,
    holder_annotations,
    holder_of,
    record_release,
    revision_of,
    without_marks,
)
from kfp_bento.runtime.deployments.targets.target import Target
from kfp_bento.runtime.deployments.targets.targets import TARGETS
from kfp_bento.runtime.errors import DeploymentError, KfpBentoError
from kfp_bento.runtime.programs import cleaned

# All annotations of an object together may have 256 KiB, and there are two such records.
LARGEST_RECORD = 100_000

_PURPOSE = "release"
_REVISION = re.compile(r"[0-9a-f]{16}")
_LONGEST_FACT = 1024
_PROBLEMS = 3


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


def encode_good(manifests: Sequence[Manifest]) -> str:
    """Pack recorded manifests into the text of an annotation, sealed where there is a shared key.

    More than `LARGEST_RECORD` characters are not kept: then only revision, image and
    bento are, and a roll back needs the manifests from elsewhere.
    """
    primary = ObjectRef.of(primary_of(manifests))
    told = holder_annotations(manifests, holder_of(primary))
    facts = {
        "revision": told.get(REVISION, ""),
        "image": told.get(IMAGE, ""),
        "bento": told.get(BENTO, ""),
    }
    packed = _pack({**facts, "manifests": list(manifests)}) or _pack(facts)
    sealed = files.seal(_sealed(primary, packed), _PURPOSE, _shared_key())
    return f"{packed}.{sealed}" if sealed else packed


def decode_good(text: str) -> GoodRelease:
    """Unpack what `encode_good` gave; what it says is not believed yet, see `believed`.

    Raises:
        DeploymentError: Somebody else changed the annotation.
    """
    try:
        packed = text.partition(".")[0]
        if len(packed) > LARGEST_RECORD:
            raise ValueError(f"it is larger than {LARGEST_RECORD} characters")
        unpacker = zlib.decompressobj()
        raw = unpacker.decompress(base64.b64decode(packed, validate=True), files.JSON_LIMIT)
        if not unpacker.eof or unpacker.unused_data:
            raise ValueError(f"it is cut, or unpacks to more than {files.JSON_LIMIT} bytes")
        told = files.parse_json(raw)
        manifests = told.get("manifests", [])
        if not isinstance(manifests, list) or not all(isinstance(one, dict) for one in manifests):
            raise ValueError("its manifests are no list of objects")
        return GoodRelease(
            revision=_fact(told, "revision", _REVISION),
            image=_fact(told, "image"),
            bento=_fact(told, "bento"),
            manifests=tuple(manifests),
        )
    except (binascii.Error, zlib.error, ValueError) as error:
        raise DeploymentError(
            f"The annotation {LAST_GOOD} (or {PREVIOUS_GOOD}) cannot be read: {error}",
            hint="Remove it, and apply the release that you want.",
        ) from error


def believed(text: str, primary: ObjectRef, annotation: str = LAST_GOOD) -> GoodRelease:
    """Give the release that an annotation holds, if it is one that could have been ours.

    Args:
        text: The annotation's value.
        primary: The primary object of the release that it was found on.
        annotation: Its name, for error messages.

    Raises:
        DeploymentError: It cannot be read; it is not sealed where a shared key is set; or it
            holds something that the target never renders for this release, by the field's name.
    """
    key = _shared_key()
    packed, _, found = text.partition(".")
    if key and not files.is_sealed(_sealed(primary, packed), _PURPOSE, found, key):
        raise DeploymentError(
            f"The annotation {annotation} of {primary} is not believed: it has no seal of the key "
            f"in {files.KEY_VARIABLE}.",
            hint="It was written without that key, or by somebody else. Deploy the release that "
            "you want: once it serves, it is recorded with a seal.",
        )
    good = decode_good(text)
    problems = list(_problems(good, primary))
    if problems:
        told = "; ".join(cleaned(problem)[:500] for problem in problems[:_PROBLEMS])
        more = f" (and {len(problems) - _PROBLEMS} more)" if len(problems) > _PROBLEMS else ""
        raise DeploymentError(
            f"The annotation {annotation} of {primary} is not believed, as kfp-bento would never "
            f"have written it: {told}{more}.",
            hint="Find out who wrote it, and remove it; then deploy the release that you want.",
        )
    return good


def _problems(good: GoodRelease, primary: ObjectRef) -> Iterator[str]:
    """Say what in a record was never rendered for this release."""
    if not good.manifests:
        return
    target = _target_of(good.manifests, primary)
    if target is None:
        yield f"its objects are no release of a {primary.kind}"
        return
    found = list(_envelope_problems(good.manifests, primary, target))
    yield from found
    if found:
        return
    if revision_of(good.manifests) != good.revision:
        yield f"its manifests are not of revision {good.revision or 'none'}"
    plain = [without_marks(manifest) for manifest in good.manifests]
    again = record_release(plain, image=good.image, bento=good.bento)
    if again != good.manifests:
        yield "labels and annotations under kfp-bento/ are not those of this release"
    found = list(_field_problems(plain, primary, target))
    yield from found
    if found:
        return
    images = {one.image for one in target.watched(plain).deployments if one.image}
    if images and good.image and good.image not in images:
        yield f"it serves {', '.join(sorted(images))} and says {good.image}"


def _target_of(manifests: Sequence[Manifest], primary: ObjectRef) -> Target | None:
    """Give the target that renders exactly these kinds for such a primary object."""
    kinds = {(one.get("apiVersion"), one.get("kind")) for one in manifests if _is_place(one)}
    for target in TARGETS.values():
        known = {(kind.api_version, kind.name) for kind in target.kinds}
        needed = {(kind.api_version, kind.name) for kind in target.essential_kinds}
        main = (target.primary_kind.api_version, target.primary_kind.name)
        if main == (primary.api_version, primary.kind) and needed <= kinds <= known:
            return target
    return None


def _is_place(manifest: Manifest) -> bool:
    return all(isinstance(manifest.get(key), str) for key in ("apiVersion", "kind"))


def _envelope_problems(
    manifests: Sequence[Manifest], primary: ObjectRef, target: Target
) -> Iterator[str]:
    """Check what all objects have in common, before anything looks inside."""
    metadata = Fields(
        {
            "name": TEXT,
            "namespace": Exactly(primary.namespace),
            "labels": LABELS,
            "annotations": ANNOTATIONS,
        },
        frozenset({"name", "namespace", "labels"}),
    )
    shape = Fields(
        {"apiVersion": TEXT, "kind": TEXT, "metadata": metadata, "spec": Free()},
        frozenset({"apiVersion", "kind", "metadata"}),
    )
    for place, manifest in enumerate(manifests):
        for problem in shape_problems(manifest, shape, ""):
            yield f"object {place + 1}: {problem.removeprefix('.')}"
            return
    refs = [ObjectRef.of(manifest) for manifest in manifests]
    if len(set(refs)) != len(refs):
        yield "it holds an object twice"
    elif primary not in refs or ObjectRef.of(primary_of(manifests)) != primary:
        yield f"{primary} is not its primary object"


def _field_problems(plain: Sequence[Manifest], primary: ObjectRef, target: Target) -> Iterator[str]:
    shapes = target.rendered_shapes(primary.name, plain)
    for manifest in plain:
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        shape = shapes.get((kind, name))
        if shape is None:
            yield f"{kind} {name}: {target.kind} renders no such object for {primary.name}"
            continue
        for problem in shape_problems(manifest, shape, ""):
            yield f"{kind} {name}: {problem.removeprefix('.')}"


def _fact(told: dict[str, Any], name: str, form: re.Pattern[str] | None = None) -> str:
    value = told.get(name, "")
    if not isinstance(value, str) or len(value) > _LONGEST_FACT or not value.isprintable():
        raise ValueError(f"its {name} is no such text")
    if form is not None and not form.fullmatch(value):
        raise ValueError(f"its {name} is none")
    return value


def _pack(value: Any) -> str:
    """Give the packed text; empty where it is too large to be read back."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    packed = base64.b64encode(zlib.compress(text, 9)).decode()
    return packed if len(text) < files.JSON_LIMIT and len(packed) <= LARGEST_RECORD else ""


def _sealed(primary: ObjectRef, packed: str) -> bytes:
    # A record of one release is none of another.
    return f"{primary}\n{packed}".encode()


def _shared_key() -> bytes | None:
    try:
        return files.shared_key()
    except ValueError as error:
        raise KfpBentoError(
            f"{error}.", hint="Give every step the same long random text, from a Secret."
        ) from None
