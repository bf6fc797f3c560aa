"""What an image follows from: its key and its bytes are both made of this one value."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.images.assembly.recipes import Recipe
from kfp_bento.runtime.images.attestations.image_build import builder_version
from kfp_bento.runtime.images.base.base_image import BaseImage
from kfp_bento.runtime.images.debian import DebianPackage
from kfp_bento.runtime.images.oci.config import (
    IMAGE_TITLE,
    IMAGE_VERSION,
    NEEDED_GLIBC,
    ComposedImage,
    ImageConfig,
)
from kfp_bento.runtime.images.oci.image import Layer
from kfp_bento.runtime.images.oci.keys import key_of
from kfp_bento.runtime.images.python.installer import GLIBC, needed_glibc
from kfp_bento.runtime.images.python.selection import Wheel

if TYPE_CHECKING:
    from kfp_bento.runtime.bentos import BentoModel


@dataclass(frozen=True)
class ImageSpec:
    """An image before it is made, with all that its documents will say.

    The run that builds it is not among it: a repeated build gives no other image.

    Attributes:
        name: What the image is called.
        version: Its version.
        repository: By which it is known.
        asked: The base as it was asked for.
        base: The layers and configuration below.
        config: What its configuration says besides.
        recipes: The layers above, from the lowest to the highest.
        compression: How layers are compressed, by name.
        digest: Content digest of its bento, `sha256:…`; may be empty.
        models: The models inside, with their origins.
        wheels: The wheels of its environment.
        debs: The Debian packages on top of its base.
    """

    name: str
    version: str
    repository: str
    asked: str
    base: BaseImage
    config: ImageConfig
    recipes: tuple[Recipe, ...]
    compression: str
    digest: str = ""
    models: tuple[BentoModel, ...] = ()
    wheels: tuple[Wheel, ...] = ()
    debs: tuple[DebianPackage, ...] = ()

    @cached_property
    def key(self) -> str:
        """What the image is recognised by before any layer was made."""
        plain: dict[str, Any] = {
            "base": self.base.inputs(),
            "config": asdict(self.config),
            "recipes": [recipe.key for recipe in self.recipes],
            "models": [model.to_dict() for model in self.models],
            "wheels": sorted([wheel.filename, wheel.sha256] for wheel in self.wheels),
            "debs": sorted([deb.filename, deb.sha256, deb.codename] for deb in self.debs),
        }
        return key_of({"kind": "image", "builder": builder_version(), **vars(self), **plain})

    def compose(self, layers: Sequence[Layer]) -> ComposedImage:
        """Compose the image's configuration and manifest of all its layers."""
        return self.config.compose(self.base.config, self.base.digest, layers)

    def own(self, layers: Sequence[Layer]) -> list[tuple[Recipe, Layer]]:
        """Give each recipe with its layer, out of all layers of the image."""
        return list(zip(self.recipes, layers[len(self.base.layers) :], strict=True))


def glibc_label(wheels: Iterable[Wheel]) -> dict[str, str]:
    """Give the label of an image that runs with a newer C library than most do; else none."""
    needed = needed_glibc(wheels)
    return {NEEDED_GLIBC: ".".join(map(str, needed))} if needed > GLIBC else {}


def titles(name: str, version: str) -> dict[str, str]:
    """Give what stands on every image, for people and for tools that know no more of it."""
    return {IMAGE_TITLE: name, IMAGE_VERSION: version}
