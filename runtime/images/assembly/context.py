"""What every kind of build needs: a destination, a base, and what is known from earlier builds."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kfp_bento.runtime.errors import InvalidInput
from kfp_bento.runtime.files import KEY_VARIABLE, own_key
from kfp_bento.runtime.files.directories import scratch_inside
from kfp_bento.runtime.images.assembly.assembly import Assembly, Contents
from kfp_bento.runtime.images.assembly.plan import ImagePlan, PlannedLayer
from kfp_bento.runtime.images.assembly.recipes import Progress, key_of
from kfp_bento.runtime.images.base.base_image import BaseImage, choose_base, open_base
from kfp_bento.runtime.images.cache.local import LayerCache, open_cache
from kfp_bento.runtime.images.cache.records import Records, RegistryRecords
from kfp_bento.runtime.images.cache.seals import check_record_key
from kfp_bento.runtime.images.debian import RootFilesystem, probe_base
from kfp_bento.runtime.images.oci.blobs import BlobDirectory, storage_errors
from kfp_bento.runtime.images.oci.image import Image, ImageSink, Layer, Platform, parse_platform
from kfp_bento.runtime.images.oci.layers import Codec, codec_named
from kfp_bento.runtime.images.oci.reference import (
    ArchiveReference,
    ImageReference,
    LayoutReference,
    Reference,
    check_tag,
    parse_destination,
    parse_reference,
)
from kfp_bento.runtime.images.oci.tar import source_date_epoch
from kfp_bento.runtime.images.places.destination import check_destination, location, open_sink
from kfp_bento.runtime.images.places.layout import layout_sink
from kfp_bento.runtime.images.python.lock import Lock
from kfp_bento.runtime.images.python.selection import (
    Wheel,
    locked,
    select_wheels,
    selection_inputs,
)
from kfp_bento.runtime.images.registry.repository import Repository

CACHE_VARIABLE = "KFP_BENTO_CACHE"
CACHE_REPOSITORY_VARIABLE = "KFP_BENTO_CACHE_REPOSITORY"
_ANNOTATION = "org.opencontainers.image"


@dataclass(frozen=True)
class BuildOptions:
    """What was asked for, checked.

    Attributes:
        name: What the image is called.
        version: Its version.
        python: Minor version of Python that it needs.
        target: Where it goes.
        repository: By which it is known.
        tag: Its tag.
        base: The base as it was asked for; may be empty.
        platform: Its platform.
        codec: How its layers are compressed.
        epoch: Seconds since 1970 for every timestamp.
        cache: Where layers are kept on this machine.
        cache_repository: Where layers are recorded, if not with the image.
    """

    name: str
    version: str
    python: str
    target: ImageReference
    repository: str
    tag: str
    base: str
    platform: Platform
    codec: Codec
    epoch: int
    cache: LayerCache | None
    cache_repository: Reference | None


def build_options(
    name: str,
    version: str,
    python: str,
    destination: str,
    *,
    base: str = "",
    repository: str = "",
    tag: str = "",
    platform: str = "",
    cache: Path | None = None,
    cache_repository: str = "",
    compression: str = "zstd",
) -> BuildOptions:
    """Checks what `build_image` and `pack_image` are given; see there.

    Raises:
        InvalidInput: A parameter cannot be used.
        ImageError: The destination is taken.
    """
    check_record_key()
    target = parse_destination(destination)
    check_destination(target)
    return BuildOptions(
        name=name,
        version=version,
        python=python,
        target=target,
        repository=_repository(target, repository, name),
        tag=check_tag(tag or target.tag or version),
        base=base,
        platform=parse_platform(platform),
        codec=codec_named(compression),
        epoch=source_date_epoch(),
        cache=_layer_cache(cache),
        cache_repository=_cache_repository(cache_repository, target),
    )


@dataclass(frozen=True)
class Selection:
    """The wheels that an image gets.

    Attributes:
        lock: What they were chosen from.
        wheels: In no particular order.
        kept: What to remember of the choice, by key; nothing if it was remembered.
    """

    lock: Lock
    wheels: tuple[Wheel, ...]
    kept: Mapping[str, Any]


@dataclass(frozen=True)
class BuildContext:
    """An open destination, and the base to build on.

    Attributes:
        options: What was asked for.
        base: What the image stands on.
        sink: Where it goes.
        workspace: Where new blobs may be written.
        shared: Layers known to the registry.
        tell: Told what is going on.
    """

    options: BuildOptions
    base: BaseImage
    sink: ImageSink
    workspace: BlobDirectory
    shared: RegistryRecords | None
    tell: Progress

    @property
    def annotations(self) -> dict[str, str]:
        """What stands on every image, for people and for tools that know no more of it."""
        options = self.options
        names = {f"{_ANNOTATION}.title": options.name, f"{_ANNOTATION}.version": options.version}
        if self.base.digest:  # and not base.name: one base under two names gives one image
            names[f"{_ANNOTATION}.base.digest"] = self.base.digest
        return names

    def select(self, lock: Lock) -> Selection:
        """Chooses the wheels, or remembers what was chosen for the same lock before.

        Raises:
            ImageError: A requirement has no fitting wheel.
        """
        key = key_of(selection_inputs(lock, self.options.platform))
        for records in self._records:
            with contextlib.suppress(TypeError, ValueError):
                if facts := records.find_facts(key):
                    wheels = tuple(Wheel.from_dict(item) for item in facts)
                    if locked(wheels, lock):
                        return Selection(lock, wheels, {})
        self.tell("choosing the wheels")
        wheels = select_wheels(lock, self.options.platform)
        return Selection(lock, wheels, {key: [wheel.to_dict() for wheel in wheels]})

    def base_facts(self) -> tuple[RootFilesystem, Mapping[str, Any]]:
        """What files the base holds, read from its layers once; and what to remember of it.

        Raises:
            ImageError: A layer cannot be read.
        """
        key = key_of({"kind": "base", "layers": [layer.diff_id for layer in self.base.layers]})
        # Nothing here could tell whether a registry's word about the base is true.
        trusted = [item for item in self._records if item is not self.shared or item.sealed]
        for records in trusted:
            with contextlib.suppress(ValueError):
                if found := records.find_facts(key):
                    return RootFilesystem.from_dict(found), {}
        self.tell("reading what the base holds")
        facts = probe_base(self.base.layers, self.base.blobs)
        return facts, {key: facts.to_dict()}

    @property
    def _records(self) -> list[Records]:
        both: tuple[Records | None, ...] = (self.options.cache, self.shared)
        return [records for records in both if records is not None]

    def build(self, contents: Contents) -> Image:
        """Makes what is missing and writes the image; see `Assembly.carry_out`."""
        done = self._assembly(contents).carry_out()
        options, digest = self.options, done.manifest.digest
        self.tell(f"{'wrote' if done.changed else 'already there:'} {options.target} as {digest}")
        for note in self._notes(done.layers):
            self.tell(note)
        return Image(
            repository=options.repository,
            digest=digest,
            tags=(options.tag,),
            base=self.base.title,
            location=location(options.target),
            layers=done.layers,
            platform=str(options.platform),
            reused=not done.changed,
            documents=done.documents,
        )

    def plan(self, contents: Contents) -> ImagePlan:
        """Says what `build` would do."""
        place = location(self.options.target).removeprefix("docker://")
        plan = self._assembly(contents).plan(f"{place}:{self.options.tag}")
        return replace(plan, notes=(*plan.notes, *self._notes(plan.layers)))

    def _notes(self, layers: Sequence[Layer | PlannedLayer]) -> Iterator[str]:
        """What there is to know of what was reused, and of what was not."""
        if trusted := sum(layer.unverified for layer in layers):
            yield (
                f"{trusted} layer{'s' * (trusted > 1)} reused on the registry's word: whoever can "
                f"push there can plant one; {KEY_VARIABLE} lets only sealed ones count"
            )
        cache = self.options.cache
        if cache is not None and cache.passed_over:
            yield (
                f"{len(cache.passed_over)} records in {cache.directory} carry no seal of this user "
                f"and were passed over; {KEY_VARIABLE} lets several share a cache"
            )
        if cache is not None and own_key() is None:
            yield (
                f"nothing in {cache.directory} will count: there is no key to seal it with; let "
                f"HOME be a directory that can be written, or set {KEY_VARIABLE}"
            )

    def _assembly(self, contents: Contents) -> Assembly:
        return Assembly(
            contents,
            self.sink,
            self.workspace,
            self.options.tag,
            cache=self.options.cache,
            shared=self.shared,
            progress=self.tell,
        )


@contextlib.contextmanager
def open_context(options: BuildOptions, tell: Progress) -> Iterator[BuildContext]:
    """Opens the destination and reads the base.

    Raises:
        ImageError: The base cannot be read or does not fit, or the disk is full.
        RegistryError: A registry refused or failed.
    """
    with _open_sink(options) as (sink, workspace):
        yield BuildContext(
            options=options,
            base=_open_base(options, workspace, tell),
            sink=sink,
            workspace=workspace,
            shared=_shared(options, sink),
            tell=tell,
        )


@contextlib.contextmanager
def _open_sink(options: BuildOptions) -> Iterator[tuple[ImageSink, BlobDirectory]]:
    """The sink, and a place for new blobs: that of the layout itself where there is one."""
    if isinstance(options.target, LayoutReference):
        with layout_sink(options.target.directory) as layout:
            yield layout, layout.blobs
        return
    with contextlib.ExitStack() as stack:
        near = Path(tempfile.gettempdir())
        with storage_errors(near):
            scratch = stack.enter_context(scratch_inside(near, "kfp-bento-image-"))
        sink = stack.enter_context(open_sink(options.target, options.repository))
        yield sink, BlobDirectory(scratch)


def _open_base(options: BuildOptions, workspace: BlobDirectory, tell: Progress) -> BaseImage:
    # Never the builder's own machine unless it was asked for: this may be a pod.
    text = choose_base(options.python, wanted=options.base, allow_host=False)
    tell(f"base image: {text}")
    return open_base(
        text,
        options.python,
        options.platform,
        workspace=workspace,
        codec=options.codec,
        cache=options.cache,
        epoch=options.epoch,
        progress=tell,
    )


def _shared(options: BuildOptions, sink: ImageSink) -> RegistryRecords | None:
    if not isinstance(sink, Repository):
        return None
    elsewhere = options.cache_repository
    if elsewhere is None or elsewhere.name == sink.reference.name:
        return RegistryRecords(sink)
    return RegistryRecords(Repository(elsewhere))


def _layer_cache(directory: Path | None) -> LayerCache | None:
    named = os.environ.get(CACHE_VARIABLE, "")
    chosen = directory or (Path(named) if named else None)
    return open_cache(chosen) if chosen else None


def _cache_repository(wanted: str, target: ImageReference) -> Reference | None:
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


def _repository(target: ImageReference, wanted: str, name: str) -> str:
    if isinstance(target, Reference):
        return target.name
    if isinstance(target, ArchiveReference) and target.repository:
        return target.repository
    return wanted or f"localhost/{name}"
