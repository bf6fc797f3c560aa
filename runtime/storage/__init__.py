"""Files and objects behind one small interface: written whole, read in parallel, verified."""

from kfp_bento.runtime.storage.open import local_path, open_place
from kfp_bento.runtime.storage.place import NotThereError, Place, StoredObject

__all__ = ["NotThereError", "Place", "StoredObject", "local_path", "open_place"]
