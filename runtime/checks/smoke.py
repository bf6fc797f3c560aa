"""The smoke test: the service becomes ready and answers one real request to each model sensibly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.checks.check_report import CheckReport, json_value
from kfp_bento.runtime.checks.readiness import wait_for_readyz
from kfp_bento.runtime.checks.served_model import send, service_root
from kfp_bento.runtime.http import HttpAnswer, NoAnswerError, NoConnectionError
from kfp_bento.runtime.proof import SYNTHETIC, Content, answer_problems

if TYPE_CHECKING:
    from kfp_bento.runtime.proof import Golden, GoldenRequest

NAME = "smoke_test"
_SHOWN_ROWS = 5


def smoke_test(url: str, golden: Golden, *, timeout: float = 120.0) -> CheckReport:
    """Wait for `/readyz`, then send the first golden request of each path.

    The answers must have the status and media type that they had when the bento was proven, and
    what models answer must be one value per row and of the types that their signatures promise.

    Args:
        url: Root of the service, as a release names it.
        golden: What the bento was proven with.
        timeout: Seconds for becoming ready and, anew, for each answer.

    Returns:
        The report, with the measures `seconds_to_ready`, `request_ms` and `rows`. A service
        that is not ready in time or answers wrongly is a report that did not pass.

    Raises:
        CheckError: There is no URL.
    """
    root = service_root(url)
    readiness = wait_for_readyz(root, timeout)
    report = CheckReport(
        name=NAME,
        passed=False,
        summary=f"The service at {root} was not ready after {readiness.seconds:.1f} s. "
        f"Its last answer to /readyz: {readiness.last_answer}",
        measures={"seconds_to_ready": round(readiness.seconds, 3)},
        evidence=(),
        model_digests=golden.digests,
        url=root,
    )
    if not readiness.ready:
        return report
    first: dict[str, GoldenRequest] = {}
    for request in golden.requests:
        first.setdefault(request.place, request)
    if not first:
        summary = f"Ready after {readiness.seconds:.1f} s. Nothing is known that could be asked"
        return replace(report, passed=True, summary=f"{summary}: {golden.reason}")
    for request in first.values():
        report = _ask(report, request, golden, timeout)
        if not report.passed:
            return report
    return report if golden.is_verified else _unverified(report, golden)


def _unverified(report: CheckReport, golden: Golden) -> CheckReport:
    return replace(report, summary=f"{report.summary} {golden.reason}")


def _ask(
    report: CheckReport, request: GoldenRequest, golden: Golden, timeout: float
) -> CheckReport:
    """Send one request, and give the report with what came of it."""
    evidence: dict[str, Any] = {"endpoint": request.path, "request": _some_rows(request)}
    try:
        answer = send(report.url, request, timeout)
    except (NoConnectionError, NoAnswerError) as error:
        evidence["problem"] = str(error)
        summary = f"The service became ready, but {request.place} got no answer: {error}."
        return replace(report, passed=False, summary=summary, evidence=(json_value(evidence),))
    problems, served = _problems(answer, request, golden)
    evidence |= {"served": served, "problems": problems} if problems else {"served": served}
    rows = request.rows
    if problems:
        summary = f"{request.place} answered wrongly: {'; '.join(problems)}."
    else:
        promised = "as the signature promises" if request.is_predicted else "as when it was built"
        summary = (
            f"Ready after {report.measures['seconds_to_ready']:.1f} s; {request.place} answered "
            f"{'the request' if rows is None else f'{rows} rows'} "
            f"in {answer.milliseconds:.0f} ms {promised}."
        )
    measures = {**report.measures, "request_ms": round(answer.milliseconds, 3)}
    if rows is not None:
        measures["rows"] = measures.get("rows", 0.0) + rows
    return replace(
        report,
        passed=not problems,
        summary=summary,
        measures=measures,
        evidence=(*report.evidence, json_value(evidence)),
    )


def _problems(answer: HttpAnswer, request: GoldenRequest, golden: Golden) -> tuple[list[str], Any]:
    right = request.answer
    if right is None and request.source == SYNTHETIC and 400 <= answer.status < 500:
        return [], None  # made-up values may be refused
    if answer.status != (200 if right is None else right.status):
        return [f"the status is {answer.shown()}"], None
    content = Content.of(answer.body, answer.media_type)
    shown = _beginning(content)
    if right is not None and not request.is_predicted:
        wanted = right.content.media_type
        if content.media_type != wanted:
            named = content.media_type or "none"
            return [f"the media type is {named}, not {wanted}"], shown
        return [], shown
    if not request.is_predicted:
        return [], shown
    if content.form != "json":
        return [f"the body is no JSON: {answer.shown()}"], None
    return answer_problems(content.value, golden.signature_of(request), request.rows), shown


def _beginning(content: Content) -> Any:
    value = content.value
    return value[:_SHOWN_ROWS] if isinstance(value, list) else value


def _some_rows(request: GoldenRequest) -> Any:
    """Give the request with its first rows only, for people."""
    content = request.content
    if content is None:
        return None
    body = content.value if content.form == "json" else content.to_dict()
    inputs = body.get("inputs") if isinstance(body, Mapping) else None
    shown = {**body, "inputs": inputs[:_SHOWN_ROWS]} if isinstance(inputs, list) else body
    return shown if len(json.dumps(shown, default=str)) < 10_000 else "too long to show"
