"""How much a scan looks at before it says that there is too much."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """How much a scan looks at; what is left out then is a finding.

    Attributes:
        seconds: For the whole model.
        depth: How many times something may be packed into something else.
        entries: Files, and files in archives, in all.
        unpacked_bytes: What compressed files may become, in all.
        stack: Values that one pickle may hold on its stack or in its memo.
    """

    seconds: float = 900.0
    depth: int = 8
    entries: int = 200_000
    unpacked_bytes: int = 16 << 30
    stack: int = 5_000_000


class LimitReached(Exception):
    """There is more than a scan looks at."""


class Budget:
    """What is left of the limits.

    Args:
        limits: The limits of the scan that begins now.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._entries, self._bytes = limits.entries, limits.unpacked_bytes
        self._deadline = time.monotonic() + limits.seconds

    def look_at_clock(self) -> None:
        """Raise LimitReached when the time is over."""
        if time.monotonic() > self._deadline:
            raise LimitReached(f"looking took longer than {self.limits.seconds:.0f} s")

    def take_entry(self) -> None:
        """Count one file, or one file in an archive."""
        self.look_at_clock()
        self._entries -= 1
        if self._entries < 0:
            raise LimitReached(f"there are more than {self.limits.entries} files and entries")

    def take_bytes(self, count: int) -> None:
        """Count bytes that were unpacked."""
        self.look_at_clock()
        self._bytes -= count
        if self._bytes < 0:
            raise LimitReached(f"it becomes more than {self.limits.unpacked_bytes} bytes")
