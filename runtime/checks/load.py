"""The load test: a service asked by many at once answers rightly, and within its limits.

locust asks, in a process of its own (`load_process.py`), since it patches the standard library.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.batch import table_bodies
from kfp_bento.runtime.checks.check_report import CheckReport, json_value
from kfp_bento.runtime.checks.load_measures import Samples, histogram, load_measures, over_time
from kfp_bento.runtime.checks.load_options import GOLDEN, Limit, LoadOptions
from kfp_bento.runtime.checks.served_model import send, service_root, service_token
from kfp_bento.runtime.errors import CheckError, InvalidInput
from kfp_bento.runtime.files import parse_json, parse_json_value
from kfp_bento.runtime.http import NoAnswerError, NoConnectionError
from kfp_bento.runtime.programs import clean_environment, run_program
from kfp_bento.runtime.proof import Content, GoldenRequest

if TYPE_CHECKING:
    from kfp_bento.runtime.proof import Golden

NAME = "load_test"
_PROGRAM = Path(__file__).with_name("load_process.py")
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
_MOST_PAYLOADS, _MOST_ROWS = 1_000, 100_000
_SLACK_SECONDS = 60.0


def load_test(url: str, golden: Golden, options: LoadOptions | None = None) -> CheckReport:
    """Ask a service as many users at once, and hold what it does against limits.

    Each answer is compared with the right one; where there is none, as for rows of a table, its
    form is. What is wrong, late or missing has failed. Nothing but the URL's own host is asked.

    Args:
        url: Root of the service, as a release names it.
        golden: What the bento was proven with.
        options: How hard it is asked, for how long, with what, and what has to hold.

    Returns:
        The report, with the measures that `load_measures` names. Its evidence is limits that do
        not hold and the first failures, each with a `reason`; then all `limits`, and the load
        itself: `over_time`, `histogram`, and how it was `asked`.

    Raises:
        CheckError: There is no URL, nothing answers there, or there is nothing to ask.
        InvalidInput: The table does not fit the model.
        StorageError: The table cannot be read.
    """
    options, root = options or LoadOptions(), service_root(url)
    asked = _with_payloads(golden, options)
    _ask_once(root, asked.requests[0], options.timeout_seconds)
    result = _run(root, asked, options)
    return _report(root, asked, options, Samples.of(result, options.ramp_seconds))


def _with_payloads(golden: Golden, options: LoadOptions) -> Golden:
    """Give the golden answers with the requests that are sent, also where a table has them."""
    requests: tuple[GoldenRequest, ...] = golden.answered or golden.requests
    if options.payloads != GOLDEN:
        requests = tuple(_of_table(golden, options))
    if not requests:
        raise CheckError(
            f"Nothing is known that could be asked: {golden.reason}",
            hint="Build the bento with requests, or name a table with payloads.",
        )
    return replace(golden, requests=requests)


def _of_table(golden: Golden, options: LoadOptions) -> Iterator[GoldenRequest]:
    asked = next((one for one in golden.requests if one.model), None)
    signature = golden.signature_of(asked) if asked else None
    if asked is None or signature is None:
        raise InvalidInput(
            "payloads: the golden answers name no model with a signature, which would say how rows "
            "are sent.",
            hint="Leave payloads as it is: then the golden requests are sent.",
        )
    rows = options.rows_per_request
    most = min(_MOST_PAYLOADS, max(1, _MOST_ROWS // rows), options.max_requests)
    bodies = table_bodies(options.payloads, asked.path, signature, rows=rows, most=most)
    first = 1
    for body, count in bodies:
        label = f"row {first}" if count == 1 else f"rows {first} to {first + count - 1}"
        content = Content.json(parse_json_value(body))
        yield GoldenRequest(
            label, "table", "POST", asked.path, content, model=asked.model, rows=count
        )
        first += count


def _ask_once(root: str, request: GoldenRequest, seconds: float) -> None:
    """Make sure that something answers before many ask."""
    try:
        send(root, request, seconds)
    except NoConnectionError as error:
        raise CheckError(
            f"Nothing answers at {root}{request.path}: {error}",
            hint="Wait until the release is ready (smoke_test does) and check its URL.",
        ) from error
    except NoAnswerError:
        pass  # the load says how often that happens


def _run(root: str, golden: Golden, options: LoadOptions) -> Mapping[str, Any]:
    settings = options.model_dump(exclude={"limits", "payloads", "rows_per_request"})
    job = {**settings, "root": root, "token": service_token(), "golden": golden.to_dict()}
    lasts = options.ramp_seconds + options.duration_seconds + options.timeout_seconds
    done = run_program(
        [sys.executable, "-P", str(_PROGRAM)],
        doing="The load test",
        directory=Path(tempfile.gettempdir()),
        # No proxies: the service is asked directly, as by the other checks.
        environment=clean_environment(_CERTIFICATES),
        seconds=lasts + _SLACK_SECONDS,
        given=json.dumps(job).encode(),
        error=CheckError,
        hint="Ask with fewer users, or for a shorter time.",
    )
    try:
        if done.status:
            raise ValueError
        return parse_json(done.output.encode())
    except ValueError as error:
        raise CheckError(
            f"The load test could not be carried out: {done.last_lines(1)}",
            hint="It needs locust, which is part of kfp-bento[runtime].",
        ) from error


def _report(root: str, golden: Golden, options: LoadOptions, samples: Samples) -> CheckReport:
    measures = load_measures(samples)
    limits = [_held(limit, measures) for limit in options.limits.each()]
    broken = [one for one in limits if "reason" in one]
    failures = [dict(one) for one in samples.failures]
    load = {
        "asked": {
            **options.model_dump(exclude={"limits"}),
            "requests": len(golden.requests),
            "ended_by": "max_requests" if samples.enough else "time",
            "asker_was_busy": samples.busy,
        },
        "over_time": over_time(samples),
        "histogram": histogram(samples),
    }
    evidence = (*broken, *failures, {"limits": limits}, load)
    return CheckReport(
        name=NAME,
        passed=not broken and bool(measures["requests"]),
        summary=_summary(options, measures, broken, samples),
        measures=measures,
        evidence=tuple(json_value(entry) for entry in evidence),
        model_digests=golden.digests,
        url=root,
    )


def _held(limit: Limit, measures: Mapping[str, float]) -> dict[str, Any]:
    """Give a limit with what was measured, and the reason if it does not hold."""
    measured = measures.get(limit.measure)
    word = "at most" if limit.most else "at least"
    found = {
        "limit": limit.measure,
        "bound": word,
        "request": limit.measure,
        "path": "",
        "served": measured,
        "expected": limit.bound,
    }
    if measured is None:
        return {**found, "reason": "nothing was measured"}
    if limit.holds(measured):
        return found
    return {**found, "reason": f"{measured:g}, {word} {limit.bound:g} is allowed"}


def _summary(
    options: LoadOptions,
    measures: Mapping[str, float],
    broken: list[dict[str, Any]],
    samples: Samples,
) -> str:
    count = int(measures["requests"])
    who = f"{options.users} users" if options.users > 1 else "One user"
    if not count:
        return f"{who} made no request that ended within {measures['seconds']:.0f} s."
    seconds = measures["seconds"]
    text = (
        f"{who} made {count:,} requests in {seconds:.{0 if seconds >= 10 else 1}f} s: "
        f"{measures['requests_per_second']:,.1f} right answers a second, half of all within "
        f"{measures['p50_ms']:.1f} ms and 95 in 100 within {measures['p95_ms']:.1f} ms"
    )
    text += (
        f", {int(measures['failures']):,} failed. " if measures["failures"] else ", none failed. "
    )
    reasons = "; ".join(f"{one['limit']}: {one['reason']}" for one in broken)
    text += f"Not within its limits: {reasons}." if broken else "It holds its limits."
    if samples.busy:
        text += " The process that asked was at its own limit; the service may be faster than this."
    return text
