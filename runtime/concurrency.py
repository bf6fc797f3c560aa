"""Several transfers at once, in threads that end with the command."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeVar

from kfp_bento.runtime.errors import KfpBentoError

Result = TypeVar("Result")

# An interrupted command gives its threads this long to notice before it cleans up around them.
_PATIENCE_SECONDS = 5.0


class Stopped(KfpBentoError):
    """Another part of the same work failed."""


class Approval:
    """What one thread waits for before its last step, while another finds out.

    Attributes:
        refused: Set where it was refused, for a thread that can stop early.
    """

    def __init__(self) -> None:
        self.refused = threading.Event()
        self._decided = threading.Event()

    def give(self) -> None:
        """Let the last step be done."""
        self._decided.set()

    def refuse(self) -> None:
        """Let it not be done; what was given before stays given."""
        if not self._decided.is_set():
            self.refused.set()
            self._decided.set()

    def wait(self) -> None:
        """Wait until it is given.

        Raises:
            Stopped: It was refused.
        """
        self._decided.wait()
        if self.refused.is_set():
            raise Stopped("The work that this waited for failed.")


def run_all(
    tasks: Sequence[Callable[[], Result]], at_once: int, *, stop: threading.Event | None = None
) -> list[Result]:
    """Run tasks, some at once, and give their results in order.

    Args:
        tasks: What to run; started in this order.
        at_once: How many may run at the same time.
        stop: Set when a task fails or the caller is interrupted, for tasks that look at it.

    Raises:
        BaseException: What the first failing task raised. No other is started then, and those
            under way are waited for; an interrupt waits for them a few seconds only.
    """
    waiting = deque(enumerate(tasks))
    results: dict[int, Result] = {}
    failures: list[tuple[int, BaseException]] = []

    def work() -> None:
        while not failures:
            try:
                number, task = waiting.popleft()
            except IndexError:
                return
            try:
                results[number] = task()
            except BaseException as error:  # raised again by whoever waits
                failures.append((number, error))
                if stop is not None:
                    stop.set()

    # Daemons, since an interrupted command must not wait for gigabytes that are under way.
    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(at_once, len(tasks)))]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    except BaseException as error:
        failures.append((-1, error))
        if stop is not None:
            stop.set()
        deadline = time.monotonic() + _PATIENCE_SECONDS
        for thread in threads:
            if thread.ident is not None:
                thread.join(max(deadline - time.monotonic(), 0))
        raise
    if failures:
        raise failures[0][1]
    return [results[number] for number in range(len(tasks))]
