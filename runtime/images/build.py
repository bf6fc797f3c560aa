"""From a bento directory to an image: base, dependencies, models and source, as layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.bentos import changed_models
from kfp_bento.runtime.errors import ImageError
from kfp_bento.runtime.images.assembly.assembly import Contents
from kfp_bento.runtime.images.assembly.context import BuildContext, build_options, open_context
from kfp_bento.runtime.images.assembly.documents import Attestations
from kfp_bento.runtime.images.assembly.plan import ImagePlan
from kfp_bento.runtime.images.assembly.qualify import ImageRequirements, qualify
from kfp_bento.runtime.images.assembly.recipes import (
    Progress,
    Recipe,
    dependency_recipe,
    model_recipes,
    source_recipe,
    system_recipe,
)
from kfp_bento.runtime.images.debian import DebianPackage, resolve_packages
from kfp_bento.runtime.images.oci.config import BENTO, BENTO_PATH, MODELS, image_config
from kfp_bento.runtime.images.oci.image import Image
from kfp_bento.runtime.images.python.environment import dependency_groups
from kfp_bento.runtime.images.python.lock import Lock

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from kfp_bento.runtime.bentos import Bento


def build_image(
    bento: Bento,
    destination: str,
    *,
    base: str = "",
    repository: str = "",
    tag: str = "",
    platform: str = "",
    cache: Path | None = None,
    cache_repository: str = "",
    compression: str = "zstd",
    progress: Progress | None = None,
) -> Image:
    """Builds an OCI image from a bento and writes it to a directory or a registry.

    Neither Docker nor root nor a daemon takes part, and nothing of the bento is executed. The
    same bento, base and options give the same digest on any machine and any day. Layers that
    were made before, from the same inputs, are neither made nor sent again.

    Args:
        bento: The bento; its directory holds the models.
        destination: ``oci:DIR`` for an OCI layout directory, ``docker-archive:FILE`` for what
            `docker load` reads, or ``host[:port]/path[:tag]``.
        base: ``host``, ``oci:DIR[:TAG]``, ``docker-archive:FILE[:TAG]`` or a registry reference.
            Empty: what `choose_base` says.
        repository: The repository the image is to be known by when it goes to a directory or file;
            ``localhost/<bento name>`` if empty.
        tag: The tag; the bento's version if neither this nor the destination says one.
        platform: ``linux/amd64`` or ``linux/arm64``; this machine's if empty.
        cache: A directory where costly layers are kept between builds; ``$KFP_BENTO_CACHE`` if
            none is given, and none if that is not set.
        cache_repository: A repository of the destination's registry where layers are recorded, so
            that several repositories share them; ``$KFP_BENTO_CACHE_REPOSITORY`` if empty, and
            the destination itself if that is not set.
        compression: ``zstd``, ``gzip`` or ``none``; models are never compressed.
        progress: Called with a short sentence at each step.

    Returns:
        The image, by digest.

    Raises:
        InvalidInput: A parameter cannot be used.
        ImageError: The bento needs a builder that runs commands, a dependency cannot be
            installed, the base does not fit, the destination is taken or the disk is full.
        RegistryError: A registry refused or failed.
    """
    wishes = qualify(bento.directory)
    with _opened(
        bento,
        wishes,
        destination,
        progress,
        base=base,
        repository=repository,
        tag=tag,
        platform=platform,
        cache=cache,
        cache_repository=cache_repository,
        compression=compression,
    ) as context:
        return context.build(_contents(bento, wishes, context))


def plan_image(
    bento: Bento,
    destination: str,
    *,
    base: str = "",
    tag: str = "",
    platform: str = "",
    cache: Path | None = None,
    cache_repository: str = "",
    compression: str = "zstd",
    progress: Progress | None = None,
) -> ImagePlan:
    """Says what `build_image` would do with the same arguments, and makes and sends nothing.

    Returns:
        Each layer with its key, what would happen to it, and its bytes.

    Raises:
        InvalidInput: A parameter cannot be used.
        ImageError: The bento or the base does not qualify.
        RegistryError: A registry refused or failed.
    """
    wishes = qualify(bento.directory)
    with _opened(
        bento,
        wishes,
        destination,
        progress,
        base=base,
        tag=tag,
        platform=platform,
        cache=cache,
        cache_repository=cache_repository,
        compression=compression,
    ) as context:
        return context.plan(_contents(bento, wishes, context))


def _opened(
    bento: Bento,
    wishes: ImageRequirements,
    destination: str,
    progress: Progress | None,
    *,
    base: str,
    **options: Any,
) -> AbstractContextManager[BuildContext]:
    if not bento.python_version:
        raise ImageError(
            f"The bento {bento.name} does not say which Python it needs.",
            hint="Build it again with python_version set.",
        )
    checked = build_options(
        bento.name,
        bento.version,
        bento.python_version,
        destination,
        base=base or wishes.base,
        **options,
    )
    return open_context(checked, progress or (lambda sentence: None))


def _contents(bento: Bento, wishes: ImageRequirements, context: BuildContext) -> Contents:
    """Base and recipes, from the layer that changes least to the one that changes most."""
    options, base = context.options, context.base
    codec, epoch = options.codec, options.epoch
    chosen = context.select(
        Lock(
            wishes.requirements,
            _install_folder(bento.directory),
            bento.python_version,
            own=False,
        )
    )
    groups = dependency_groups(
        chosen.lock, options.platform, interpreter=base.interpreter, wheels=chosen.wheels
    )
    system, remembered = _system(wishes, context)
    recipes = (
        *system.recipes,
        *(dependency_recipe(group, codec, epoch, context.tell) for group in groups),
        *model_recipes(bento.directory, epoch),
        source_recipe(bento.directory, bento.name, codec, epoch),
    )
    labels = {**context.annotations, BENTO: bento.tag, MODELS: _listed_models(bento)}
    attestations = Attestations(
        options=options,
        base=base,
        digest=bento.digest,
        models=bento.models,
        wheels=chosen.wheels,
        debs=system.debs,
    )
    for note in wishes.notes:
        context.tell(note)
    return Contents(
        base=base,
        recipes=recipes,
        platform=options.platform,
        settings={"environment": wishes.environment, "labels": labels, "epoch": epoch},
        annotations=context.annotations,
        configure=lambda layers: image_config(
            base.config,
            layers,
            options.platform,
            environment=wishes.environment,
            labels=labels,
            interpreter=base.interpreter,
            epoch=epoch,
        ),
        documents=attestations.documents,
        check=lambda sums: _check_models(bento, sums),
        facts=attestations.facts,
        kept={**chosen.kept, **remembered},
        notes=wishes.notes,
    )


@dataclass(frozen=True)
class _System:
    """The Debian packages that a bento asks for and its base lacks."""

    recipes: tuple[Recipe, ...] = ()
    debs: tuple[DebianPackage, ...] = ()


def _system(wishes: ImageRequirements, context: BuildContext) -> tuple[_System, Mapping[str, Any]]:
    """Resolves them against the base; and what to remember of the base."""
    if not wishes.system_packages:
        return _System(), {}
    options = context.options
    facts, remembered = context.base_facts()
    chosen = resolve_packages(wishes.system_packages, facts, options.platform, context.tell)
    if not chosen.packages:
        return _System(), remembered
    base = context.base.digest or [layer.diff_id for layer in context.base.layers]
    recipe = system_recipe(chosen, facts, base, options.codec, options.epoch, context.tell)
    return _System((recipe,), chosen.packages), remembered


def _check_models(bento: Bento, sums: Mapping[str, str]) -> None:
    """Makes sure that the image holds the models that it will say it holds.

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


def _listed_models(bento: Bento) -> str:
    """The models with their content digests: what the image answers with."""
    return " ".join(f"{model.tag}@{model.digest}" for model in bento.models)


def _install_folder(bento: Path) -> Path:
    """Where BentoML starts the installer, so that ``./wheels/…`` means the same."""
    return bento / "src" if (bento / "src").is_dir() else bento / "env" / "python"
