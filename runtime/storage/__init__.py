"""Files and objects behind one small interface: written whole, read in parallel, verified."""

from kfp_bento.runtime.storage.open import open_place

__all__ = ["open_place"]
