"""When a test's own eyes first saw something, to compare a verdict's moment with."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def noting(what: Callable[[], Any]) -> Iterator[list[float]]:
    """Looks all the time, and notes the first moment at which there is something to see."""
    seen: list[float] = []

    def look() -> bool:
        if what():
            seen.append(time.monotonic())
        return bool(seen)

    with looking(look):
        yield seen


@contextmanager
def looking(look: Callable[[], Any]) -> Iterator[None]:
    """Looks ten times a second until told that it is enough, or the block ends."""
    ending = threading.Event()

    def work() -> None:
        while not ending.wait(0.1):
            if look():
                return

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()
