"""Files and objects behind one small interface: written whole, read in parallel, verified."""

from kfp_bento.runtime.storage.object_place import LONGEST_URL
from kfp_bento.runtime.storage.open import local_path, open_place
from kfp_bento.runtime.storage.place import NotThereError, Place, StoredObject
from kfp_bento.runtime.storage.uri import BUCKETS

__all__ = [
    "BUCKETS",
    "LONGEST_URL",
    "NotThereError",
    "Place",
    "StoredObject",
    "local_path",
    "open_place",
]
