"""Waiting until a service says that it is ready, and saying truthfully why it is not."""

from __future__ import annotations

import time
from dataclasses import dataclass

from kfp_bento.runtime.checks.served_model import LARGEST_ANSWER
from kfp_bento.runtime.http import NoAnswerError, NoConnectionError, ask

# What a service that is still starting, or the gateway before it, may answer.
_NOT_YET = frozenset({408, 425, 429, 500, 502, 503, 504})
_ONE_TRY_SECONDS = 5.0
_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 1.0


@dataclass(frozen=True)
class Readiness:
    """Whether a service became ready, after how long, and what it said last."""

    ready: bool
    seconds: float
    last_answer: str


def wait_for_readyz(root: str, timeout: float) -> Readiness:
    """Ask `/readyz` until it answers 200, the answer is final, or `timeout` seconds passed.

    Refused connections, silence and answers such as 503 are asked again. Any other answer,
    such as 404 or a redirect, will not get better by waiting and ends the wait at once.
    """
    start = time.monotonic()
    pause = _PAUSE_SECONDS
    last = "nothing was asked: the deadline is 0 s"
    while (left := timeout - (time.monotonic() - start)) > 0:
        try:
            answer = ask(
                "GET",
                f"{root}/readyz",
                seconds=min(_ONE_TRY_SECONDS, left),
                largest=LARGEST_ANSWER,
            )
        except NoConnectionError as error:
            last = f"no connection: {error}"
        except NoAnswerError as error:
            last = str(error)
        else:
            last = answer.shown()
            if answer.status == 200 or answer.status not in _NOT_YET:
                return Readiness(answer.status == 200, time.monotonic() - start, last)
        time.sleep(max(0.0, min(pause, timeout - (time.monotonic() - start))))
        pause = min(pause * 1.5, _LONGEST_PAUSE_SECONDS)
    return Readiness(False, time.monotonic() - start, last)
