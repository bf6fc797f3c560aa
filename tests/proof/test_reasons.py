"""What a log says of a failure, in one line."""

from __future__ import annotations

import pytest

from kfp_bento.runtime.proof.reasons import essential_line

TRACEBACK = """\
2026-01-01 [INFO] starting
Traceback (most recent call last):
  File "service.py", line 3, in <module>
    raise ValueError("x")
"""


@pytest.mark.parametrize(
    ("log", "line"),
    [
        ("", ""),
        ("one\n\ntwo.\n", "two"),
        (f"{TRACEBACK}ValueError: the file is cut short.\n", "ValueError: the file is cut short"),
        (f"{TRACEBACK}joblib.externals.UnpicklingError: bad\nbye\n", "UnpicklingError: bad"),
        (
            f"{TRACEBACK}ModuleNotFoundError: No module named 'sklearn.base'\n\nDuring handling\n"
            "bentoml.exceptions.ImportServiceError: Failed to import module: No module named 'x'\n",
            "the package of the module 'sklearn.base' is not in the lock",
        ),
        (
            f"{TRACEBACK}KeyError: 'a'\nImportServiceError: Failed\n",
            "KeyError: 'a'",
        ),
        (f"{TRACEBACK}ValueError: \x1b[31mred\x1b[0m\n", "ValueError: red"),
        (f"{TRACEBACK}ValueError: {'x' * 1000}\n", f"ValueError: {'x' * 388} ..."),
    ],
)
def test_the_essential_line_of_a_log(log: str, line: str) -> None:
    assert essential_line(log) == line
