"""Whether a record of layers is one of our own: sealed with a key that others do not have.

Whoever can write to a cache or push to a repository can plant a record that says "these wheels gave
this layer". Its blob is what its digest says and still anybody's.
"""

from __future__ import annotations

from typing import Any

from kfp_bento.runtime.errors import InvalidInput
from kfp_bento.runtime.files import KEY_VARIABLE, is_sealed, own_key, seal, shared_key
from kfp_bento.runtime.images.oci.config import canonical_json

_PURPOSE = "layer"


def check_record_key() -> None:
    """Make sure that the shared key can be used, where there is one.

    Raises:
        InvalidInput: It is too short.
    """
    try:
        shared_key()
    except ValueError as error:
        raise InvalidInput(
            f"The key for records cannot be used: {error}.",
            hint=f"Let {KEY_VARIABLE} hold at least 32 random characters: openssl rand -hex 32.",
        ) from None


def seal_facts(name: str, facts: Any, *, shared: bool = False) -> str:
    """Give the seal of a record; empty without a key.

    Args:
        name: The record's name: a record is none under another one.
        facts: JSON values.
        shared: Whether only the key counts that several machines have.
    """
    return seal(_text(name, facts), _PURPOSE, shared_key() if shared else own_key())


def are_ours(name: str, facts: Any, found: object, *, shared: bool = False) -> bool:
    """Say whether a seal is the one for these facts under this name; see above."""
    key = shared_key() if shared else own_key()
    return isinstance(found, str) and is_sealed(_text(name, facts), _PURPOSE, found, key)


def _text(name: str, facts: Any) -> bytes:
    return name.encode() + b"\0" + canonical_json(facts)
