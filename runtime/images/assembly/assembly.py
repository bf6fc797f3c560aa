"""Putting an image together: what is known is reused, what is not is made, all of it side by side.

Nothing that could be pulled changes before the very last step, which moves the tag.
"""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from kfp_bento.runtime.errors import ImageError, KfpBentoError, RegistryError
from kfp_bento.runtime.files import parse_json
from kfp_bento.runtime.images.assembly.plan import Action, ImagePlan, PlannedLayer
from kfp_bento.runtime.images.assembly.recipes import Progress, Recipe, key_of
from kfp_bento.runtime.images.attestations.attachments import attach
from kfp_bento.runtime.images.base.base_image import BaseImage
from kfp_bento.runtime.images.cache.local import KeptBlobs, LayerCache
from kfp_bento.runtime.images.cache.records import RegistryRecords
from kfp_bento.runtime.images.oci.blobs import BlobDirectory, storage_errors
from kfp_bento.runtime.images.oci.concurrency import run_all
from kfp_bento.runtime.images.oci.config import config_descriptor, image_manifest
from kfp_bento.runtime.images.oci.image import (
    BlobSource,
    Descriptor,
    Document,
    ImageSink,
    Layer,
    Platform,
    descriptor_from,
    is_digest,
)
from kfp_bento.runtime.images.oci.layers import LayerStream
from kfp_bento.runtime.images.places.layout import LayoutSink, recorded_image
from kfp_bento.runtime.images.places.open import read_small
from kfp_bento.runtime.images.registry.repository import Repository

# What is sent side by side: more helps no registry, and every transfer holds a connection.
_TRANSFERS = 4
_LOOKUPS = 8
# A new layer up to this size is made on disk first, so that a HEAD can spare the upload.
_SMALL = 8 << 20

Result = TypeVar("Result")


@dataclass(frozen=True)
class Unverified:
    """What of an image is reused on the word of a registry alone.

    Attributes:
        layers: Digests of the layers.
        parts: SHA-256 of the wheels and packages that the records say are in them.
    """

    layers: tuple[str, ...] = ()
    parts: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.layers)


@dataclass(frozen=True)
class Contents:
    """What an image is to be made of.

    Attributes:
        base: The layers and configuration below.
        recipes: The layers above, from the lowest to the highest.
        platform: The image's platform.
        settings: JSON values that the configuration follows from, besides base and layers.
        annotations: The manifest's annotations.
        configure: Composes the image configuration from all layers.
        documents: Writes what is to be attached to the finished image.
        check: Given the SHA-256 of each file of the claimed layers by its path, raises an
            ImageError where they are not what was claimed.
        facts: JSON values that the documents follow from, besides what the layers do.
        kept: JSON values to remember for the next build, by key.
        notes: What else there is to tell people.
    """

    base: BaseImage
    recipes: tuple[Recipe, ...]
    platform: Platform
    settings: Mapping[str, Any]
    annotations: Mapping[str, str]
    configure: Callable[[Sequence[Layer]], bytes]
    documents: Callable[[Descriptor, Unverified], Sequence[Document]] = lambda image, reused: ()
    check: Callable[[Mapping[str, str]], None] = lambda sums: None
    facts: Mapping[str, Any] = field(default_factory=dict)
    kept: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """What the image is recognised by before any layer was made."""
        base = self.base.digest or [layer.diff_id for layer in self.base.layers]
        return key_of(
            {
                "kind": "image",
                "base": base,
                "layers": [recipe.key for recipe in self.recipes],
                "platform": str(self.platform),
                "settings": dict(self.settings),
                "annotations": dict(self.annotations),
                "facts": dict(self.facts),
            }
        )


@dataclass(frozen=True)
class Assembled:
    """An image that is in its destination.

    Attributes:
        manifest: Its manifest's descriptor.
        layers: From the lowest to the highest.
        changed: Whether the tag points to something else than before.
        documents: What this build says of it, where that is less than whoever made its layers
            can say: where some are unverified.
    """

    manifest: Descriptor
    layers: tuple[Layer, ...]
    changed: bool
    documents: tuple[Document, ...] = ()


@dataclass(frozen=True)
class _Known:
    """A finished layer for a recipe: in the shared repository, or else in the local cache.

    The layer is `unverified` unless a record with a seal of ours names it, or its content was read.
    """

    layer: Layer
    shared: bool


class Assembly:
    """One image on its way into one destination.

    Args:
        contents: What the image is made of.
        sink: The destination.
        workspace: Where new blobs may be written.
        tag: The tag.
        cache: Layers kept on this machine.
        shared: Layers kept in a registry: in the destination itself, or beside it.
        progress: Told what is going on.
    """

    def __init__(
        self,
        contents: Contents,
        sink: ImageSink,
        workspace: BlobDirectory,
        tag: str,
        *,
        cache: LayerCache | None,
        shared: RegistryRecords | None,
        progress: Progress,
    ) -> None:
        self._contents = contents
        self._sink = sink
        self._workspace = workspace
        self._tag = tag
        self._cache = cache
        self._shared = shared
        self._tell = progress
        self._stop = threading.Event()
        self._recorded_keys: set[str] = set()
        self._sums: dict[str, str] = {}
        # The image's own record is where the image is, whoever keeps the layers' records.
        self._images = RegistryRecords(sink) if isinstance(sink, Repository) else None

    def carry_out(self) -> Assembled:
        """Makes what is missing and writes the image.

        Raises:
            ImageError: A layer cannot be made or stored.
            RegistryError: A registry refused or failed; the tag then is what it was.
        """
        if found := self._recognise():
            return found
        try:
            return self._assemble(trusting=True)
        except RegistryError as error:
            if not any("BLOB_UNKNOWN" in code for code in error.codes):
                raise
        # Somebody deleted blobs below our records: do without them.
        self._tell("the registry lost layers that it had; making them again")
        return self._assemble(trusting=False)

    def plan(self, destination: str) -> ImagePlan:
        """Says what `carry_out` would do."""
        found = self._recognise(moving=False)
        if found:
            layers = [self._planned_present(layer) for layer in found.layers]
        else:
            recipes, base = self._contents.recipes, self._contents.base.layers
            planned = [partial(self._planned_base, layer) for layer in base]
            planned += [partial(self._planned, recipe) for recipe in recipes]
            layers = self._side_by_side(planned, _LOOKUPS)
        return ImagePlan(
            destination=destination,
            base=self._contents.base.title,
            platform=str(self._contents.platform),
            unchanged=found.manifest.digest if found else "",
            layers=tuple(layers),
            notes=self._contents.notes,
        )

    # Recognising an image that these inputs gave before.

    def _recognise(self, *, moving: bool = True) -> Assembled | None:
        found = self._recorded()
        if found is None:
            return None
        manifest, content, config = found
        try:
            layers = self._recorded_layers(parse_json(content), config)
        except (ValueError, KeyError, TypeError, ImageError):
            return None
        if not self._is_as_written(manifest, layers) or not self._confirmed(layers):
            return None
        vouched = self._vouched(layers)
        if vouched is None:
            return None
        self._contents.check(self._sums)
        changed = False
        if moving and isinstance(self._sink, Repository):  # a layout was asked for by its tag
            changed = self._sink.tag(manifest, content, self._tag)
        return self._assembled(manifest, vouched, changed)

    def _assembled(
        self, manifest: Descriptor, layers: tuple[Layer, ...], changed: bool
    ) -> Assembled:
        unverified = self._unverified(layers)
        if not unverified:
            return Assembled(manifest, layers, changed)
        documents = self._contents.documents(manifest, unverified)
        return Assembled(manifest, layers, changed, tuple(documents))

    def _is_as_written(self, manifest: Descriptor, layers: Sequence[Layer]) -> bool:
        """Whether these layers give this very image: its configuration is nobody else's."""
        config = config_descriptor(self._contents.configure(layers))
        return image_manifest(config, layers, self._contents.annotations)[0] == manifest

    def _vouched(self, layers: tuple[Layer, ...]) -> tuple[Layer, ...] | None:
        """The layers of an image that was found, marked where the registry alone vouches for them.

        Returns:
            None where one is known to be another, or has to carry a seal and has none.
        """
        number = len(self._contents.base.layers)
        found = list(layers[:number])
        for recipe, layer in zip(self._contents.recipes, layers[number:], strict=True):
            if recipe.claimed:  # its files have just been compared
                found.append(layer)
            elif recipe.kind == "source":
                if self._made_anew(recipe) != (layer.digest, layer.diff_id):
                    return None
                found.append(layer)
            else:
                known = self._find(recipe, sealed=True)
                if known and not _same(known.layer, layer):
                    return None
                if known is None and (self._shared is None or self._shared.sealed):
                    return None
                found.append(replace(layer, unverified=known is None))
        return tuple(found)

    def _made_anew(self, recipe: Recipe) -> tuple[str, str]:
        """Digests of a small layer, made once more and not kept."""
        with recipe.prepare(self._workspace.root) as listing:
            stream = recipe.stream(listing)
            for _ in self._guarded(stream.open()):
                pass
        return stream.digest, stream.diff_id

    def _unverified(self, layers: Sequence[Layer]) -> Unverified:
        own = zip(self._contents.recipes, layers[len(self._contents.base.layers) :], strict=True)
        marked = [(recipe, layer) for recipe, layer in own if layer.unverified]
        return Unverified(
            layers=tuple(layer.digest for _, layer in marked),
            parts=frozenset(part for recipe, _ in marked for part in recipe.parts),
        )

    def _recorded(self) -> tuple[Descriptor, bytes, dict[str, Any]] | None:
        key = self._contents.key
        if isinstance(self._sink, LayoutSink):
            # Without a cache of ours nobody vouches for what lies in a directory.
            return recorded_image(self._sink.directory, key, self._tag) if self._cache else None
        if self._images is None or not isinstance(self._sink, Repository):
            return None
        found = self._images.find_image(key)
        if found is None:
            return None
        manifest, content = found
        try:
            descriptor = descriptor_from(parse_json(content).get("config"))
            return manifest, content, parse_json(read_small(self._sink, descriptor))
        except RegistryError:
            raise
        except (ValueError, ImageError):
            return None  # somebody else's: as good as none

    def _recorded_layers(
        self, manifest: dict[str, Any], config: dict[str, Any]
    ) -> tuple[Layer, ...]:
        diff_ids = config["rootfs"]["diff_ids"]
        above = len(diff_ids) - len(self._contents.base.layers)
        if above != len(self._contents.recipes):
            raise ValueError("another number of layers")
        if not all(map(is_digest, diff_ids)):
            raise ValueError("a diff id that is no SHA-256 digest")
        layers = list(self._contents.base.layers)
        for recipe, item, diff_id in zip(
            self._contents.recipes, manifest["layers"][-above:], diff_ids[-above:], strict=True
        ):
            blob = descriptor_from(item)
            layer = Layer(
                kind=recipe.kind,
                digest=blob.digest,
                diff_id=diff_id,
                size=blob.size,
                media_type=blob.media_type,
                origin="reused",
                title=recipe.title,
            )
            if not recipe.fits(layer):
                raise ValueError("a layer that is compressed otherwise")
            layers.append(layer)
        return tuple(layer.placed("present") for layer in layers)

    def _confirmed(self, layers: Sequence[Layer]) -> bool:
        """Whether files whose content was only claimed still have it."""
        own = layers[len(self._contents.base.layers) :]
        claims = [
            (recipe, layer)
            for recipe, layer in zip(self._contents.recipes, own, strict=True)
            if recipe.claimed
        ]
        read = [partial(self._diff_id, recipe) for recipe, _ in claims]
        found = self._side_by_side(read, _TRANSFERS)
        return [layer.diff_id for _, layer in claims] == found

    def _diff_id(self, recipe: Recipe) -> str:
        """Digest of the layer's tar, from the files themselves or from what is known of them."""
        with recipe.prepare(self._workspace.root) as listing:
            entries = list(listing())
            if self._cache:
                known, sums = self._cache.find_reading(recipe.key, entries)
                if known:
                    self._sums.update(sums)
                    return known
            stream = recipe.stream(lambda: entries)
            for _ in self._guarded(stream.open()):
                pass
            self._sums.update(stream.sums)
            if self._cache:
                self._cache.keep_reading(recipe.key, entries, stream.diff_id, stream.sums)
            return stream.diff_id

    # Making what is not there.

    def _assemble(self, *, trusting: bool) -> Assembled:
        base, recipes = self._contents.base, self._contents.recipes
        tasks = [partial(self._place_base, layer) for layer in base.layers]
        tasks += [partial(self._realise, recipe, trusting) for recipe in recipes]
        layers = tuple(self._side_by_side(tasks, _TRANSFERS))
        self._contents.check(self._sums)
        content = self._contents.configure(layers)
        config = config_descriptor(content)
        self._workspace.put_bytes(content, config.media_type)
        self._sink.put_blob(config, self._workspace)
        manifest, text = image_manifest(config, layers, self._contents.annotations)
        self._sink.put_manifest(manifest, text)
        assembled = self._assembled(manifest, layers, changed=False)
        self._attach(manifest, assembled.documents)
        if isinstance(self._sink, LayoutSink):
            self._sink.inputs = self._contents.key
        changed = self._sink.tag(manifest, text, self._tag)
        self._remember(manifest, text, layers)
        return replace(assembled, changed=changed)

    def _attach(self, manifest: Descriptor, documents: Sequence[Document]) -> None:
        """Before the tag moves, so that no image is ever seen without its documents."""
        documents = documents or self._contents.documents(manifest, Unverified())
        if documents and not self._sink.carries_referrers:
            self._tell("an archive cannot carry the bill of materials and the provenance")
        elif documents:
            attach(self._sink, self._workspace, manifest, documents)

    def _place_base(self, layer: Layer) -> Layer:
        source: BlobSource = self._contents.base.blobs
        if self._cache is not None and isinstance(self._sink, LayoutSink):
            source = KeptBlobs(source, self._cache)
        return layer.placed(self._sink.put_blob(layer.descriptor, source))

    def _realise(self, recipe: Recipe, trusting: bool) -> Layer:
        """The recipe's layer, in the sink."""
        if trusting and (known := self._find(recipe)) and self._still(recipe, known.layer):
            with contextlib.suppress(_Damaged):
                return self._reuse(recipe.key, known)
        with self._scratch() as scratch, recipe.prepare(scratch) as listing:
            self._tell(f"packing {recipe.title}")
            return self._make(recipe, recipe.stream(listing))

    def _still(self, recipe: Recipe, layer: Layer) -> bool:
        return not recipe.claimed or self._diff_id(recipe) == layer.diff_id

    def _reuse(self, key: str, known: _Known) -> Layer:
        layer = known.layer
        if known.shared and self._shared is not None:
            self._recorded_keys.add(key)
            if self._shared.repository is self._sink:
                return layer.placed("present")  # the record itself refers to the blob
            source: BlobSource = self._shared.repository
        else:
            assert self._cache is not None  # noqa: S101
            if not self._cache.blobs.holds(layer.descriptor):
                raise _Damaged
            source = self._cache.source
        return layer.placed(self._sink.put_blob(layer.descriptor, source))

    def _make(self, recipe: Recipe, stream: LayerStream) -> Layer:
        """Makes a layer: kept where there is a cache, sent while it is made where there is none."""
        guarded = _Guarded(stream, self._stop)
        keep = self._cache if recipe.costly else None
        if keep is None and recipe.size > _SMALL:
            self._sink.put_stream(guarded)
            self._sums.update(stream.sums)
            return stream.layer(kind=recipe.kind, title=recipe.title).placed("sent")
        place = keep.blobs if keep else self._workspace
        place.put_stream(guarded)
        self._sums.update(stream.sums)
        layer = stream.layer(kind=recipe.kind, title=recipe.title)
        if keep:
            keep.keep_layer(recipe.key, layer, place)
        source: BlobSource = keep.source if keep else self._workspace
        return layer.placed(self._sink.put_blob(layer.descriptor, source))

    def _find(self, recipe: Recipe, *, sealed: bool = False) -> _Known | None:
        """A finished layer for the recipe; the destination's own record spares the most.

        Args:
            recipe: What to look for.
            sealed: Whether only a record with a seal of ours counts.
        """
        local = self._fitting(recipe, self._cache.find_layer(recipe.key) if self._cache else None)
        shared = None
        if self._shared and (self._shared.sealed or not sealed):
            shared = self._fitting(recipe, self._shared.find_layer(recipe.key))
        if shared is None or self._shared is None:
            return _Known(local, shared=False) if local else None
        proven = self._shared.sealed or recipe.claimed  # those are compared with their files
        if not proven and local is not None:
            if not _same(local, shared):
                self._tell(f"the registry's record of {recipe.title} is not what was made here")
                return _Known(local, shared=False)
            proven = True
        return _Known(replace(shared, unverified=not proven), shared=True)

    def _fitting(self, recipe: Recipe, layer: Layer | None) -> Layer | None:
        """A recorded layer, by the names that are ours to give."""
        if layer is None or not recipe.fits(layer):
            return None
        return replace(layer, title=recipe.title)

    def _remember(self, manifest: Descriptor, content: bytes, layers: Sequence[Layer]) -> None:
        """Writes records of what is new; a build that cannot is a build all the same."""
        if self._cache is not None:
            for key, facts in self._contents.kept.items():
                self._cache.keep_facts(key, facts)
        if self._images is None or not isinstance(self._sink, Repository):
            return
        own = layers[len(self._contents.base.layers) :]
        kept: list[Callable[[], None]]
        kept = [partial(self._images.keep_image, self._contents.key, manifest, content)]
        if self._shared is not None:
            kept += [
                partial(self._shared.keep_facts, key, facts)
                for key, facts in self._contents.kept.items()
            ]
            kept += [
                partial(self._shared.keep_layer, recipe.key, layer, self._sink)
                for recipe, layer in zip(self._contents.recipes, own, strict=True)
                if recipe.key not in self._recorded_keys and recipe.kind != "source"
            ]
        for tries_left in (1, 0):  # writing a record twice is harmless
            try:
                self._side_by_side(kept, _LOOKUPS)
                return
            except KfpBentoError as error:
                self._stop.clear()
                if not tries_left:
                    self._tell(f"the next build will not know these layers: {error.message}")

    # Planning.

    def _planned_base(self, layer: Layer) -> PlannedLayer:
        blobs = self._contents.base.blobs
        action: Action = "upload"
        if isinstance(self._sink, Repository):
            if self._sink.has_blob(layer.descriptor):
                action = "present"
            elif isinstance(blobs, Repository) and _neighbours(blobs, self._sink):
                action = "mount"
        return PlannedLayer(
            kind="base",
            title=layer.title,
            key=layer.digest,
            action=action,
            size=layer.size,
            exact=True,
            digest=layer.digest,
        )

    def _planned(self, recipe: Recipe) -> PlannedLayer:
        known = self._find(recipe)
        if known is None or not self._still(recipe, known.layer):
            return PlannedLayer(
                kind=recipe.kind,
                title=recipe.title,
                key=recipe.key,
                action="build",
                size=recipe.size,
                exact=recipe.exact,
                digest="",
            )
        action: Action = "upload"
        if isinstance(self._sink, Repository):
            if self._sink.has_blob(known.layer.descriptor):
                action = "present"
            elif known.shared:
                action = "mount"
        return replace(
            self._planned_present(known.layer), key=recipe.key, title=recipe.title, action=action
        )

    def _planned_present(self, layer: Layer) -> PlannedLayer:
        return PlannedLayer(
            kind=layer.kind,
            title=layer.title,
            key=layer.digest,
            action="present",
            size=layer.size,
            exact=True,
            digest=layer.digest,
            unverified=layer.unverified,
        )

    def _side_by_side(self, tasks: Sequence[Callable[[], Result]], number: int) -> list[Result]:
        return run_all(tasks, number, stop=self._stop)

    def _guarded(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        return _until(self._stop, chunks)

    @contextlib.contextmanager
    def _scratch(self) -> Iterator[Path]:
        with storage_errors(self._workspace.root):
            self._workspace.root.mkdir(parents=True, exist_ok=True)
            scratch = tempfile.TemporaryDirectory(prefix=".layer-", dir=self._workspace.root)
        with scratch as folder:
            yield Path(folder)


def _same(one: Layer, other: Layer) -> bool:
    return (one.digest, one.diff_id) == (other.digest, other.diff_id)


class _Damaged(Exception):
    """A kept blob is not what its name says."""


class _Stopped(KfpBentoError):
    """Another part of the same build failed."""


class _Guarded:
    """A stream that ends when the build has failed elsewhere."""

    def __init__(self, stream: LayerStream, stop: threading.Event) -> None:
        self._stream = stream
        self._stop = stop

    def open(self) -> Iterator[bytes]:
        return _until(self._stop, self._stream.open())

    @property
    def digest(self) -> str:
        return self._stream.digest

    @property
    def size(self) -> int:
        return self._stream.size


def _until(stop: threading.Event, chunks: Iterator[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        if stop.is_set():
            raise _Stopped("Stopped, since another part of the build failed.")
        yield chunk


def _neighbours(one: Repository, other: Repository) -> bool:
    return one.reference.host == other.reference.host
