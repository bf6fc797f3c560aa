"""The smoke test: the service becomes ready and answers one real request sensibly."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.checks.answer_types import answer_problems, count_rows
from kfp_bento.runtime.checks.check_report import CheckReport, json_value
from kfp_bento.runtime.checks.readiness import wait_for_readyz
from kfp_bento.runtime.checks.request_body import model_request
from kfp_bento.runtime.checks.served_model import post_json, service_root
from kfp_bento.runtime.files import parse_json_value
from kfp_bento.runtime.http import HttpAnswer, NoAnswerError, NoConnectionError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kfp_bento.runtime.models import ModelVersion

NAME = "smoke_test"
_SHOWN_ROWS = 5


def smoke_test(
    url: str,
    model: ModelVersion,
    *,
    request: Mapping[str, Any] | None = None,
    endpoint: str = "/predict",
    timeout: float = 120.0,
) -> CheckReport:
    """Wait for `/readyz`, then send one request made of the model's own input example.

    The answer must be 200, JSON, one value per row and of the types that the model's
    signature promises.

    Args:
        url: Root of the service, as a release names it.
        model: The model that is served.
        request: Body to send instead; `request["inputs"]` must be what the model gets.
        endpoint: Path that takes the request.
        timeout: Seconds for becoming ready and, anew, for the answer.

    Returns:
        The report, with the measures `seconds_to_ready`, `request_ms` and `rows`. A service
        that is not ready in time or answers wrongly is a report that did not pass.

    Raises:
        CheckError: There is no URL, or the model has no input example and no `request` is given.
    """
    root = service_root(url)
    body = model_request(model, request)
    readiness = wait_for_readyz(root, timeout)
    report = CheckReport(
        name=NAME,
        passed=False,
        summary=f"The service at {root} was not ready after {readiness.seconds:.1f} s. "
        f"Its last answer to /readyz: {readiness.last_answer}",
        measures={"seconds_to_ready": round(readiness.seconds, 3)},
        evidence=(),
        model_digest=model.digest,
        url=root,
    )
    if not readiness.ready:
        return report
    return _ask(report, f"/{endpoint.lstrip('/')}", body, model, timeout)


def _ask(
    report: CheckReport, endpoint: str, body: Mapping[str, Any], model: ModelVersion, timeout: float
) -> CheckReport:
    """Send the request, and give the report with what came of it."""
    evidence: dict[str, Any] = {"endpoint": endpoint, "request": _some_rows(body)}
    try:
        answer = post_json(f"{report.url}{endpoint}", body, timeout)
    except (NoConnectionError, NoAnswerError) as error:
        evidence["problem"] = str(error)
        summary = f"The service became ready, but POST {endpoint} got no answer: {error}."
        return replace(report, summary=summary, evidence=(json_value(evidence),))
    rows = count_rows(body.get("inputs"), model.signature)
    problems, served = _problems(answer, model, rows)
    evidence |= {"served": served, "problems": problems} if problems else {"served": served}
    if problems:
        summary = f"POST {endpoint} answered wrongly: {'; '.join(problems)}."
    else:
        summary = (
            f"Ready after {report.measures['seconds_to_ready']:.1f} s; POST {endpoint} answered "
            f"{'the request' if rows is None else f'{rows} rows'} "
            f"in {answer.milliseconds:.0f} ms as the signature promises."
        )
    measures = {**report.measures, "request_ms": round(answer.milliseconds, 3)}
    if rows is not None:
        measures["rows"] = float(rows)
    return replace(
        report,
        passed=not problems,
        summary=summary,
        measures=measures,
        evidence=(json_value(evidence),),
    )


def _problems(answer: HttpAnswer, model: ModelVersion, rows: int | None) -> tuple[list[str], Any]:
    if answer.status != 200:
        return [f"the status is {answer.shown()}"], None
    try:
        served = parse_json_value(answer.body, nan=True)
    except ValueError:
        return [f"the body is no JSON: {answer.shown()}"], None
    shown = served[:_SHOWN_ROWS] if isinstance(served, list) else served
    return answer_problems(served, model.signature, rows), shown


def _some_rows(body: Mapping[str, Any]) -> Any:
    """Give the request with its first rows only, for people."""
    inputs = body.get("inputs")
    shown = {**body, "inputs": inputs[:_SHOWN_ROWS]} if isinstance(inputs, list) else dict(body)
    return shown if len(json.dumps(shown, default=str)) < 10_000 else "too long to show"
