"""Which finished layers are known, by whose records, and who is believed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from kfp_bento.runtime.images.assembly.recipes import Recipe
from kfp_bento.runtime.images.cache.local import LayerCache
from kfp_bento.runtime.images.cache.records import RegistryRecords
from kfp_bento.runtime.images.oci.image import BlobSource, Layer


@dataclass(frozen=True)
class KnownLayer:
    """A finished layer for a recipe.

    Attributes:
        layer: The layer; `unverified` unless a record with a seal of ours names it, or its
            content is compared with the files.
        source: Gives out its blob.
        shared: Whether the registry's records name it.
    """

    layer: Layer
    source: BlobSource
    shared: bool


@dataclass(frozen=True)
class KnownLayers:
    """Finished layers by their recipes.

    Attributes:
        cache: Layers kept on this machine.
        shared: Layers kept in a registry: in the destination itself, or beside it.
        tell: Told what is going on.
    """

    cache: LayerCache | None
    shared: RegistryRecords | None
    tell: Callable[[str], None]

    def find(self, recipe: Recipe, *, sealed: bool = False) -> KnownLayer | None:
        """Find a layer for a recipe; the destination's own record spares the most.

        Args:
            recipe: What to look for.
            sealed: Whether only a record with a seal of ours counts.
        """
        local, shared = self._local(recipe), self._shared(recipe, sealed=sealed)
        if shared is None:
            return local
        if shared.layer.unverified and local is not None:
            if not same_bytes(local.layer, shared.layer):
                self.tell(f"the registry's record of {recipe.title} is not what was made here")
                return local
            return replace(shared, layer=replace(shared.layer, unverified=False))
        return shared

    def vouched(self, recipe: Recipe, layer: Layer) -> Layer | None:
        """Give a layer of an image that was found, marked where the registry alone vouches for it.

        Returns:
            None where another layer is known to be the recipe's, or it needs a seal and has none.
        """
        known = self.find(recipe, sealed=True)
        if known is not None:
            return layer if same_bytes(known.layer, layer) else None
        believed = self.shared is not None and not self.shared.sealed
        return replace(layer, unverified=True) if believed else None

    def is_whole(self, known: KnownLayer) -> bool:
        """Say whether a known layer's blob can be had; one that is kept here is read."""
        return known.shared or (
            self.cache is not None and self.cache.blobs.holds(known.layer.descriptor)
        )

    def _local(self, recipe: Recipe) -> KnownLayer | None:
        layer = self.cache.find_layer(recipe.key) if self.cache else None
        if self.cache is None or layer is None or not recipe.fits(layer):
            return None
        return KnownLayer(replace(layer, title=recipe.title), self.cache.source, shared=False)

    def _shared(self, recipe: Recipe, *, sealed: bool) -> KnownLayer | None:
        if self.shared is None or (sealed and not self.shared.sealed):
            return None
        layer = self.shared.find_layer(recipe.key)
        if layer is None or not recipe.fits(layer):
            return None
        proven = self.shared.sealed or recipe.claimed
        layer = replace(layer, title=recipe.title, unverified=not proven)
        return KnownLayer(layer, self.shared.repository, shared=True)


def same_bytes(one: Layer, other: Layer) -> bool:
    """Say whether two layers have the same blob and the same tar."""
    return (one.digest, one.diff_id) == (other.digest, other.diff_id)
