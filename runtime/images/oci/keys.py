"""Keys: what a layer or an image is recognised by before it is made."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from kfp_bento.runtime.images.oci.config import canonical_json

# Part of every key: raise it whenever the same inputs come to give other bytes.
BUILDER_FORMAT = 2


def key_of(inputs: Mapping[str, Any]) -> str:
    """Give the key of JSON values in this builder's format: SHA-256 in hexadecimal digits."""
    return hashlib.sha256(canonical_json({"format": BUILDER_FORMAT, **inputs})).hexdigest()
