"""From a bento directory to an image: base, dependencies, models and source, as layers."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.errors import ImageError, InvalidInput
from kfp_bento.runtime.images.assembly import Assembly, Contents
from kfp_bento.runtime.images.base_image import BaseImage, choose_base, open_base
from kfp_bento.runtime.images.blobs import BlobDirectory, storage_errors
from kfp_bento.runtime.images.cache import LayerCache
from kfp_bento.runtime.images.config import BENTO, MODELS, image_config
from kfp_bento.runtime.images.destination import check_destination, location, open_sink
from kfp_bento.runtime.images.environment import dependency_groups
from kfp_bento.runtime.images.image import Image, ImageSink, Platform, parse_platform
from kfp_bento.runtime.images.layers import Codec, codec_named
from kfp_bento.runtime.images.layout import layout_sink
from kfp_bento.runtime.images.papers import Papers
from kfp_bento.runtime.images.plan import ImagePlan
from kfp_bento.runtime.images.qualify import Wishes, qualify
from kfp_bento.runtime.images.recipes import (
    Progress,
    dependency_recipe,
    key_of,
    model_recipes,
    source_recipe,
)
from kfp_bento.runtime.images.records import Records, RegistryRecords
from kfp_bento.runtime.images.reference import (
    ArchiveReference,
    LayoutReference,
    Place,
    Reference,
    check_tag,
    parse_destination,
    parse_reference,
)
from kfp_bento.runtime.images.registry import Repository
from kfp_bento.runtime.images.tar import source_date_epoch
from kfp_bento.runtime.images.wheels import Lock, Wheel, select_wheels, selection_inputs

if TYPE_CHECKING:
    from kfp_bento.runtime.bentos import Bento

CACHE_VARIABLE = "KFP_BENTO_CACHE"
CACHE_REPOSITORY_VARIABLE = "KFP_BENTO_CACHE_REPOSITORY"
_ANNOTATION = "org.opencontainers.image"


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
    tell = progress or (lambda sentence: None)
    order = _order(bento, destination, base, tag, platform, cache, cache_repository, compression)
    with _assembly(order, repository, tell) as (assembly, contents):
        done = assembly.carry_out()
    digest = done.manifest.digest
    tell(f"{'wrote' if done.changed else 'already there:'} {destination} as {digest}")
    target = order.target
    return Image(
        repository=_repository(target, repository, bento),
        digest=digest,
        tags=(order.tag,),
        base=contents.base.title,
        location=location(target),
        layers=done.layers,
        platform=str(order.platform),
        reused=not done.changed,
    )


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
    order = _order(bento, destination, base, tag, platform, cache, cache_repository, compression)
    with _assembly(order, "", progress or (lambda sentence: None)) as (assembly, _):
        return assembly.plan(f"{location(order.target).removeprefix('docker://')}:{order.tag}")


@dataclass(frozen=True)
class _Order:
    """What was asked for, checked."""

    bento: Bento
    wishes: Wishes
    target: Place
    tag: str
    base: str
    platform: Platform
    codec: Codec
    epoch: int
    cache: LayerCache | None
    cache_repository: Reference | None


def _order(
    bento: Bento,
    destination: str,
    base: str,
    tag: str,
    platform: str,
    cache: Path | None,
    cache_repository: str,
    compression: str,
) -> _Order:
    target = parse_destination(destination)
    check_destination(target)
    wishes = qualify(bento.directory)
    if not bento.python_version:
        raise ImageError(
            f"The bento {bento.name} does not say which Python it needs.",
            hint="Build it again with python_version set.",
        )
    return _Order(
        bento=bento,
        wishes=wishes,
        target=target,
        tag=check_tag(tag or target.tag or bento.version),
        base=base,
        platform=parse_platform(platform),
        codec=codec_named(compression),
        epoch=source_date_epoch(),
        cache=_layer_cache(cache),
        cache_repository=_cache_repository(cache_repository, target),
    )


@contextlib.contextmanager
def _assembly(
    order: _Order, repository: str, tell: Progress
) -> Iterator[tuple[Assembly, Contents]]:
    name = _repository(order.target, repository, order.bento)
    with _open_sink(order.target, name) as (sink, workspace):
        shared = _shared(order, sink)
        base = _open_base(order, workspace, tell)
        contents = _contents(order, base, name, shared, tell)
        assembly = Assembly(
            contents,
            sink,
            workspace,
            order.tag,
            cache=order.cache,
            shared=shared,
            progress=tell,
        )
        yield assembly, contents


@contextlib.contextmanager
def _open_sink(target: Place, repository: str) -> Iterator[tuple[ImageSink, BlobDirectory]]:
    """The sink, and a place for new blobs: that of the layout itself where there is one."""
    if isinstance(target, LayoutReference):
        with layout_sink(target.directory) as layout:
            yield layout, layout.blobs
        return
    with storage_errors(tempfile.gettempdir()):
        scratch = tempfile.TemporaryDirectory(prefix="kfp-bento-image-")
    with scratch as folder, open_sink(target, repository) as sink:
        yield sink, BlobDirectory(Path(folder))


def _layer_cache(directory: Path | None) -> LayerCache | None:
    named = os.environ.get(CACHE_VARIABLE, "")
    chosen = directory or (Path(named) if named else None)
    return LayerCache(chosen) if chosen else None


def _cache_repository(wanted: str, target: Place) -> Reference | None:
    text = wanted or os.environ.get(CACHE_REPOSITORY_VARIABLE, "")
    if not text or not isinstance(target, Reference):
        return None
    reference = parse_reference(text)
    if reference.host == target.host:
        return reference
    if not wanted:
        return None  # the variable is for another registry's images
    raise InvalidInput(
        f"Layers cannot be shared through {reference.name}: the image goes to {target.host}.",
        hint="A registry shares blobs between its own repositories only; name one of these.",
    )


def _shared(order: _Order, sink: ImageSink) -> RegistryRecords | None:
    if not isinstance(sink, Repository):
        return None
    elsewhere = order.cache_repository
    if elsewhere is None or elsewhere.name == sink.reference.name:
        return RegistryRecords(sink)
    return RegistryRecords(Repository(elsewhere))


def _open_base(order: _Order, workspace: BlobDirectory, tell: Progress) -> BaseImage:
    python = order.bento.python_version
    # Never the builder's own machine unless it was asked for: this may be a pod.
    text = choose_base(python, wanted=order.base or order.wishes.base, allow_host=False)
    tell(f"base image: {text}")
    return open_base(
        text,
        python,
        order.platform,
        workspace=workspace,
        codec=order.codec,
        cache=order.cache,
        epoch=order.epoch,
        progress=tell,
    )


def _contents(
    order: _Order, base: BaseImage, name: str, shared: RegistryRecords | None, tell: Progress
) -> Contents:
    """Base and recipes, from the layer that changes least to the one that changes most."""
    bento, wishes = order.bento, order.wishes
    wheels = _select(order, shared, tell)
    groups = dependency_groups(
        wheels.lock, order.platform, interpreter=base.interpreter, wheels=wheels.wheels
    )
    recipes = (
        *(dependency_recipe(group, order.codec, order.epoch, tell) for group in groups),
        *model_recipes(bento.directory, order.epoch),
        source_recipe(bento.directory, bento.name, order.codec, order.epoch),
    )
    names = {f"{_ANNOTATION}.title": bento.name, f"{_ANNOTATION}.version": bento.version}
    if base.digest:  # and not base.name: one base under two names gives one image
        names[f"{_ANNOTATION}.base.digest"] = base.digest
    labels = {**names, BENTO: bento.tag, MODELS: _listed_models(bento)}
    papers = Papers(
        bento=bento,
        base=base,
        asked=order.base or order.wishes.base,
        repository=name,
        platform=order.platform,
        compression=order.codec.name,
        epoch=order.epoch,
        wheels=wheels.wheels,
    )
    return Contents(
        base=base,
        recipes=recipes,
        platform=order.platform,
        settings={"environment": wishes.environment, "labels": labels, "epoch": order.epoch},
        annotations=names,
        configure=lambda layers: image_config(
            base.config,
            layers,
            order.platform,
            environment=wishes.environment,
            labels=labels,
            interpreter=base.interpreter,
            epoch=order.epoch,
        ),
        documents=papers.documents,
        facts=papers.facts,
        kept=wheels.kept,
    )


@dataclass(frozen=True)
class _Selection:
    """The wheels that the image gets, and what to remember of how they were found."""

    lock: Lock
    wheels: tuple[Wheel, ...]
    kept: dict[str, Any]


def _select(order: _Order, shared: RegistryRecords | None, tell: Progress) -> _Selection:
    """Chooses the wheels, or remembers what was chosen for the same lock before."""
    bento = order.bento
    lock = Lock(order.wishes.requirements, _install_folder(bento.directory), bento.python_version)
    key = key_of(selection_inputs(lock, order.platform))
    places: tuple[Records | None, ...] = (order.cache, shared)
    for records in places:
        with contextlib.suppress(TypeError, ValueError):
            if facts := records and records.find_facts(key):
                return _Selection(lock, tuple(Wheel.from_dict(item) for item in facts), {})
    tell("choosing the wheels")
    wheels = select_wheels(lock, order.platform)
    return _Selection(lock, wheels, {key: [wheel.to_dict() for wheel in wheels]})


def _listed_models(bento: Bento) -> str:
    """The models with their content digests: what the image answers with."""
    return " ".join(f"{model.tag}@{model.digest}" for model in bento.models)


def _install_folder(bento: Path) -> Path:
    """Where BentoML starts the installer, so that ``./wheels/…`` means the same."""
    return bento / "src" if (bento / "src").is_dir() else bento / "env" / "python"


def _repository(target: Place, wanted: str, bento: Bento) -> str:
    if isinstance(target, Reference):
        return target.name
    if isinstance(target, ArchiveReference) and target.repository:
        return target.repository
    return wanted or f"localhost/{bento.name}"
