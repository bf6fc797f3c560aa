"""Served answers against the golden ones, for the same requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.checks.check_report import CheckReport, json_value
from kfp_bento.runtime.checks.served_model import send, service_root
from kfp_bento.runtime.errors import CheckError
from kfp_bento.runtime.http import NoAnswerError, NoConnectionError
from kfp_bento.runtime.proof import Content, Difference, answer_differences

if TYPE_CHECKING:
    from kfp_bento.runtime.proof import Golden, GoldenRequest

NAME = "compare_predictions"
_MOST_MISMATCHES = 10
_SAMPLE_ROWS = 10
_LONGEST_TEXT = 500


@dataclass(frozen=True)
class _Comparison:
    """One golden request, what was served for it, and where that differs."""

    request: GoldenRequest
    served: Any
    found: Sequence[Difference]

    @property
    def expected(self) -> Any:
        return _for_people(self.request.answer.content) if self.request.answer else None

    @property
    def mismatches(self) -> list[Difference]:
        return [difference for difference in self.found if difference.reason]


def compare_predictions(url: str, golden: Golden, *, timeout: float = 60.0) -> CheckReport:
    """Compare a service with the golden answers of its bento: same requests, same answers.

    Where the golden answers are those of `mlflow.pyfunc`, this says that the service answers as
    the registry's model predicts.

    Args:
        url: Root of the service, as a release names it.
        golden: What the bento was proven with, and how far floats may be away.
        timeout: Seconds for each answer.

    Returns:
        The report, with the measures `rows`, `requests`, `mismatches`, `max_abs_error` and
        `max_rel_error` (over finite floats; relative where the expected value is not 0).
        Its evidence is the first mismatches and one entry with `"sample": true` that holds
        `served` and `expected` side by side. Where the bento was built with verify off there is
        nothing to compare, and the report did not pass.

    Raises:
        CheckError: There is no URL, or nothing answers there.
    """
    root = service_root(url)
    requests = golden.answered
    if not requests:
        return CheckReport(
            name=NAME,
            passed=False,
            summary=f"There is nothing to compare: {golden.reason}",
            measures={"requests": 0.0},
            evidence=(),
            model_digests=golden.digests,
            url=root,
        )
    return _report(golden, root, [_compare(root, one, golden, timeout) for one in requests])


def _compare(root: str, request: GoldenRequest, golden: Golden, timeout: float) -> _Comparison:
    assert request.answer is not None  # noqa: S101 - chosen so by the caller
    try:
        answer = send(root, request, timeout)
    except NoConnectionError as error:
        raise CheckError(
            f"Nothing answers at {root}{request.path}: {error}",
            hint="Wait until the release is ready (smoke_test does) and check its URL.",
        ) from error
    except NoAnswerError as error:
        expected = _for_people(request.answer.content)
        return _Comparison(request, None, [Difference((), None, expected, str(error))])
    found = answer_differences(answer, request.answer, golden.tolerance, request.compare)
    served = None
    if not any(one.reason.startswith(("status ", "no JSON")) for one in found):
        served = _for_people(Content.of(answer.body, answer.media_type))
    return _Comparison(request, served, found)


def _report(golden: Golden, root: str, compared: Sequence[_Comparison]) -> CheckReport:
    found = [difference for one in compared for difference in one.found]
    mismatches = [
        _shown(one.request, difference) for one in compared for difference in one.mismatches
    ]
    whole = [one.request.rows for one in compared if one.request.row is None]
    measures = {
        "rows": float(sum(1 if rows is None else rows for rows in whole)),
        "requests": float(len(compared)),
        "mismatches": float(len(mismatches)),
        "max_abs_error": max((difference.absolute for difference in found), default=0.0),
        "max_rel_error": max((difference.relative for difference in found), default=0.0),
    }
    asked = f"{len(compared)} requests" if len(compared) > 1 else "one request"
    subject = _subject(golden, compared)
    if mismatches:
        first = mismatches[0]
        summary = (
            f"{len(mismatches)} served values differ from {subject}, in {asked}; "
            f"the first, {first['request']}{first['path']}: {first['reason']}."
        )
    else:
        summary = f"All served values are {subject}, in {asked}."
    sample = {
        "sample": True,
        "request": compared[0].request.label,
        "served": _beginning(compared[0].served),
        "expected": _beginning(compared[0].expected),
    }
    return CheckReport(
        name=NAME,
        passed=not mismatches,
        summary=summary,
        measures=measures,
        evidence=tuple(json_value(entry) for entry in (*mismatches[:_MOST_MISMATCHES], sample)),
        model_digests=golden.digests,
        url=root,
    )


def _subject(golden: Golden, compared: Sequence[_Comparison]) -> str:
    """Say what the answers were compared with."""
    by_service = [one for one in compared if not one.request.is_predicted]
    if len(by_service) == len(compared):
        return f"what the bento {golden.bento} answered when it was built"
    named = [_with_version(model.uri, model.version) for model in golden.models]
    subject = f"what the model{'s' if len(named) > 1 else ''} {' and '.join(named)} predict"
    subject += "" if len(named) > 1 else "s"
    return f"{subject} or the bento answered when it was built" if by_service else subject


def _with_version(uri: str, version: str) -> str:
    """Name a model's version where its URI leaves it open, as an alias does."""
    said = not version or uri.endswith(f"/{version}")
    return uri if said else f"{uri} (version {version})"


def _shown(request: GoldenRequest, difference: Difference) -> dict[str, Any]:
    first = difference.path[0] if difference.path else None
    row = first if request.row is None else request.row
    return {
        "request": request.label,
        "row": row if isinstance(row, int) else None,
        "path": "".join(f"[{step!r}]" for step in difference.path),
        "served": _beginning(difference.served),
        "expected": _beginning(difference.expected),
        "reason": difference.reason,
    }


def _for_people(content: Content) -> Any:
    return content.value if content.form == "json" else str(content.value)[:_LONGEST_TEXT]


def _beginning(value: Any) -> Any:
    """Give the first rows of an answer, for people."""
    if isinstance(value, list):
        return value[:_SAMPLE_ROWS]
    if isinstance(value, Mapping):
        return {key: _beginning(item) for key, item in value.items()}
    return value
