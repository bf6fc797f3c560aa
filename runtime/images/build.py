"""From a bento directory to an image: base, dependencies, models and source, as layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from kfp_bento.runtime.bentos import changed_models
from kfp_bento.runtime.concurrency import Approval
from kfp_bento.runtime.errors import ImageError
from kfp_bento.runtime.images.assembly.assembly import Assembly
from kfp_bento.runtime.images.assembly.context import BuildContext, Destination, open_destination
from kfp_bento.runtime.images.assembly.libraries import system_layer
from kfp_bento.runtime.images.assembly.options import DEFAULTS, ImageOptions
from kfp_bento.runtime.images.assembly.plan import ImagePlan
from kfp_bento.runtime.images.assembly.qualify import (
    ImageRequirements,
    qualify,
    require_bentoml,
)
from kfp_bento.runtime.images.assembly.recipes import (
    model_recipes,
    source_recipe,
)
from kfp_bento.runtime.images.assembly.several import (
    Assemblies,
    carry_out_all,
    check_holds_several,
    naming,
    plan_all,
)
from kfp_bento.runtime.images.assembly.spec import ImageSpec, glibc_label, titles
from kfp_bento.runtime.images.oci.config import (
    BENTO,
    BENTO_PATH,
    MODELS,
    SERVICE,
    ImageConfig,
    check_layer_count,
)
from kfp_bento.runtime.images.oci.image import Image, Platform, parse_platforms
from kfp_bento.runtime.images.oci.layers import codec_named
from kfp_bento.runtime.images.oci.reference import check_tag, parse_destination
from kfp_bento.runtime.images.places.open import check_free
from kfp_bento.runtime.images.python.groups import dependency_groups
from kfp_bento.runtime.images.python.lock import Lock

if TYPE_CHECKING:
    from kfp_bento.runtime.bentos import Bento


def build_image(
    bento: Bento,
    destination: str,
    options: ImageOptions = DEFAULTS,
    *,
    progress: Callable[[str], None] = lambda sentence: None,
    approval: Approval | None = None,
) -> Image:
    """Build an OCI image from a bento and write it to a directory or a registry.

    Neither Docker nor root nor a daemon takes part, and nothing of the bento is executed. The
    same bento, base and options give the same digest on any machine and any day. Layers that
    were made before, from the same inputs, are neither made nor sent again.

    Args:
        bento: The bento; its directory holds the models.
        destination: `oci:DIR` for an OCI layout directory, `docker-archive:FILE` for what
            `docker load` reads, or `host[:port]/path[:tag]`.
        options: The base, the image's names, and how it is built.
        progress: Called with a short sentence at each step.
        approval: What has to be given before the image gets its manifest and its tag; its layers
            are made and sent meanwhile.

    Returns:
        The image, by digest.

    Raises:
        InvalidInput: A parameter cannot be used.
        ImageError: The bento needs a builder that runs commands, a dependency cannot be
            installed, the base does not fit, the destination is taken or the disk is full.
        RegistryError: A registry refused or failed.
        Stopped: The approval was refused.
    """
    with _assemblies(bento, destination, options, progress) as (place, assemblies):
        if approval:
            for one in assemblies.values():
                one.wait_for(approval)
        if len(assemblies) > 1:
            return carry_out_all(assemblies, place, titles(bento.name, bento.version))
        (assembly,) = assemblies.values()
        return assembly.carry_out()


def plan_image(
    bento: Bento,
    destination: str,
    options: ImageOptions = DEFAULTS,
    *,
    progress: Callable[[str], None] = lambda sentence: None,
) -> ImagePlan:
    """Say what `build_image` would do with the same arguments, and make and send nothing.

    Returns:
        Each layer with its key, what would happen to it, and its bytes.

    Raises:
        InvalidInput: A parameter cannot be used.
        ImageError: The bento or the base does not qualify.
        RegistryError: A registry refused or failed.
    """
    with _assemblies(bento, destination, options, progress, reading=False) as (place, assemblies):
        if len(assemblies) > 1:
            return plan_all(assemblies, place)
        (assembly,) = assemblies.values()
        return assembly.plan()


def check_destination(destination: str, options: ImageOptions = DEFAULTS) -> None:
    """Look whether `build_image` could begin, before there is a bento; nothing is asked for.

    Raises:
        InvalidInput: The destination, the platform, the compression or the tag cannot be used.
        ImageError: A directory or file is there that kfp-bento did not write.
    """
    target = parse_destination(destination)
    check_free(target)
    parse_platforms(options.platform)
    codec_named(options.compression)
    if options.tag:
        check_tag(options.tag)


@contextmanager
def _assemblies(
    bento: Bento,
    destination: str,
    options: ImageOptions,
    progress: Callable[[str], None],
    *,
    reading: bool = True,
) -> Iterator[tuple[Destination, Assemblies]]:
    """Give how the image for each platform is put together, once all are known to be possible."""
    wishes = qualify(bento.directory)
    if not bento.python_version:
        raise ImageError(
            f"The bento {bento.name} does not say which Python it needs.",
            hint="Build it again with python_version set.",
        )
    options = replace(options, base=options.base or wishes.base)
    asked = tuple(dict.fromkeys((*wishes.system_packages, *options.system_packages)))
    wishes = replace(wishes, system_packages=asked)
    platforms = parse_platforms(options.platform)
    alone = len(platforms) == 1
    with open_destination(bento.name, bento.version, destination, options, progress) as place:
        if not alone:
            check_holds_several(place.target)
        assemblies: dict[Platform, Assembly] = {}
        for platform in platforms:
            with nullcontext() if alone else naming(platform):
                context = place.context(
                    bento.python_version,
                    platform,
                    options,
                    needs=SERVICE.needs,
                    of="" if alone else str(platform),
                )
                assemblies[platform] = _assembled(
                    bento, wishes, context, reading=reading, alone=alone
                )
        yield place, assemblies


def _assembled(
    bento: Bento,
    wishes: ImageRequirements,
    context: BuildContext,
    *,
    reading: bool,
    alone: bool,
) -> Assembly:
    """Give base and recipes, from the layer that changes least to the one that changes most."""
    base, builder, platform = context.base, context.builder, context.platform
    folder = _install_folder(bento.directory)
    lock = Lock(wishes.requirements, folder, bento.python_version, own=False)
    wheels, chosen = context.select(lock)
    require_bentoml(wheels, platform)
    groups = dependency_groups(lock, platform, interpreter=base.interpreter, wheels=wheels)
    models = tuple(model_recipes(bento.directory, builder.epoch))
    # Before wheels are fetched, to be looked into.
    check_layer_count(len(base.layers) + len(groups) + len(models) + 1)
    system = system_layer(
        wishes.system_packages,
        [(lock, wheels)],
        context.dependency_recipes(groups),
        context,
        reading=reading,
        own_folders="LD_LIBRARY_PATH" in wishes.environment,
    )
    named = titles(bento.name, bento.version)
    spec = ImageSpec(
        name=bento.name,
        version=bento.version,
        repository=context.place.repository,
        asked=context.asked,
        base=base,
        config=ImageConfig(
            platform=platform,
            interpreter=base.interpreter,
            epoch=builder.epoch,
            environment=wishes.environment,
            labels={**named, **glibc_label(wheels), **system.label, **_labels(bento)},
            annotations=named,
        ),
        recipes=(
            *system.recipes,
            *models,
            source_recipe(bento.directory, bento.name, builder),
        ),
        compression=builder.codec.name,
        digest=bento.digest,
        models=bento.models,
        wheels=wheels,
        debs=system.packages,
    )
    return Assembly(
        spec,
        context,
        check=lambda sums: check_models(bento, sums),
        kept={**context.seen, **chosen, **system.kept},
        notes=(*wishes.notes, *system.notes),
        alone=alone,
    )


def check_models(bento: Bento, sums: Mapping[str, str]) -> None:
    """Make sure that the image holds the models that it will say it holds.

    Raises:
        ImageError: Files of a model are not what a record claimed when the bento was loaded.
    """
    place = f"{BENTO_PATH.lstrip('/')}/"
    inside = {path.removeprefix(place): sha256 for path, sha256 in sums.items()}
    if changed := changed_models(bento, inside):
        raise ImageError(
            f"The files of {', '.join(changed)} are not those that the bento was made of; the "
            "image got no tag.",
            hint="Let nothing write to the bento meanwhile, or build it again.",
        )


def _labels(bento: Bento) -> dict[str, str]:
    """Give the bento, and the models with their content digests: what the image answers with."""
    models = " ".join(f"{model.tag}@{model.digest}" for model in bento.models)
    return {BENTO: bento.tag, MODELS: models}


def _install_folder(bento: Path) -> Path:
    """Where BentoML starts the installer, so that `./wheels/…` means the same."""
    return bento / "src" if (bento / "src").is_dir() else bento / "env" / "python"
