"""Checks: what is served is ready, answers sensibly, and as it did when the bento was proven.

A check that ran is a `CheckReport`, passed or not; one that could not run is a `CheckError`.
"""

from kfp_bento.runtime.checks.check_report import CheckReport
from kfp_bento.runtime.checks.comparison import compare_predictions
from kfp_bento.runtime.checks.recording import Recording, record_examples, recording_proxy
from kfp_bento.runtime.checks.smoke import smoke_test

__all__ = [
    "CheckReport",
    "Recording",
    "compare_predictions",
    "record_examples",
    "recording_proxy",
    "smoke_test",
]
