"""What every kind of build needs: a destination, a base, and what is known from earlier builds."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from kfp_bento.runtime.errors import InvalidInput
from kfp_bento.runtime.files import KEY_VARIABLE, own_key
from kfp_bento.runtime.images.assembly.options import (
    CACHE_REPOSITORY_VARIABLE,
    CACHE_VARIABLE,
    ImageOptions,
)
from kfp_bento.runtime.images.assembly.plan import PlannedLayer
from kfp_bento.runtime.images.assembly.recipes import Recipe, dependency_recipe
from kfp_bento.runtime.images.base.base_image import HOST, BaseImage, choose_base, open_base
from kfp_bento.runtime.images.base.fit import fitting_base
from kfp_bento.runtime.images.cache.local import KeptBlobs, LayerBuilder, LayerCache, open_cache
from kfp_bento.runtime.images.cache.records import Records, RegistryRecords
from kfp_bento.runtime.images.cache.seals import check_record_key
from kfp_bento.runtime.images.debian import (
    PROGRAMS,
    RootFilesystem,
    Userland,
    probe_base,
    version_of,
)
from kfp_bento.runtime.images.oci.blobs import BlobDirectory, scratch_directory
from kfp_bento.runtime.images.oci.image import Descriptor, Layer, Platform
from kfp_bento.runtime.images.oci.keys import key_of
from kfp_bento.runtime.images.oci.layers import codec_named
from kfp_bento.runtime.images.oci.reference import (
    ImageReference,
    Reference,
    check_tag,
    parse_destination,
    parse_reference,
)
from kfp_bento.runtime.images.oci.tar import source_date_epoch
from kfp_bento.runtime.images.places.open import check_free, open_sink
from kfp_bento.runtime.images.places.sink import ImageSink
from kfp_bento.runtime.images.python.bytecode import Compilers
from kfp_bento.runtime.images.python.groups import DependencyGroup
from kfp_bento.runtime.images.python.installer import GLIBC
from kfp_bento.runtime.images.python.lock import Lock
from kfp_bento.runtime.images.python.selection import (
    Wheel,
    locked,
    select_wheels,
    selection_inputs,
)
from kfp_bento.runtime.images.registry.repository import Repository
from kfp_bento.runtime.images.signatures.keys import (
    SigningKey,
    own_signing_key,
    parse_public_keys,
)
from kfp_bento.runtime.images.signatures.stored import put_signature
from kfp_bento.runtime.images.signatures.verify import check_can_be_signed, signer_of_base

Found = TypeVar("Found")


MadeLayer = tuple[Layer, Mapping[str, str]]
"""A layer, with the SHA-256 of the files that were only claimed before, by their paths."""


@dataclass(frozen=True)
class BuildContext:
    """An open destination, and the base to build on.

    Attributes:
        place: The destination.
        platform: The image's platform.
        asked: The base as it was asked for.
        base: What the image stands on.
        builder: Makes its layers.
        seen: What to remember of the base, by key.
        facts: What the base holds, if its layers have been read.
        base_signed_by: The key that the base was found signed with, where one was asked for.
    """

    place: Destination
    platform: Platform
    asked: str
    base: BaseImage
    builder: LayerBuilder
    seen: Mapping[str, Any] = field(default_factory=dict)
    facts: RootFilesystem | None = None
    base_signed_by: str = ""

    def select(self, lock: Lock) -> tuple[tuple[Wheel, ...], Mapping[str, Any]]:
        """Choose the wheels, or take what was chosen for the same lock before.

        Returns:
            The wheels, in no particular order; and what to remember of the choice, by key.

        Raises:
            ImageError: A requirement has no fitting wheel.
        """
        glibc = version_of(self.base.glibc) if self.base.glibc else GLIBC
        key = key_of(selection_inputs(lock, self.platform, glibc))

        def chosen(facts: Any) -> tuple[Wheel, ...] | None:
            wheels = tuple(Wheel.from_dict(item) for item in facts)
            return wheels if locked(wheels, lock) else None

        if found := recalled(self.records, key, chosen):
            return found, {}
        self.builder.tell("choosing the wheels")
        wheels = select_wheels(lock, self.platform, glibc)
        return wheels, {key: [wheel.to_dict() for wheel in wheels]}

    def dependency_recipes(self, groups: Sequence[DependencyGroup]) -> tuple[Recipe, ...]:
        """Give the layers of an environment."""
        if any(group.wheels and not group.bytecode for group in groups):
            here, python = sys.version.split()[0], groups[0].lock.python
            self.builder.tell(
                f"no bytecode: this is Python {here}, the image has {python}; it will start "
                "more slowly"
            )
        return tuple(
            dependency_recipe(group, self.builder, self.place.compilers) for group in groups
        )

    def wheel_facts(self, recipes: Sequence[Recipe]) -> dict[str, Any]:
        """Give what the registry remembers of the wheels in known layers, by their SHA-256."""
        if self.place.shared is None:
            return {}
        known = self.place.shared.find_layers([recipe.key for recipe in recipes])
        return {sha256: fact for layer in known.values() for sha256, fact in layer.facts.items()}

    def base_facts(self) -> tuple[RootFilesystem, Mapping[str, Any]]:
        """Say what files the base holds, read from its layers once; and what to remember of it.

        Raises:
            ImageError: A layer cannot be read.
        """
        key = key_of({"kind": "base", "layers": [layer.diff_id for layer in self.base.layers]})
        # Nothing here could tell whether a registry's word about the base is true.
        trusted = [records for records in self.records if records.sealed]
        if found := recalled(trusted, key, RootFilesystem.from_dict):
            return found, {}
        facts = self.facts or self._read_base()
        return facts, {key: facts.to_dict()}

    def _read_base(self) -> RootFilesystem:
        self.builder.tell("reading what the base holds")
        return probe_base(self.base.layers, self.base.blobs)

    def fitted(self, python: str, needs: tuple[str, ...]) -> BuildContext:
        """Give the context with a base that has been looked into.

        A registry's word about what the base runs is taken: a wrong one makes an image that does
        not start, and nothing worse.

        Raises:
            ImageError: The base cannot run what is put onto it, or a layer cannot be read.
        """
        if self.base.title == HOST:
            return self
        layers = [layer.diff_id for layer in self.base.layers]
        # Another release of this may look for more.
        key = key_of({"kind": "userland", "programs": PROGRAMS, "layers": layers})
        if found := recalled(self.records, key, Userland.from_dict):
            return replace(self, base=fitting_base(self.base, found, python, needs=needs))
        facts = self._read_base()
        base = fitting_base(self.base, facts.userland, python, needs=needs)
        return replace(self, base=base, seen={key: facts.userland.to_dict()}, facts=facts)

    @property
    def records(self) -> list[Records]:
        """What earlier builds left, on this machine and in the registry."""
        both: tuple[Records | None, ...] = (self.builder.cache, self.place.shared)
        return [records for records in both if records is not None]

    def notes(self, layers: Sequence[Layer | PlannedLayer]) -> Iterator[str]:
        """Say what there is to know of what was reused, and of what was not."""
        if trusted := sum(layer.unverified for layer in layers):
            yield (
                f"{trusted} layer{'s' * (trusted > 1)} reused on the registry's word: whoever can "
                f"push there can plant one; {KEY_VARIABLE} lets only sealed ones count"
            )
        cache = self.builder.cache
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


def recalled(
    places: Sequence[Records], key: str, read: Callable[[Any], Found | None]
) -> Found | None:
    """Give the facts with this key that can be read first; whoever wrote the others.

    Args:
        places: Where to look, in this order.
        key: Of the facts.
        read: Reads them; facts that it refuses, or gives nothing for, are as good as none.
    """
    for records in places:
        with contextlib.suppress(TypeError, ValueError):
            if (facts := records.find_facts(key)) and (found := read(facts)):
                return found
    return None


@dataclass(frozen=True)
class Destination:
    """An open destination, and what is common to the images of a build that go there.

    Attributes:
        target: Where they go.
        repository: By which they are known.
        tag: Their tag.
        sink: Takes them.
        builder: Makes their layers.
        shared: Layers known to the registry.
        compilers: Write the bytecode of their layers.
        signing_key: What is to be signed with, if anything.
        made: Layers that are in the sink by now, by their keys.
    """

    target: ImageReference
    repository: str
    tag: str
    sink: ImageSink
    builder: LayerBuilder
    shared: RegistryRecords | None
    compilers: Compilers
    signing_key: SigningKey | None = field(default_factory=own_signing_key)
    made: dict[str, MadeLayer] = field(default_factory=dict)

    def sign(self, manifest: Descriptor) -> str:
        """Sign what is stored, where there is a key, before its tag moves; and say with which.

        Raises:
            ImageError: Something else is where its signatures belong, or the disk is full.
            RegistryError: The registry refused or failed.
        """
        if self.signing_key is None or not self.sink.carries_referrers:
            return ""
        workspace = self.builder.workspace
        put_signature(self.sink, workspace, manifest.digest, self.repository, self.signing_key)
        return self.signing_key.public.fingerprint

    def context(
        self,
        python: str,
        platform: Platform,
        options: ImageOptions,
        *,
        needs: tuple[str, ...] = (),
        of: str = "",
    ) -> BuildContext:
        """Read the base for a platform.

        Args:
            python: Minor version of Python that is needed.
            platform: Which.
            options: How the image is to be built.
            needs: Programs that it is started with.
            of: What stands before all that is told; a platform, where there are several.

        Raises:
            InvalidInput: The base is one that carries no signatures, and has to.
            ImageError: The base cannot be read or does not fit, or is not signed.
            RegistryError: A registry refused or failed.
        """
        builder = self.builder
        if of:
            builder = replace(builder, tell=lambda said: self.builder.tell(f"{of}: {said}"))
        base, signed_by = _opened_base(python, platform, builder, options)
        if self.sink.blobs and builder.cache:
            base = replace(base, blobs=KeptBlobs(base.blobs, builder.cache))
        context = BuildContext(
            place=self,
            platform=platform,
            asked=options.base or base.title.partition("@")[0],
            base=base,
            builder=builder,
            base_signed_by=signed_by,
        )
        return context.fitted(python, needs)


@contextlib.contextmanager
def open_destination(
    name: str,
    version: str,
    destination: str,
    options: ImageOptions,
    tell: Callable[[str], None],
) -> Iterator[Destination]:
    """Check what was asked for, and open the destination.

    Args:
        name: What the image is called.
        version: Its version.
        destination: Where it goes.
        options: How it is to be built.
        tell: Told what is going on.

    Raises:
        InvalidInput: An option cannot be used.
        ImageError: The destination is taken, or the disk is full.
        RegistryError: A registry refused or failed.
    """
    check_record_key()
    target = parse_destination(destination)
    check_free(target)
    repository = target.known_as(options.repository or f"localhost/{name}")
    tag = check_tag(options.tag or target.tag or version)
    codec = codec_named(options.compression)
    cache = _layer_cache(options.cache)
    elsewhere = _cache_repository(options.cache_repository, target)
    with (
        open_sink(target, repository) as sink,
        _workspace(sink) as workspace,
        Compilers() as compilers,
    ):
        builder = LayerBuilder(workspace, codec, source_date_epoch(), cache, tell)
        shared = _shared(sink, elsewhere, target)
        yield Destination(target, repository, tag, sink, builder, shared, compilers)


def _opened_base(
    python: str, platform: Platform, builder: LayerBuilder, options: ImageOptions
) -> tuple[BaseImage, str]:
    """Choose and open the base, and make sure that it is signed where it has to be.

    Returns:
        The base; and the key that it is signed with, empty where none was asked for.

    Raises:
        InvalidInput: The keys cannot be used, or the base is one that carries no signatures.
        ImageError: None of them signed it, or it cannot be read.
    """
    # Never the builder's own machine unless it was asked for: this may be a pod.
    text = choose_base(python, wanted=options.base, allow_host=False)
    builder.tell(f"base image: {text}")
    if not options.base_key:
        return open_base(text, python, platform, builder), ""
    wanted = parse_public_keys(options.base_key, "base_key")
    check_can_be_signed(text)
    base = open_base(text, python, platform, builder)
    return base, signer_of_base(text, base.digest, wanted).fingerprint


@contextlib.contextmanager
def _workspace(sink: ImageSink) -> Iterator[BlobDirectory]:
    """Give a place for new blobs: that of the sink itself where it has one."""
    if sink.blobs:
        yield sink.blobs
        return
    with scratch_directory("kfp-bento-image-") as folder:
        yield BlobDirectory(folder)


def shared_records(destination: str, cache_repository: str = "") -> RegistryRecords | None:
    """Give what a registry remembers for images that go to a destination; None for no registry.

    Args:
        destination: See `build_image`.
        cache_repository: See `ImageOptions`.

    Raises:
        InvalidInput: The one cannot be used with the other, or the shared key not at all.
    """
    check_record_key()
    target = parse_destination(destination)
    elsewhere = _cache_repository(cache_repository, target)
    if not target.registry:
        return None
    with open_sink(target) as sink:
        return _shared(sink, elsewhere, target)


def _shared(
    sink: ImageSink, elsewhere: Reference | None, target: ImageReference
) -> RegistryRecords | None:
    if elsewhere is not None and elsewhere.location != target.location:
        return RegistryRecords(Repository(elsewhere))
    return RegistryRecords(sink.records) if sink.records else None


def _layer_cache(directory: Path | None) -> LayerCache | None:
    named = os.environ.get(CACHE_VARIABLE, "")
    chosen = directory or (Path(named) if named else None)
    return open_cache(chosen) if chosen else None


def _cache_repository(wanted: str, target: ImageReference) -> Reference | None:
    text = wanted or os.environ.get(CACHE_REPOSITORY_VARIABLE, "")
    if not text or not target.registry:
        return None
    reference = parse_reference(text)
    if reference.host == target.registry:
        return reference
    if not wanted:
        return None  # the variable is for another registry's images
    raise InvalidInput(
        f"Layers cannot be shared through {reference.name}: the image goes to {target.registry}.",
        hint="A registry shares blobs between its own repositories only; name one of these.",
    )
