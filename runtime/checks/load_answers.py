"""Whether each of very many answers is right; the same answer is looked at once."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.checks.check_report import json_value
from kfp_bento.runtime.proof import SYNTHETIC, Content, answer_differences, answer_problems

if TYPE_CHECKING:
    from kfp_bento.runtime.http import HttpAnswer
    from kfp_bento.runtime.proof import Golden, GoldenRequest

_MOST_KNOWN = 64
_MOST_FAILURES = 10
_LONGEST_REASON = 500

Fact = dict[str, Any]


class Judge:
    """Says what is wrong with an answer to one of the requests of some golden answers.

    An answer is compared with the right one, floats within the tolerance. Where nobody knows the
    right one, it must have the form that the model's signature promises.
    """

    def __init__(self, golden: Golden) -> None:
        self._golden = golden
        self._right: dict[int, set[bytes]] = {}

    def problem(self, number: int, answer: HttpAnswer) -> Fact | None:
        """Give what is wrong with the answer to the request of this number; None if nothing is."""
        known = self._right.setdefault(number, set())
        digest = hashlib.blake2b(answer.body, digest_size=16)
        digest.update(f"{answer.status} {answer.media_type}".encode())
        if digest.digest() in known:
            return None
        found = self._looked_at(self._golden.requests[number], answer)
        if found is None and len(known) < _MOST_KNOWN:
            known.add(digest.digest())
        return found

    def _looked_at(self, request: GoldenRequest, answer: HttpAnswer) -> Fact | None:
        right = request.answer
        if right is not None:
            found = answer_differences(answer, right, self._golden.tolerance, request.compare)
            first = next((one for one in found if one.reason), None)
            if first is None:
                return None
            path = "".join(f"[{step!r}]" for step in first.path)
            return failure(request, first.reason, path, first.served, first.expected)
        reason = self._misfit(request, answer)
        return failure(request, reason) if reason else None

    def _misfit(self, request: GoldenRequest, answer: HttpAnswer) -> str:
        if request.source == SYNTHETIC and 400 <= answer.status < 500:
            return ""  # made-up values may be refused
        if answer.status != 200:
            return f"status {answer.shown()}"
        if not request.is_predicted:
            return ""
        content = Content.of(answer.body, answer.media_type)
        if content.form != "json":
            return f"no JSON: {answer.shown()}"
        signature = self._golden.signature_of(request)
        return "; ".join(answer_problems(content.value, signature, request.rows))


class Failures:
    """The first failures of each kind, with how often each was seen."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str, str], Fact] = {}

    def add(self, fact: Fact) -> None:
        """Take a failure."""
        key = (fact["request"], fact["path"], fact["reason"])
        if key in self._kept:
            self._kept[key]["count"] += 1
        elif len(self._kept) < _MOST_FAILURES:
            self._kept[key] = {**fact, "count": 1}

    def to_list(self) -> list[Fact]:
        """Give them in the order in which they came."""
        return list(self._kept.values())


def failure(
    request: GoldenRequest, reason: str, path: str = "", served: Any = None, expected: Any = None
) -> Fact:
    """Give a failed request as JSON values, in the form in which reports show differences."""
    return {
        "request": f"{request.place} ({request.label})",
        "path": path,
        "served": _short(served),
        "expected": _short(expected),
        "reason": reason[:_LONGEST_REASON],
    }


def _short(value: Any) -> Any:
    shown = json_value(value)
    text = str(shown)
    return shown if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}..."
