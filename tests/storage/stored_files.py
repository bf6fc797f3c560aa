"""Files to store, and where to."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

Addresses = Callable[[str, str], str]


def written(file: Path, size: int, seed: str = "x") -> Path:
    """A file of bytes that do not compress, the same for the same seed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as stream:
        for block in range(-(-size // (1 << 20))):
            piece = hashlib.shake_256(f"{seed}{block}".encode()).digest(1 << 20)
            stream.write(piece[: min(1 << 20, size - (block << 20))])
    return file
