"""What `make audit` says of pip-audit's report, whose form is that of pip-audit 2.10."""

from __future__ import annotations

import pytest
from audit_dependencies import FOUND, NOTHING_JUDGED, told

CLEAN = {"name": "six", "version": "1.17.0", "vulns": []}
HOLED = {
    "name": "jinja2",
    "version": "3.0.0",
    "vulns": [
        {
            "id": "PYSEC-2024-1",
            "fix_versions": ["3.1.3"],
            "aliases": ["CVE-2024-22195"],
            "description": "…",
        }
    ],
}
UNKNOWN = {"name": "numpy", "skip_reason": "Dependency not found on PyPI"}


@pytest.mark.parametrize(
    ("packages", "said", "status"),
    [
        ([CLEAN], "1 of 1 packages judged, 0 holes", 0),
        ([CLEAN, UNKNOWN], "not judged, the index has no data: numpy", 0),
        ([CLEAN, HOLED], "jinja2 3.0.0: PYSEC-2024-1, CVE-2024-22195; mended in 3.1.3", FOUND),
        ([UNKNOWN], "0 of 1 packages judged", NOTHING_JUDGED),
        ([UNKNOWN, HOLED], "1 of 2 packages judged, 1 holes", FOUND),
    ],
)
def test_holes_and_what_nobody_could_judge_are_told(packages: list, said: str, status: int) -> None:
    text, ended = told("requirements.txt", {"dependencies": packages})
    assert said in text
    assert ended == status
