"""Putting an image together: what is known is reused, what is not is made, all of it side by side.

Nothing that could be pulled changes before the very last step, which moves the tag.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from kfp_bento.runtime.concurrency import Approval, run_all
from kfp_bento.runtime.errors import ImageError, KfpBentoError, RegistryError
from kfp_bento.runtime.images.assembly.context import BuildContext
from kfp_bento.runtime.images.assembly.documents import image_documents
from kfp_bento.runtime.images.assembly.known import KnownLayer, KnownLayers
from kfp_bento.runtime.images.assembly.plan import ImagePlan, PlannedLayer
from kfp_bento.runtime.images.assembly.recipes import Listing, Recipe
from kfp_bento.runtime.images.assembly.spec import ImageSpec
from kfp_bento.runtime.images.attestations.attachments import attach_if_taken
from kfp_bento.runtime.images.cache.records import LOOKUPS
from kfp_bento.runtime.images.oci.blobs import scratch_directory
from kfp_bento.runtime.images.oci.config import ComposedImage, check_layer_count, left_of_base
from kfp_bento.runtime.images.oci.image import (
    BlobSource,
    Document,
    Image,
    Layer,
    Outcome,
)
from kfp_bento.runtime.images.oci.layers import LayerStream
from kfp_bento.runtime.images.places.opened_image import OpenedImage

# What is sent side by side: more helps no registry, and every transfer holds a connection.
_TRANSFERS = 4
# Layers that are made side by side, each with an installer and a compressor of its own: enough to
# keep the compilers busy, which have most of the work.
_MADE_AT_ONCE = 2
# Another new layer up to this size is made on disk first, so that a HEAD can spare the upload; what
# is installed has been asked for by its record.
_SMALL = 8 << 20


# What of a known layer is believed: that its blob is there, that it is if the registry says so
# when it is asked for this very blob, or nothing.
_Trust = Literal["records", "blobs", "nothing"]
_TRUSTS: tuple[_Trust, ...] = ("records", "blobs", "nothing")


@dataclass(frozen=True)
class StoredImage:
    """An image that a sink holds, with or without a tag.

    Attributes:
        composed: Its documents.
        layers: Its layers.
        refused: Why its bill of materials and provenance are not attached; empty if they are.
    """

    composed: ComposedImage
    layers: tuple[Layer, ...]
    refused: str = ""


class Assembly:
    """One image on its way into one destination.

    Args:
        spec: What the image is made of.
        context: Where it goes, and what is known from earlier builds.
        check: Given the SHA-256 of each file of the claimed layers by its path, raises an
            ImageError where they are not what was claimed.
        kept: JSON values to remember for the next build, by key.
        notes: What else there is to tell people.
        alone: Whether the image is the only one that goes there; else an index follows it.

    Raises:
        ImageError: It would have more layers than a container may have.
    """

    def __init__(
        self,
        spec: ImageSpec,
        context: BuildContext,
        *,
        check: Callable[[Mapping[str, str]], None] = lambda sums: None,
        kept: Mapping[str, Any],
        notes: tuple[str, ...] = (),
        alone: bool = True,
    ) -> None:
        check_layer_count(len(spec.base.layers) + len(spec.recipes))
        self._spec = spec
        self._context = context
        self._place = context.place
        self._check = check
        self._kept = kept
        left = left_of_base(spec.base.config, spec.config.environment)
        self._notes = (*notes, *filter(None, [left]))
        self._alone = alone
        self._sink = context.place.sink
        self._cache = context.builder.cache
        self._workspace = context.builder.workspace
        self._tell = context.builder.tell
        self._known = KnownLayers(spec.recipes, self._cache, context.place.shared, self._tell)
        self._approval: Approval | None = None
        self._stop = threading.Event()
        self._making = threading.BoundedSemaphore(_MADE_AT_ONCE)
        self._recorded_keys: set[str] = set()
        self._sums: dict[str, str] = {}

    def wait_for(self, approval: Approval) -> None:
        """Let the image have its manifest once that is given, and stop where it is refused."""
        self._approval, self._stop = approval, approval.refused

    def carry_out(self) -> Image:
        """Make what is missing and write the image.

        Raises:
            ImageError: A layer cannot be made or stored.
            RegistryError: A registry refused or failed; the tag then is what it was.
        """
        return self._tagged(self.store())

    def store(self) -> StoredImage:
        """Make what is missing and write the image without its tag, by which nobody finds it.

        Raises:
            ImageError: A layer cannot be made or stored.
            RegistryError: A registry refused or failed.
        """
        if found := self._recognise():
            self._approved()
            return StoredImage(*found)
        for trust in _TRUSTS[:-1]:
            try:
                return self._assemble(trust)
            except RegistryError as error:
                if not any("BLOB_UNKNOWN" in code for code in error.codes):
                    raise
            # Somebody deleted blobs below our records: do without them.
            self._tell("the registry lost layers that it had; making them again")
            self._stop.clear()
        return self._assemble(_TRUSTS[-1])

    def plan(self) -> ImagePlan:
        """Say what `carry_out` would do."""
        found = self._recognise()
        if found:
            layers = [_planned(layer, layer.digest, "present") for layer in found[1]]
        else:
            base = self._spec.base
            planned = [partial(self._planned_base, layer) for layer in base.layers]
            planned += [partial(self._planned, recipe) for recipe in self._spec.recipes]
            layers = run_all(planned, LOOKUPS, stop=self._stop)
        place = self._place.target.location.removeprefix("docker://")
        return ImagePlan(
            destination=f"{place}:{self._place.tag}",
            base=self._spec.base.title,
            platform=str(self._context.platform),
            unchanged=found[0].manifest.digest if found else "",
            layers=tuple(layers),
            notes=(*self._notes, *self._context.notes(layers)),
        )

    def _approved(self) -> None:
        if self._approval:
            self._approval.wait()

    # Recognising an image that these inputs gave before.

    def _recognise(self) -> tuple[ComposedImage, tuple[Layer, ...]] | None:
        """Give the image, with its layers as they are vouched for."""
        if not self._context.records:
            return None  # nobody would vouch for it
        if not self._alone and self._sink.blobs:
            return None  # a layout is written anew, as a whole
        found = self._sink.recorded(self._spec.key, self._place.tag)
        layers = self._recorded_layers(found) if found else None
        if found is None or layers is None:
            return None
        composed = self._spec.compose(layers)  # its configuration is nobody else's
        if composed.manifest != found.descriptor or not self._confirmed(layers):
            return None
        vouched = [self._vouched(recipe, layer) for recipe, layer in self._spec.own(layers)]
        own = [layer for layer in vouched if layer]
        if len(own) < len(vouched):
            return None
        self._check(self._sums)
        return composed, (*layers[: len(self._spec.base.layers)], *own)

    def _recorded_layers(self, image: OpenedImage) -> tuple[Layer, ...] | None:
        """Give the layers of an image by our own names; None if they cannot be the spec's."""
        base, recipes = self._spec.base.layers, self._spec.recipes
        try:
            own = image.layers[len(base) :]
        except RegistryError:
            raise
        except ImageError:
            return None  # somebody else's: as good as none
        if len(own) != len(recipes) or not all(map(Recipe.fits, recipes, own)):
            return None
        named = [
            replace(layer, origin="reused", title=recipe.title)
            for recipe, layer in zip(recipes, own, strict=True)
        ]
        return tuple(layer.placed("present") for layer in (*base, *named))

    def _vouched(self, recipe: Recipe, layer: Layer) -> Layer | None:
        if recipe.claimed:  # its files have just been compared
            return layer
        if recipe.kind == "source":
            return layer if self._made_anew(recipe) == (layer.digest, layer.diff_id) else None
        return self._known.vouched(recipe, layer)

    def _made_anew(self, recipe: Recipe) -> tuple[str, str]:
        """Digests of a small layer, made once more and not kept."""
        with recipe.prepare(self._workspace.root) as listing:
            stream = self._read(recipe, listing)
        return stream.digest, stream.diff_id

    def _read(self, recipe: Recipe, listing: Listing) -> LayerStream:
        """Give a layer that was made and let go."""
        stream = recipe.stream(listing, self._stop)
        for _ in stream.open():
            pass
        self._sums.update(stream.sums)
        return stream

    def _confirmed(self, layers: Sequence[Layer]) -> bool:
        """Whether files whose content was only claimed still have it."""
        claims = [(recipe, layer) for recipe, layer in self._spec.own(layers) if recipe.claimed]
        read = [partial(self._still, recipe, layer) for recipe, layer in claims]
        return all(run_all(read, _TRANSFERS, stop=self._stop))

    def _still(self, recipe: Recipe, layer: Layer) -> bool:
        """Whether a layer is still what the recipe's files give."""
        return not recipe.claimed or self._diff_id(recipe) == layer.diff_id

    def _diff_id(self, recipe: Recipe) -> str:
        """Digest of the layer's tar, from the files themselves or from what is known of them."""
        with recipe.prepare(self._workspace.root) as listing:
            entries = list(listing())
            if self._cache:
                known, sums = self._cache.find_reading(recipe.key, entries)
                if known:
                    self._sums.update(sums)
                    return known
            stream = self._read(recipe, lambda: entries)
            if self._cache:
                self._cache.keep_reading(recipe.key, entries, stream.diff_id, stream.sums)
            return stream.diff_id

    # Making what is not there.

    def _assemble(self, trust: _Trust) -> StoredImage:
        base, recipes = self._spec.base, self._spec.recipes
        tasks = [partial(self._place_base, layer) for layer in base.layers]
        tasks += [partial(self._realise, recipe, trust) for recipe in recipes]
        layers = tuple(run_all(tasks, _TRANSFERS, stop=self._stop))
        self._check(self._sums)
        self._approved()
        composed = self._spec.compose(layers)
        self._workspace.put_bytes(composed.config_content, composed.config.media_type)
        self._sink.put_blob(composed.config, self._workspace)
        self._sink.put_manifest(composed.manifest, composed.content)
        # Before the tag moves, so that no image is ever seen without its documents.
        documents = image_documents(self._spec, composed.manifest, layers)
        if self._sink.carries_referrers:
            refused = attach_if_taken(self._sink, self._workspace, composed.manifest, documents)[1]
        else:
            refused = "an archive cannot carry the bill of materials and the provenance"
        self._remember(composed, layers)
        return StoredImage(composed, layers, refused)

    def _tagged(self, stored: StoredImage) -> Image:
        context, manifest = self._context, stored.composed.manifest
        signed_by = context.place.sign(manifest)
        content = stored.composed.content
        changed = self._sink.tag(manifest, content, context.place.tag)
        verb = "wrote" if changed else "already there:"
        self._tell(f"{verb} {context.place.target} as {manifest.digest}")
        image = self.image(stored)
        notes = image.notes
        if context.place.signing_key and not signed_by:
            notes = (*notes, "not signed: an archive has no place for signatures")
        for note in notes:
            self._tell(note)
        tags = (context.place.tag,)
        return replace(image, tags=tags, reused=not changed, notes=notes, signed_by=signed_by)

    def image(self, stored: StoredImage) -> Image:
        """Give an image that is stored and has no tag yet."""
        context, manifest, layers = self._context, stored.composed.manifest, stored.layers
        refused = stored.refused
        # Where some layers are unverified, what is attached may be anybody's.
        documents: tuple[Document, ...] = ()
        if any(layer.unverified for layer in layers) or refused:
            documents = image_documents(self._spec, manifest, layers)
        return Image(
            repository=context.place.repository,
            digest=manifest.digest,
            tags=(),
            base=self._spec.base.title,
            location=context.place.target.location,
            layers=layers,
            platform=str(context.platform),
            documents=documents,
            notes=(*self._notes, *context.notes(layers), *([refused] if refused else [])),
            base_signed_by=context.base_signed_by,
        )

    def _place_base(self, layer: Layer) -> Layer:
        return layer.placed(self._sink.put_blob(layer.descriptor, self._spec.base.blobs))

    def _realise(self, recipe: Recipe, trust: _Trust) -> Layer:
        """Give the recipe's layer, in the sink."""
        if trust == "records" and recipe.key in self._place.made:
            # For another platform; what was lost is made anew by the next try.
            made, sums = self._place.made[recipe.key]
            self._sums.update(sums)
            self._recorded_keys.add(recipe.key)
            return replace(made, title=recipe.title).placed("present")
        layer = self._found_or_made(recipe, trust)
        self._place.made[recipe.key] = layer, dict(self._sums) if recipe.claimed else {}
        return layer

    def _found_or_made(self, recipe: Recipe, trust: _Trust) -> Layer:
        known = self._known.find(recipe) if trust != "nothing" else None
        if known and trust == "blobs" and not self._known.is_stored(known):
            known = None
        if known and self._still(recipe, known.layer) and self._known.is_whole(known):
            return self._reuse(recipe, known)
        with (
            self._making,
            scratch_directory(".layer-", self._workspace.root) as scratch,
            recipe.prepare(scratch) as listing,
        ):
            self._tell(f"packing {recipe.title}")
            return self._make(recipe, recipe.stream(listing, self._stop))

    def _reuse(self, recipe: Recipe, known: KnownLayer) -> Layer:
        layer = replace(known.layer, facts={**known.layer.facts, **recipe.facts})
        if known.shared and layer.facts == known.layer.facts:
            self._recorded_keys.add(recipe.key)
        if known.source is self._sink.records:
            return layer.placed("present")  # the record itself refers to the blob
        return layer.placed(self._sink.put_blob(layer.descriptor, known.source))

    def _make(self, recipe: Recipe, stream: LayerStream) -> Layer:
        """Make a layer: kept where there is a cache, sent while it is made where there is none."""
        keep = self._cache if recipe.costly else None
        direct = keep is None and (recipe.costly or recipe.size > _SMALL)
        taker = self._sink if direct else keep.blobs if keep else self._workspace
        taker.put_stream(stream)
        self._sums.update(stream.sums)
        made = stream.layer(kind=recipe.kind, title=recipe.title)
        layer = replace(made, facts=recipe.facts)
        if direct:
            return layer.placed("sent")
        if keep:
            keep.keep_layer(recipe.key, layer, keep.blobs)
        source: BlobSource = keep.source if keep else self._workspace
        return layer.placed(self._sink.put_blob(layer.descriptor, source))

    def _remember(self, composed: ComposedImage, layers: Sequence[Layer]) -> None:
        """Write records of what is new; a build that cannot is a build all the same."""
        tasks: list[Callable[[], None]]
        key, manifest, own = self._spec.key, composed.manifest, self._spec.own(layers)
        tasks = [partial(self._sink.remember, key, manifest, composed.content)]
        for records in self._context.records:
            tasks += [partial(records.keep_facts, *fact) for fact in self._kept.items()]
        if self._place.shared and self._sink.records:
            tasks += [
                partial(self._place.shared.keep_layer, recipe.key, layer, self._sink.records)
                for recipe, layer in own
                if recipe.key not in self._recorded_keys and recipe.kind != "source"
            ]
        installed = {recipe.key: layer for recipe, layer in own if recipe.installed}
        for tries_left in (1, 0):  # writing a record twice is harmless
            try:
                run_all(tasks, LOOKUPS, stop=self._stop)
                if self._place.shared and self._sink.records:
                    self._place.shared.keep_together(installed)
                return
            except KfpBentoError as error:
                self._stop.clear()
                if not tries_left:
                    self._tell(f"the next build will not know these layers: {error.message}")

    # Planning.

    def _planned_base(self, layer: Layer) -> PlannedLayer:
        outcome = self._sink.outcome(layer.descriptor, self._spec.base.blobs)
        return _planned(layer, layer.digest, outcome)

    def _planned(self, recipe: Recipe) -> PlannedLayer:
        known = self._known.find(recipe)
        if known and self._still(recipe, known.layer):
            outcome = self._sink.outcome(known.layer.descriptor, known.source)
            return _planned(known.layer, recipe.key, outcome)
        return PlannedLayer(
            kind=recipe.kind,
            title=recipe.title,
            key=recipe.key,
            action="build",
            size=recipe.size,
            exact=recipe.exact,
            digest="",
        )


def _planned(layer: Layer, key: str, outcome: Outcome) -> PlannedLayer:
    return PlannedLayer(
        kind=layer.kind,
        title=layer.title,
        key=key,
        action=outcome,
        size=layer.size,
        exact=True,
        digest=layer.digest,
        unverified=layer.unverified,
    )
