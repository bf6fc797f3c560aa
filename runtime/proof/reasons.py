"""Why a program failed, in one sentence out of its log."""

from __future__ import annotations

import re

from kfp_bento.runtime.programs import cleaned

_LONGEST = 400
# The last line of a traceback, also behind the columns of a logger.
_FAILURE = re.compile(
    r"^\s*(?:[A-Za-z_][\w.]*\.)?(?P<name>[A-Z]\w*(?:Error|Exception|Exit|Interrupt|Failure|Invalid\w*"
    r"|Argument|Warning)): (?P<said>.+)$"
)
_MISSING = re.compile(r"No module named '(?P<module>[\w.]+)'")
_NOT_THE_REASON = ("ImportServiceError", "SystemExit")


def essential_line(log: str) -> str:
    """Give what a log says of the failure: a missing package, else the last exception.

    Args:
        log: What a Python program printed.

    Returns:
        A part of a sentence without a full stop; "" where the log says nothing.
    """
    lines = [line.rstrip() for line in cleaned(log).splitlines() if line.strip()]
    found = [match for line in lines if (match := _FAILURE.match(line))]
    for match in found:
        if missing := _MISSING.search(match["said"]):
            return f"the package of the module {missing['module']!r} is not in the lock"
    reasons = [match for match in found if match["name"] not in _NOT_THE_REASON] or found
    if reasons:
        return _short(f"{reasons[-1]['name']}: {reasons[-1]['said']}")
    return _short(lines[-1].strip()) if lines else ""


def _short(text: str) -> str:
    one = " ".join(text.split()).rstrip(".")
    return one if len(one) <= _LONGEST else f"{one[:_LONGEST]} ..."
