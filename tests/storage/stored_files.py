"""Files to store, and where to."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

Addresses = Callable[[str, str], str]
PART = 5 << 20  # the least that S3 takes
LARGE = 2 * PART + 12_345


def written(file: Path, size: int, seed: str = "x") -> Path:
    """A file of bytes that do not compress, the same for the same seed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(random.Random(seed).randbytes(size))
    return file
