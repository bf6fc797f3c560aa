"""One image for several platforms: an index of images, each of them built as it would be alone.

All are planned before any is made, so that what one platform lacks is known before anything is
sent. The index, and so the tag, comes last.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from kfp_bento.runtime.errors import ImageError, KfpBentoError
from kfp_bento.runtime.images.assembly.assembly import Assembly, StoredImage
from kfp_bento.runtime.images.assembly.context import Destination
from kfp_bento.runtime.images.assembly.plan import ImagePlan, PlannedLayer
from kfp_bento.runtime.images.oci.config import image_index
from kfp_bento.runtime.images.oci.image import Image, Layer, Platform, descriptor_from
from kfp_bento.runtime.images.oci.reference import ImageReference
from kfp_bento.runtime.images.places.opened_image import parse_document

Assemblies = Mapping[Platform, Assembly]
"""How the image for each platform is put together."""


@contextlib.contextmanager
def naming(platform: Platform) -> Iterator[None]:
    """Have the failures of a block say for which platform they are."""
    try:
        yield
    except KfpBentoError as error:
        error.message = f"For {platform}: {error.message}"
        raise


def check_holds_several(target: ImageReference) -> None:
    """Refuse a place that holds an image for one platform only.

    Raises:
        ImageError: It is a docker archive.
    """
    if not target.keeps_manifests:
        raise ImageError(
            "A docker archive holds an image for one platform only.",
            hint="Choose one with --platform, or build to a registry or an oci:DIR.",
        )


def carry_out_all(
    assemblies: Assemblies, place: Destination, annotations: Mapping[str, str]
) -> Image:
    """Write the image for each platform, then their index, and let the tag point to that.

    Args:
        assemblies: How they are put together.
        place: Where they go.
        annotations: Those of the index.

    Raises:
        ImageError: A layer cannot be made or stored.
        RegistryError: A registry refused or failed; the tag then is what it was.
    """
    stored: dict[Platform, StoredImage] = {}
    parts: dict[Platform, Image] = {}
    for platform, assembly in assemblies.items():
        with naming(platform):
            stored[platform] = assembly.store()
            parts[platform] = assembly.image(stored[platform])
    found = {platform: one.composed.manifest for platform, one in stored.items()}
    index, content = image_index(found, annotations)
    sink, tell = place.sink, place.builder.tell
    sink.put_manifest(index, content)
    signed_by = place.sign(index)
    changed = sink.tag(index, content, place.tag)
    tell(f"{'wrote' if changed else 'already there:'} {place.target} as {index.digest}")
    notes = tuple(_together({platform: part.notes for platform, part in parts.items()}))
    for note in notes:
        tell(note)
    images = tuple(replace(part, reused=not changed) for part in parts.values())
    return Image(
        repository=place.repository,
        digest=index.digest,
        tags=(place.tag,),
        base=", ".join(dict.fromkeys(image.base for image in images)),
        location=place.target.location,
        layers=_each_once(images),
        platform=_listed(parts),
        reused=not changed,
        notes=notes,
        base_signed_by=images[0].base_signed_by,
        signed_by=signed_by,
        parts=images,
    )


def plan_all(assemblies: Assemblies, place: Destination) -> ImagePlan:
    """Say what `carry_out_all` would do."""
    plans: dict[Platform, ImagePlan] = {}
    for platform, assembly in assemblies.items():
        with naming(platform):
            plans[platform] = assembly.plan()
    layers: dict[str, PlannedLayer] = {}
    for plan in plans.values():
        for layer in plan.layers:
            layers.setdefault(layer.key, layer)
    first = next(iter(plans.values()))
    return ImagePlan(
        destination=first.destination,
        base=", ".join(dict.fromkeys(plan.base for plan in plans.values())),
        platform=_listed(plans),
        unchanged=_index_of(place, [plan.unchanged for plan in plans.values()]),
        layers=tuple(layers.values()),
        notes=tuple(_together({platform: plan.notes for platform, plan in plans.items()})),
    )


def _index_of(place: Destination, digests: Sequence[str]) -> str:
    """Give the digest of the index under the tag, if it lists these images; else nothing."""
    found = place.sink.named(place.tag) if all(digests) else None
    if found is None:
        return ""
    with contextlib.suppress(ImageError, KeyError, TypeError, AttributeError):
        listed: list[Any] = parse_document(found[1], "What has the tag")["manifests"]
        if {descriptor_from(item).digest for item in listed} == set(digests):
            return found[0].digest
    return ""


def _each_once(images: Iterable[Image]) -> tuple[Layer, ...]:
    layers: dict[str, Layer] = {}
    for image in images:
        for layer in image.layers:
            layers.setdefault(layer.digest, layer)
    return tuple(layers.values())


def _together(notes: Mapping[Platform, Sequence[str]]) -> Iterator[str]:
    """Give notes once where they are for all platforms, else with theirs."""
    for note in dict.fromkeys(note for some in notes.values() for note in some):
        where = [platform for platform, some in notes.items() if note in some]
        yield note if len(where) == len(notes) else f"{_listed(where)}: {note}"


def _listed(platforms: Iterable[Platform]) -> str:
    return ",".join(map(str, platforms))
