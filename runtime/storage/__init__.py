"""Files and objects behind one small interface: written whole, read in parallel, verified."""

from kfp_bento.runtime.storage.open import local_path, open_place

__all__ = ["local_path", "open_place"]
