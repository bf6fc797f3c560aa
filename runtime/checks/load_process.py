"""Ask a service as many users at once; `load.py` starts it by its path, in a process of its own.

    python -P load_process.py < JOB > RESULT

locust patches sockets, threads and time of the standard library for its whole process when it is
imported. Only the host that the job names is asked: redirects are not followed, and no proxy of
the environment is used.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass, field
from typing import Any, ClassVar
from urllib.parse import urlsplit

import gevent
import locust
from gevent.event import Event
from gevent.ssl import create_default_context
from geventhttpclient import HTTPClient
from geventhttpclient.response import HTTPParseError
from locust.env import Environment
from locust.exception import StopUser

from kfp_bento.runtime.checks.load_answers import Failures, Judge, failure
from kfp_bento.runtime.checks.served_model import LARGEST_ANSWER
from kfp_bento.runtime.files import parse_json
from kfp_bento.runtime.http import HttpAnswer
from kfp_bento.runtime.proof import Golden

_PIECE = 1 << 16
_PAUSE_AFTER_FAILURE = 0.2
_SLACK_SECONDS = 5.0


@dataclass
class Load:
    """What all users have in common.

    Attributes:
        job: The job; see `load.py`.
        golden: Requests and answers.
        over: Set when enough requests were made.
        ended_ms: When each request ended, in milliseconds since the beginning.
        took_us: How long each took, in microseconds.
        failed: Which of them failed, by their place.
        bugs: What went wrong in here.
    """

    job: dict[str, Any]
    golden: Golden
    over: Event = field(default_factory=Event)
    began: float = field(default_factory=time.perf_counter)
    started: int = 0
    ended_ms: list[int] = field(default_factory=list)
    took_us: list[int] = field(default_factory=list)
    failed: list[int] = field(default_factory=list)
    failures: Failures = field(default_factory=Failures)
    bugs: list[Exception] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.parts = urlsplit(self.job["root"])
        self.judge = Judge(self.golden)
        self.sent = [self._headers(one) for one in self.golden.requests]
        contents = (one.content for one in self.golden.requests)
        self.bodies = [b"" if one is None else one.to_bytes() for one in contents]

    def next_request(self) -> int:
        """Give the number of the request that is sent next.

        Raises:
            StopUser: There were enough.
        """
        if self.started >= self.job["max_requests"]:
            self.over.set()
            raise StopUser
        self.started += 1
        return (self.started - 1) % len(self.bodies)

    def client(self) -> HTTPClient:
        """Give a connection to the service, for one user."""
        seconds = self.job["timeout_seconds"]
        return HTTPClient(
            self.parts.hostname,
            self.parts.port,
            ssl=self.parts.scheme == "https",
            ssl_context_factory=create_default_context,
            connection_timeout=seconds,
            network_timeout=seconds,
            block_size=_PIECE,
        )

    def note(self, began: float, fact: dict[str, Any] | None) -> None:
        """Write down that a request ended now, and how it failed if it did."""
        now = time.perf_counter()
        if fact is not None:
            self.failed.append(len(self.ended_ms))
            self.failures.add(fact)
        self.ended_ms.append(round((now - self.began) * 1e3))
        self.took_us.append(round((now - began) * 1e6))

    def _headers(self, request: Any) -> dict[str, str]:
        kind = request.content.media_type if request.content is not None else ""
        token = self.job["token"]
        return {
            "Accept": "application/json",
            **request.headers,
            **({"Content-Type": kind} if kind else {}),
            **({"Authorization": f"Bearer {token}"} if token else {}),
        }


class Asker(locust.User):  # type: ignore[misc]
    """One user, with one connection: it asks, looks at the answer, and asks again."""

    load: ClassVar[Load]
    _client: HTTPClient | None = None

    @locust.task  # type: ignore[untyped-decorator]
    def ask(self) -> None:
        """Send the next request, and write down what came of it."""
        load = self.load
        number = load.next_request()
        began = time.perf_counter()
        deadline = gevent.Timeout(load.job["timeout_seconds"])
        try:
            with deadline:
                answer = self._answer(number)
        except gevent.Timeout as passed:
            if passed is not deadline:
                raise
            self._failed(number, began, f"no complete answer within {deadline.seconds:g} s")
        except (OSError, HTTPParseError, ValueError) as error:
            self._failed(number, began, f"no answer: {str(error) or type(error).__name__}")
        else:
            load.note(began, None)  # the time is the service's, not that of looking at the answer
            if fact := load.judge.problem(number, answer):
                load.failed.append(len(load.ended_ms) - 1)
                load.failures.add(fact)

    def on_stop(self) -> None:
        """Close the connection."""
        if self._client is not None:
            self._client.close()

    def _answer(self, number: int) -> HttpAnswer:
        load = self.load
        if self._client is None:
            self._client = load.client()
        request = load.golden.requests[number]
        path = f"{load.parts.path}{request.path}"
        response = self._client.request(
            request.method, path, load.bodies[number], load.sent[number]
        )
        body = bytearray()
        while piece := response.read(_PIECE):
            body += piece
            if len(body) > LARGEST_ANSWER:
                raise ValueError(f"it is larger than {LARGEST_ANSWER} bytes")
        kind = response.get("content-type", "")
        media_type = str(kind).partition(";")[0].strip().lower()
        return HttpAnswer(response.status_code, bytes(body), 0.0, media_type)

    def _failed(self, number: int, began: float, reason: str) -> None:
        self.load.note(began, failure(self.load.golden.requests[number], reason))
        if self._client is not None:
            self._client.close()
            self._client = None
        gevent.sleep(
            _PAUSE_AFTER_FAILURE
        )  # a port that refuses does so thousands of times a second


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Carry out a job; see `load.py` for what it says, and for what comes of it."""
    load = Load(job, Golden.from_dict(job["golden"]))
    users, cap, ramp = job["users"], job["max_requests_per_second"], job["ramp_seconds"]
    Asker.load = load
    Asker.wait_time = locust.constant_throughput(cap / users) if cap else locust.constant(0)
    environment = Environment(
        user_classes=[Asker], stop_timeout=job["timeout_seconds"] + _SLACK_SECONDS
    )
    environment.events.user_error.add_listener(lambda exception, **_: load.bugs.append(exception))
    runner = environment.create_local_runner()
    counted: list[int] = []
    load.began = time.perf_counter()
    runner.start(users, spawn_rate=users / ramp if ramp else users)
    counting = gevent.spawn(_count_users, runner, counted)
    load.over.wait(ramp + job["duration_seconds"])
    asked = time.perf_counter() - load.began
    counting.kill()
    counted = counted or [runner.user_count]
    runner.quit()
    if load.bugs:
        raise load.bugs[0]
    return {
        "seconds": asked,
        "enough": load.over.is_set(),
        "busy": runner.cpu_warning_emitted,
        "users": counted,
        "ended_ms": load.ended_ms,
        "took_us": load.took_us,
        "failed": load.failed,
        "failures": load.failures.to_list(),
    }


def _count_users(runner: Any, counted: list[int]) -> None:
    """Look how many users there are in the middle of each second."""
    while True:
        gevent.sleep(0.5)
        counted.append(runner.user_count)
        gevent.sleep(0.5)


if __name__ == "__main__":
    # What a library prints must not get into the result.
    result = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    json.dump(run(parse_json(sys.stdin.buffer.read())), result)
    result.close()
