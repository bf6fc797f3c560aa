"""Whether the rows of a request depend on each other, by the right answers to them."""

from __future__ import annotations

from collections.abc import Sequence

from kfp_bento.runtime.proof.comparing import row_difference
from kfp_bento.runtime.proof.differences import Tolerance
from kfp_bento.runtime.proof.golden import DEPENDENT, INDEPENDENT, UNKNOWN, GoldenRequest


def row_independence(requests: Sequence[GoldenRequest], tolerance: Tolerance) -> tuple[str, str]:
    """Say whether rows that were asked one by one and together have the same right answers.

    Returns:
        "independent", "dependent" or "unknown", and why, in one sentence.
    """
    wholes = [one for one in requests if one.row is None and (one.rows or 0) > 1 and one.answer]
    checked = 0
    for whole in wholes:
        singles = {
            one.row: one.answer.content.value
            for one in requests
            if one.row is not None and one.model == whole.model and one.answer is not None
        }
        assert whole.answer is not None  # noqa: S101 - chosen so above
        try:
            found = row_difference(whole.answer.content.value, singles, tolerance)
        except LookupError:
            return DEPENDENT, f"The answer to {whole.label} has not one value per row."
        if found:
            row, difference = found
            return DEPENDENT, (
                f"Row {row} of {whole.source} is answered otherwise by itself than among the "
                f"others: {difference.reason}."
            )
        checked += len(singles)
    if not checked:
        return UNKNOWN, "No request has more than one row that could be asked by itself."
    return INDEPENDENT, f"{checked} rows have the same answers one by one and together."
