"""Which finished layers are known, by whose records, and who is believed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


class KnownLayers:
    """Finished layers by their recipes.

    Args:
        recipes: All layers of the image.
        cache: Layers kept on this machine.
        shared: Layers kept in a registry: in the destination itself, or beside it.
        tell: Told what is going on.
    """

    def __init__(
        self,
        recipes: Sequence[Recipe],
        cache: LayerCache | None,
        shared: RegistryRecords | None,
        tell: Callable[[str], None],
    ) -> None:
        self._installed = [recipe.key for recipe in recipes if recipe.installed]
        self._cache = cache
        self._shared = shared
        self._tell = tell

    def find(self, recipe: Recipe, *, sealed: bool = False) -> KnownLayer | None:
        """Find a layer for a recipe; the destination's own record spares the most.

        Args:
            recipe: What to look for.
            sealed: Whether only a record with a seal of ours counts.
        """
        local, shared = self._kept(recipe), self._recorded(recipe, sealed=sealed)
        if shared is None:
            return local
        if shared.layer.unverified and local is not None:
            if not same_bytes(local.layer, shared.layer):
                self._tell(f"the registry's record of {recipe.title} is not what was made here")
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
        believed = self._shared is not None and not self._shared.sealed
        return replace(layer, unverified=True) if believed else None

    def is_whole(self, known: KnownLayer) -> bool:
        """Say whether a known layer's blob can be had; one that is kept here is read."""
        return known.shared or (
            self._cache is not None and self._cache.blobs.holds(known.layer.descriptor)
        )

    def is_stored(self, known: KnownLayer) -> bool:
        """Say whether a blob is where a record says; a registry is asked for this very one."""
        shared = known.shared and self._shared
        return not shared or shared.repository.has_blob(known.layer.descriptor)

    def _kept(self, recipe: Recipe) -> KnownLayer | None:
        layer = self._cache.find_layer(recipe.key) if self._cache else None
        if self._cache is None or layer is None or not recipe.fits(layer):
            return None
        return KnownLayer(replace(layer, title=recipe.title), self._cache.source, shared=False)

    def _recorded(self, recipe: Recipe, *, sealed: bool) -> KnownLayer | None:
        if self._shared is None or (sealed and not self._shared.sealed):
            return None
        if recipe.installed:
            layer = self._shared.find_layers(self._installed).get(recipe.key)
        else:
            layer = self._shared.find_layer(recipe.key)
        if layer is None or not recipe.fits(layer):
            return None
        proven = self._shared.sealed or recipe.claimed
        layer = replace(layer, title=recipe.title, unverified=not proven)
        return KnownLayer(layer, self._shared.repository, shared=True)


def same_bytes(one: Layer, other: Layer) -> bool:
    """Say whether two layers have the same blob and the same tar."""
    return (one.digest, one.diff_id) == (other.digest, other.diff_id)
