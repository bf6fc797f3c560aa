"""From a bento to an image of one model's files alone, as KServe mounts it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

from kfp_bento.runtime.errors import InvalidInput
from kfp_bento.runtime.images.assembly.assembly import Assembly
from kfp_bento.runtime.images.assembly.context import BuildContext, open_destination
from kfp_bento.runtime.images.assembly.options import DEFAULTS, ImageOptions
from kfp_bento.runtime.images.assembly.recipes import Recipe, model_recipes
from kfp_bento.runtime.images.assembly.spec import ImageSpec, titles
from kfp_bento.runtime.images.build import check_models
from kfp_bento.runtime.images.oci.config import BENTO_PATH, MODEL, MODELS, ImageConfig
from kfp_bento.runtime.images.oci.image import parse_platform
from kfp_bento.runtime.images.oci.tar import symlink_entry

if TYPE_CHECKING:
    from kfp_bento.runtime.bentos import Bento, BentoModel
    from kfp_bento.runtime.images.oci.image import Image

_PLACE = "models"


def build_model_image(
    bento: Bento,
    destination: str,
    options: ImageOptions = DEFAULTS,
    *,
    model: str = "",
    progress: Callable[[str], None] = lambda sentence: None,
) -> Image:
    """Build an image of one model of a bento, for KServe's `storageUri: oci://...`.

    Its layers of weights are those of the bento's own image, so that a registry and a node hold
    them once for both; `/models` leads to them.

    Args:
        bento: The bento; its directory holds the models.
        destination: See `build_image`.
        options: See `build_image`; on the same base as the bento's image nothing of it is stored
            or pulled twice.
        model: The model's tag or its name; may be left out where there is one.
        progress: Called with a short sentence at each step.

    Returns:
        The image, by digest.

    Raises:
        InvalidInput: A parameter cannot be used, or there is no such model.
        ImageError: The base does not fit, the destination is taken or the disk is full.
        RegistryError: A registry refused or failed.
    """
    if options.system_packages:
        raise InvalidInput(
            "An image of a model's files alone runs nothing that system packages would be for.",
            hint="Leave system_packages (--system-package) out.",
        )
    chosen = _chosen(bento, model)
    name, _, version = chosen.tag.partition(":")
    platform = parse_platform(options.platform)
    with open_destination(name, version, destination, options, progress) as place:
        context = place.context(bento.python_version, platform, options, needs=MODEL.needs)
        spec = _spec(bento, chosen, context)
        alone = replace(bento, models=(chosen,))
        return Assembly(
            spec, context, check=lambda sums: check_models(alone, sums), kept=context.seen
        ).carry_out()


def _chosen(bento: Bento, wanted: str) -> BentoModel:
    found = [one for one in bento.models if wanted in ("", one.tag, one.tag.partition(":")[0])]
    if len(found) == 1:
        return found[0]
    known = ", ".join(one.tag for one in bento.models)
    if not known:
        raise InvalidInput(f"The bento {bento.tag} holds no model.", hint="Build its image.")
    raise InvalidInput(
        f"The bento {bento.tag} holds {len(bento.models)} models, and an image holds one"
        + (f"; {wanted!r} names {len(found)} of them." if wanted else "."),
        hint=f"Name one: {known}.",
    )


def _spec(bento: Bento, chosen: BentoModel, context: BuildContext) -> ImageSpec:
    base, builder = context.base, context.builder
    name, _, version = chosen.tag.partition(":")
    named = titles(name, version)
    return ImageSpec(
        name=name,
        version=version,
        repository=context.place.repository,
        asked=context.asked,
        base=base,
        config=ImageConfig(
            platform=context.platform,
            interpreter=base.interpreter,
            epoch=builder.epoch,
            profile=MODEL,
            labels={**named, MODELS: f"{chosen.tag}@{chosen.digest}"},
            annotations=named,
        ),
        recipes=(
            *model_recipes(bento.directory, builder.epoch, tag=chosen.tag),
            _link(chosen, context),
        ),
        compression=builder.codec.name,
        digest=chosen.digest,
        models=(chosen,),
    )


def _link(chosen: BentoModel, context: BuildContext) -> Recipe:
    """Give the layer with `/models`.

    A relative link: KServe reads it through /proc/PID/root, where an absolute one would lead into
    the root of whoever reads it.
    """
    target = f"{BENTO_PATH.lstrip('/')}/models/{chosen.tag.replace(':', '/')}"
    entries = [symlink_entry(_PLACE, target)]
    return Recipe(
        kind="source",
        title=f"/{_PLACE}",
        inputs={"link": target},
        codec=context.builder.codec,
        epoch=context.builder.epoch,
        size=0,
        prepare=lambda scratch: nullcontext(lambda: entries),
    )
