"""Who is asked about labelled rows: a bento in its own environment, or a service at an address."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.batch import bento_answers, find_route, route_of, service_answers
from kfp_bento.runtime.checks.served_model import LARGEST_ANSWER, service_root, service_token
from kfp_bento.runtime.errors import BatchError, CheckError, InvalidInput
from kfp_bento.runtime.http import HttpAnswer, NoAnswerError, NoConnectionError, ask

if TYPE_CHECKING:
    from kfp_bento.runtime.batch import Answers, BatchOptions, Route
    from kfp_bento.runtime.bentos import Bento
    from kfp_bento.runtime.proof import Golden, GoldenRequest

_TRIES = 3
_BUSY = (429, 502, 503, 504)
_SECONDS = 120.0


@dataclass(frozen=True)
class Subject:
    """What answers.

    Attributes:
        url: Root of a running service; "" for none.
        bento: The bento; where there is a URL it only says how that service is asked.
        golden: Golden answers of the bento, which say how a generated service is asked.
    """

    url: str = ""
    bento: Bento | None = None
    golden: Golden | None = None


@contextlib.contextmanager
def subject_answers(
    subject: Subject, data_uri: str, label: str, options: BatchOptions, *, workers: int = 0
) -> Iterator[Answers]:
    """Ask a subject about all rows of a table.

    Args:
        subject: Who is asked; the URL before the bento.
        data_uri: A file or a folder of files.
        label: The column that is no input of the model.
        options: How it is asked.
        workers: Processes of a bento; 0 takes one for each processor.

    Raises:
        CheckError: The service cannot be reached, or fails.
        InvalidInput: The data or the options do not fit, or there is nobody to ask.
        BentoError: The bento does not start.
        StorageError: The data cannot be fetched.
    """
    try:
        with contextlib.ExitStack() as stack:
            if subject.url:
                service = _Service(service_root(subject.url))
                route = _route(subject, options.api)
                asked = service_answers(service, route, data_uri, options, without=label)
            elif subject.bento is not None:
                asked = bento_answers(
                    subject.bento, data_uri, options, without=label, workers=workers
                )
            else:
                raise InvalidInput(
                    "There is nobody to ask.", hint="Give the URL of a service, or a bento."
                )
            yield stack.enter_context(asked)
    except BatchError as failure:
        raise CheckError(failure.message, hint=failure.hint) from failure


def _route(subject: Subject, api: str) -> Route:
    """Give the API of a service: as its bento describes it, else as the golden requests do."""
    if subject.bento is not None:
        return find_route(subject.bento, api)
    golden = subject.golden
    asked = {one.path: one for one in golden.requests if one.model} if golden else {}
    found = [one for one in asked.values() if _is_called(one, api)]
    if golden is None or len(found) != 1:
        raise InvalidInput(
            "The golden answers do not say how the service is asked about rows"
            + (f" at {api!r}." if api else "."),
            hint="Give one of its models with api: " + ", ".join(asked) + "."
            if len(asked) > 1
            else "Give the bento besides the URL: a service of one's own is described there.",
        )
    name = found[0].model.partition(":")[0]
    return route_of(found[0].path, name, golden.signature_of(found[0]))


def _is_called(request: GoldenRequest, api: str) -> bool:
    wanted = api.strip("/")
    names = (request.path.strip("/"), request.path.rpartition("/")[2])
    return not wanted or wanted in (*names, request.model.partition(":")[0])


@dataclass(frozen=True)
class _Service:
    """A service at an address; predictions may be asked again, so that what is busy is."""

    root: str

    def post(self, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> HttpAnswer:
        """Send JSON to a path, or what the headers say that it is.

        Raises:
            CheckError: No whole answer comes.
        """
        token = service_token()
        sent: dict[str, Any] = dict(headers or {})
        if token:
            sent["Authorization"] = f"Bearer {token}"
        for trial in range(1, _TRIES + 1):
            try:
                answer = self._ask(path, body, sent)
            except (NoConnectionError, NoAnswerError) as failure:
                if trial == _TRIES:
                    raise CheckError(
                        f"The service at {self.root} gives no answer to {path}: {failure}.",
                        hint="Look whether it is ready, and its URL is right.",
                    ) from failure
            else:
                if answer.status not in _BUSY or trial == _TRIES:
                    return answer
            time.sleep(trial)
        raise AssertionError  # the last trial returns or raises

    def _ask(self, path: str, body: bytes, headers: Mapping[str, str]) -> HttpAnswer:
        return ask(
            "POST",
            f"{self.root}{path}",
            seconds=_SECONDS,
            largest=4 * LARGEST_ANSWER,
            body=body,
            headers=headers,
        )
