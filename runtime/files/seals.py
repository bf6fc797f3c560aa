"""Seals: how a record that somebody else may have written is told from one of our own.

A seal is an HMAC-SHA256 with a key that only those have who may speak for each other: the pods of
a team, by a Secret; or one user of one machine, by a file of theirs.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from kfp_bento.runtime.files.documents import parse_json

KEY_VARIABLE = "KFP_BENTO_RECORD_KEY"
"""The key that pods share: any text of at least 32 characters, from a Secret."""

_SHORTEST_KEY = 32
_SEAL = "seal"


def shared_key() -> bytes | None:
    """Give the key that all who may speak for each other were given; None where there is none.

    Raises:
        ValueError: It is too short to keep anybody out.
    """
    text = os.environ.get(KEY_VARIABLE, "").strip()
    if not text:
        return None
    if len(text) < _SHORTEST_KEY:
        raise ValueError(f"{KEY_VARIABLE} has fewer than {_SHORTEST_KEY} characters")
    return text.encode()


def own_key() -> bytes | None:
    """Give the shared key, else this user's own; None where no home can be written.

    The user's key is made when it is first needed, readable by nobody else.
    """
    if (shared := shared_key()) is not None:
        return shared
    home = os.environ.get("HOME", "")
    state = os.environ.get("XDG_STATE_HOME") or (home and f"{home}/.local/state")
    if not state or not Path(state).is_absolute():
        return None
    file = Path(state) / "kfp-bento" / "record-key"
    with suppress(OSError):
        if not file.exists():
            _make_key(file)
        status = file.stat()
        if status.st_uid == os.getuid() and not status.st_mode & 0o077:
            key = file.read_bytes()
            return key if len(key) >= _SHORTEST_KEY else None
    return None


def seal(content: bytes, purpose: str, key: bytes | None) -> str:
    """Give the seal of some content, hexadecimal; empty without a key.

    Args:
        content: What is sealed.
        purpose: What the content is: a seal for one purpose is none for another.
        key: See `shared_key` and `own_key`.
    """
    if key is None:
        return ""
    return hmac.new(key, purpose.encode() + b"\0" + content, hashlib.sha256).hexdigest()


def is_sealed(content: bytes, purpose: str, found: str, key: bytes | None) -> bool:
    """Say whether a seal is the one for this content; never without a key."""
    expected = seal(content, purpose, key)
    return bool(expected) and hmac.compare_digest(expected.encode(), found.encode())


def sealed_record(facts: Mapping[str, Any], purpose: str) -> bytes:
    """Give the text of a record with the seal of this user: ASCII JSON, the same for equal facts.

    Args:
        facts: JSON values by name; `seal` is none of the names.
        purpose: What the record is about.
    """
    found = seal(_canonical(facts), purpose, own_key())
    sealed = {**facts, _SEAL: found} if found else dict(facts)
    return (json.dumps(sealed, indent=1, sort_keys=True) + "\n").encode("ascii")


def open_record(content: bytes, purpose: str, told: str = "") -> tuple[dict[str, Any], bool]:
    """Read a record, and say whether it is one of our own.

    Args:
        content: The record's text.
        purpose: What it has to be about.
        told: `sha256:…` of the text as somebody said it who is believed, such as the step that
            wrote it; see `record_digest`.

    Returns:
        The facts without their seal, and whether the seal or the digest is right. The facts of a
        record that is not our own are claims of whoever wrote it.

    Raises:
        ValueError: It is no JSON object.
    """
    facts = parse_json(content)
    found = facts.pop(_SEAL, "")
    if told:
        return facts, hmac.compare_digest(told.encode(), record_digest(content).encode())
    return facts, isinstance(found, str) and is_sealed(_canonical(facts), purpose, found, own_key())


def record_digest(content: bytes) -> str:
    """Give `sha256:…` of a record's text, for the step that reads it."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _canonical(facts: Mapping[str, Any]) -> bytes:
    return json.dumps(facts, sort_keys=True, separators=(",", ":")).encode("ascii")


def _make_key(file: Path) -> None:
    """Write a new key at once: of two processes that do it together, one's stays."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.partial-{os.getpid()}")
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(handle, secrets.token_hex(32).encode())
        os.close(handle)
        with suppress(FileExistsError):
            os.link(partial, file)
    finally:
        partial.unlink(missing_ok=True)
