"""An image of ours taken apart: what it follows from, read from the image alone."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from packaging.version import InvalidVersion, Version

from kfp_bento.runtime.errors import ImageError
from kfp_bento.runtime.images.base.base_image import BaseImage
from kfp_bento.runtime.images.base.host import TITLE as HOST_TITLE
from kfp_bento.runtime.images.oci.config import (
    BASE_DIGEST,
    IMAGE_TITLE,
    IMAGE_VERSION,
    INTERPRETER,
    OWN_ENVIRONMENT,
    PROFILE,
    PROFILES,
    SERVICE,
    STEP,
    ImageConfig,
    Profile,
)
from kfp_bento.runtime.images.oci.image import Layer, one_line
from kfp_bento.runtime.images.places.opened_image import OpenedImage, check_texts

REBUILD = "Build the image again from its bento, with the new base."

_OWN_LABELS = (IMAGE_TITLE, IMAGE_VERSION, BASE_DIGEST)
_HISTORY = "kfp-bento: "
_KINDS = {
    "environment (": "dependencies",
    "wheels: ": "dependencies",
    "model ": "model",
    "source of ": "source",
}
_MINOR = re.compile(r"python(3\.\d+)")


@dataclass(frozen=True)
class ImageParts:
    """What an image of ours is made of.

    Attributes:
        below: The layers of its base.
        own: The layers above it.
        base_digest: Digest of its base; may be empty.
        config: What the build put into its configuration, that of the base left out.
    """

    below: tuple[Layer, ...]
    own: tuple[Layer, ...]
    base_digest: str
    config: ImageConfig

    @property
    def python(self) -> str:
        """Minor version of the interpreter."""
        found = _MINOR.fullmatch(PurePosixPath(self.config.interpreter).name)
        if found is None:
            shown = one_line(self.config.interpreter)
            raise ImageError(f"The image's Python is '{shown}', which has no version.")
        return found[1]

    def stands_on(self, base: BaseImage) -> bool:
        """Say whether a base is the one below already."""
        same = [layer.diff_id for layer in self.below] == [layer.diff_id for layer in base.layers]
        return same and self.base_digest == base.digest


def take_apart(image: OpenedImage) -> ImageParts:
    """Take apart an image that kfp-bento built.

    Raises:
        ImageError: It did not, or the image was changed since, or does not tell.
        KeyError, TypeError, ValueError: A field is malformed; see `well_formed`.
    """
    inside = image.config.get("config") or {}
    labels = {str(name): str(value) for name, value in (inside.get("Labels") or {}).items()}
    profile = _profile(image, labels)
    below, own = _split(image, profile)
    missing = [name for name in (INTERPRETER, OWN_ENVIRONMENT) if name not in labels]
    if missing:
        raise ImageError(
            f"{image.title} does not say how it was put together: it has no label {missing[0]}.",
            hint=REBUILD,
        )
    values = dict(pair.partition("=")[::2] for pair in inside.get("Env") or ())
    names = [name for name in labels[OWN_ENVIRONMENT].split(",") if name]
    if not values.keys() >= set(names):
        raise ImageError(
            f"{image.title} lacks variables that its label {OWN_ENVIRONMENT} names.", hint=REBUILD
        )
    annotations = dict(image.manifest.get("annotations") or {})
    check_texts("its 'annotations'", annotations.values())
    mine = {
        name: value
        for name, value in labels.items()
        if name in annotations or name in _OWN_LABELS or name.startswith("kfp-bento.")
    }
    base_digest = mine.pop(BASE_DIGEST, "")
    annotations.pop(BASE_DIGEST, None)
    config = ImageConfig(
        platform=image.platform,
        interpreter=labels[INTERPRETER],
        epoch=_epoch(image),
        profile=profile,
        environment={name: values[name] for name in names},
        labels=mine,
        # An archive has no annotations: those that every build gives are labels too.
        annotations=annotations or {name: mine[name] for name in _OWN_LABELS if name in mine},
    )
    return ImageParts(below, own, base_digest, config)


def _profile(image: OpenedImage, labels: Mapping[str, str]) -> Profile:
    name = labels.get(PROFILE, SERVICE.name)
    if name not in PROFILES:
        raise ImageError(
            f"{image.title} has the profile '{one_line(name)}', which this version of kfp-bento "
            f"does not know; it knows {', '.join(PROFILES)}.",
            hint="Use the version of kfp-bento that built the image, or a later one.",
        )
    return PROFILES[name]


def _split(image: OpenedImage, profile: Profile) -> tuple[tuple[Layer, ...], tuple[Layer, ...]]:
    """Give the layers of the base and those above it, by their annotations or else the history."""
    layers = image.layers
    if all(layer.kind == "base" for layer in layers):
        layers = _named_by_history(image)
    count = next((n for n, layer in enumerate(layers) if layer.kind != "base"), len(layers))
    below, own = layers[:count], layers[count:]
    kinds = [layer.kind for layer in own]
    if not own:
        raise ImageError(
            f"{image.title} was not built by kfp-bento: no layer of it says what it holds.",
            hint="Only such images can be put on another base.",
        )
    if "base" in kinds or not _as_built(kinds, profile):
        raise ImageError(
            f"{image.title} has been changed since kfp-bento built it: its layers are "
            f"{', '.join(layer.kind for layer in layers)}.",
            hint=REBUILD,
        )
    return below, own


def _as_built(kinds: Sequence[str], profile: Profile) -> bool:
    """Whether layers of these kinds are what a build puts on a base."""
    if profile is STEP:
        return set(kinds) <= {"system", "dependencies"} and kinds[-1] == "dependencies"
    return kinds.count("source") == 1 and kinds[-1] == "source"


def _named_by_history(image: OpenedImage) -> tuple[Layer, ...]:
    """Give the layers by what the history says of each, for an image without annotations."""
    history = [x for x in image.config.get("history") or () if not x.get("empty_layer")]
    if len(history) != len(image.layers):
        return image.layers
    return tuple(
        _named(layer, str(entry.get("created_by", "")))
        for layer, entry in zip(image.layers, history, strict=True)
    )


def _named(layer: Layer, made_by: str) -> Layer:
    if not made_by.startswith(_HISTORY) or made_by == f"{_HISTORY}{HOST_TITLE}":
        return layer
    title = made_by.removeprefix(_HISTORY)
    # What is not known by its title is taken for the kind that is hardest to move.
    kind = next((kind for start, kind in _KINDS.items() if title.startswith(start)), "system")
    return replace(layer, kind="dependencies" if _is_wheel(title) else kind, title=title)


def _is_wheel(title: str) -> bool:
    """Whether a layer's title is that of a single wheel: `torch 2.4.0`."""
    name, _, version = title.partition(" ")
    try:
        Version(version)
    except InvalidVersion:
        return False
    return bool(name)


def _epoch(image: OpenedImage) -> int:
    text = str(image.config.get("created", ""))
    try:
        moment = datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ")
    except ValueError as error:
        raise ImageError(
            f"{image.title} has no creation time as kfp-bento writes it ('{one_line(text)}').",
            hint=REBUILD,
        ) from error
    return int(moment.replace(tzinfo=datetime.UTC).timestamp())
