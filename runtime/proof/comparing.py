"""An answer beside the one that is right for its request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.proof.content import Content
from kfp_bento.runtime.proof.differences import Difference, Tolerance, differences

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kfp_bento.runtime.http import HttpAnswer
    from kfp_bento.runtime.proof.golden import GoldenAnswer

_LONGEST = 200


VALUE, KIND = "value", "kind"
"""How answers are compared: by what they say, or by their status and media type alone."""


def answer_differences(
    answer: HttpAnswer, right: GoldenAnswer, tolerance: Tolerance, compare: str = VALUE
) -> list[Difference]:
    """Give where an answer is not the right one; floats within the tolerance without a reason."""
    wanted = right.content
    if answer.status != right.status:
        reason = f"status {answer.shown()}"
        reason += "" if right.status == 200 else f", not {right.status}"
        return [Difference((), None, _shown(wanted), reason)]
    served = Content.of(answer.body, answer.media_type)
    if served.form != wanted.form and wanted.form == "json":
        return [Difference((), None, _shown(wanted), f"no JSON: {answer.shown()}")]
    if served.media_type != wanted.media_type and (wanted.media_type or compare == VALUE):
        reason = f"{served.media_type or 'no media type'} instead of {wanted.media_type}"
        return [Difference((), _shown(served), _shown(wanted), reason)]
    if right.status >= 400 or compare == KIND:
        return []  # what a refusal says is for people
    if wanted.form == "json":
        return list(differences(served.value, wanted.value, tolerance))
    if served != wanted:
        return [Difference((), _shown(served), _shown(wanted), "other content")]
    return []


def _shown(content: Content) -> Any:
    """Give a content for people: JSON whole, others by their beginning."""
    return content.value if content.form == "json" else str(content.value)[:_LONGEST]


def row_of(answer: Any, row: int) -> Any:
    """Give one row of an answer, in the form of an answer to that row alone.

    Raises:
        LookupError: It has no such row.
    """
    if isinstance(answer, list):
        return [answer[row]]
    if isinstance(answer, dict):
        return {name: row_of(column, row) for name, column in answer.items()}
    raise LookupError(row)


def row_difference(
    whole: Any, singles: Mapping[int, Any], tolerance: Tolerance
) -> tuple[int, Difference] | None:
    """Give the first row whose answer is another one when it is asked by itself; None if none.

    Args:
        whole: The answer to all rows at once.
        singles: The answers to single rows, by their index.
        tolerance: How far floats may be away.

    Raises:
        LookupError: The answer has not one value per row.
    """
    for row, alone in singles.items():
        for difference in differences(alone, row_of(whole, row), tolerance):
            if difference.reason:
                return row, difference
    return None


def in_words(label: str, found: Sequence[Difference]) -> str:
    """Give the first of some mismatches as a part of a sentence."""
    first = found[0]
    path = "".join(f"[{step!r}]" for step in first.path)
    return f"{label}{path}: {first.reason}"
