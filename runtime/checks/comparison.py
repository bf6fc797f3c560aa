"""Served answers against the registry model's own predictions, for the same requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.checks.answer_types import count_rows
from kfp_bento.runtime.checks.check_report import CheckReport, json_value
from kfp_bento.runtime.checks.differences import Difference, Tolerance, differences
from kfp_bento.runtime.checks.expected import expected_answers
from kfp_bento.runtime.checks.request_body import model_request, single_rows
from kfp_bento.runtime.checks.served_model import post_json, service_root
from kfp_bento.runtime.errors import CheckError
from kfp_bento.runtime.files import parse_json_value
from kfp_bento.runtime.http import NoAnswerError, NoConnectionError

if TYPE_CHECKING:
    from kfp_bento.runtime.models import ModelVersion

NAME = "compare_predictions"
MOST_SINGLE_ROWS = 20
_MOST_MISMATCHES = 10
_SAMPLE_ROWS = 10


@dataclass(frozen=True)
class _Comparison:
    """One request: what it asked, what was served, what was expected, where they differ."""

    label: str
    served: Any
    expected: Any
    found: tuple[Difference, ...]

    @property
    def mismatches(self) -> list[Difference]:
        return [difference for difference in self.found if difference.reason]


def compare_predictions(
    url: str,
    model: ModelVersion,
    *,
    request: Mapping[str, Any] | None = None,
    endpoint: str = "/predict",
    relative_tolerance: float = 1e-6,
    absolute_tolerance: float = 1e-9,
    timeout: float = 60.0,
    allow_sources: Sequence[str] = (),
) -> CheckReport:
    """Compare a service with the model in the registry: same requests, same answers.

    The requests are all rows of the model's input example at once, then one by one (the
    first 20). The expected answers come from `mlflow.pyfunc` on `model.directory`, in a
    process of its own.

    Args:
        url: Root of the service, as a release names it.
        model: The model that the service should serve.
        request: Body to send instead of the input example. The rule for services of one's
            own: `request["inputs"]` (and `request["params"]`) is what the model itself
            gets, and the answer is what it predicts.
        endpoint: Path that takes the request.
        relative_tolerance: Allowed distance of floats, in relation to the expected value.
        absolute_tolerance: Allowed distance of floats besides. Integers, strings and
            booleans must be equal; NaN equals NaN and null.
        timeout: Seconds for each answer.
        allow_sources: What the model's requirements may name besides names and versions, as for
            `build_bento`; counts where an environment is made for the model.

    Returns:
        The report, with the measures `rows`, `requests`, `mismatches`, `max_abs_error` and
        `max_rel_error` (over finite floats; relative where the expected value is not 0).
        Its evidence is the first mismatches and one entry with `"sample": true` that holds
        `served` and `expected` side by side.

    Raises:
        CheckError: There is no URL or nothing answers there, there is no request, or the
            model itself cannot answer it.
    """
    root = service_root(url)
    body = _request_for_both(model, request)
    rows = count_rows(body["inputs"], model.signature)
    bodies = [body]
    if rows is not None and rows > 1:
        bodies += single_rows(body, rows, MOST_SINGLE_ROWS)
    target = f"{root}/{endpoint.lstrip('/')}"
    answers = [_ask(target, one, timeout) for one in bodies]
    expected = expected_answers(model, bodies, allow_sources)
    tolerance = Tolerance(relative_tolerance, absolute_tolerance)
    labels = ["all rows", *(f"row {index}" for index in range(len(bodies) - 1))]
    compared = [
        _compare(label, served, problem, wanted, tolerance)
        for label, (served, problem), wanted in zip(labels, answers, expected, strict=True)
    ]
    return _report(model, root, compared, rows)


def _request_for_both(model: ModelVersion, request: Mapping[str, Any] | None) -> dict[str, Any]:
    body = model_request(model, request)
    if "inputs" not in body:
        raise CheckError(
            'The request has no "inputs", so the model itself cannot be asked the same.',
            hint='Put what the model gets under "inputs".',
        )
    return body


def _ask(url: str, body: Mapping[str, Any], timeout: float) -> tuple[Any, str]:
    """Give the served answer, and what is wrong when there is none to compare."""
    try:
        answer = post_json(url, body, timeout)
    except NoConnectionError as error:
        raise CheckError(
            f"Nothing answers at {url}: {error}",
            hint="Wait until the release is ready (smoke_test does) and check its URL.",
        ) from error
    except NoAnswerError as error:
        return None, str(error)
    if answer.status != 200:
        return None, f"status {answer.shown()}"
    try:
        return parse_json_value(answer.body, nan=True), ""
    except ValueError:
        return None, f"no JSON: {answer.shown()}"


def _compare(
    label: str, served: Any, problem: str, expected: Any, tolerance: Tolerance
) -> _Comparison:
    if problem:
        return _Comparison(label, None, expected, (Difference((), None, expected, problem),))
    return _Comparison(label, served, expected, tuple(differences(served, expected, tolerance)))


def _report(
    model: ModelVersion, root: str, compared: Sequence[_Comparison], rows: int | None
) -> CheckReport:
    found = [difference for one in compared for difference in one.found]
    mismatches = [
        _shown(one.label, difference) for one in compared for difference in one.mismatches
    ]
    measures = {
        "rows": float(1 if rows is None else rows),
        "requests": float(len(compared)),
        "mismatches": float(len(mismatches)),
        "max_abs_error": max((difference.absolute for difference in found), default=0.0),
        "max_rel_error": max((difference.relative for difference in found), default=0.0),
    }
    version = f" (version {model.version})" if model.version else ""
    subject = f"the model {model.uri}{version}"
    asked = f"{len(compared)} requests" if len(compared) > 1 else "one request"
    if mismatches:
        first = mismatches[0]
        summary = (
            f"{len(mismatches)} served values differ from what {subject} predicts, in {asked}; "
            f"the first, {first['request']}{first['path']}: {first['reason']}."
        )
    else:
        summary = f"All served values are what {subject} predicts, in {asked}."
    sample = {
        "sample": True,
        "request": compared[0].label,
        "served": _beginning(compared[0].served),
        "expected": _beginning(compared[0].expected),
    }
    return CheckReport(
        name=NAME,
        passed=not mismatches,
        summary=summary,
        measures=measures,
        evidence=tuple(json_value(entry) for entry in (*mismatches[:_MOST_MISMATCHES], sample)),
        model_digest=model.digest,
        url=root,
    )


def _shown(label: str, difference: Difference) -> dict[str, Any]:
    first = difference.path[0] if difference.path else None
    row = int(label.rpartition(" ")[2]) if label.startswith("row ") else first
    return {
        "request": label,
        "row": row if isinstance(row, int) else None,
        "path": "".join(f"[{step!r}]" for step in difference.path),
        "served": _beginning(difference.served),
        "expected": _beginning(difference.expected),
        "reason": difference.reason,
    }


def _beginning(value: Any) -> Any:
    """Give the first rows of an answer, for people."""
    if isinstance(value, list):
        return value[:_SAMPLE_ROWS]
    if isinstance(value, Mapping):
        return {key: _beginning(item) for key, item in value.items()}
    return value
