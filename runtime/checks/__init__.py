"""Checks: what is served is ready, answers sensibly, and as it did when the bento was proven.

A check that ran is a `CheckReport`, passed or not; one that could not run is a `CheckError`.
"""

from kfp_bento.runtime.checks.check_report import CheckReport
from kfp_bento.runtime.checks.comparison import compare_predictions
from kfp_bento.runtime.checks.contract import (
    check_contract,
    contract_of,
    load_contract,
    load_given_contract,
)
from kfp_bento.runtime.checks.load import load_test
from kfp_bento.runtime.checks.load_options import LoadOptions
from kfp_bento.runtime.checks.recording import Recording, record_examples, recording_proxy
from kfp_bento.runtime.checks.release_check import NAMES, check_release
from kfp_bento.runtime.checks.release_reports import (
    ReleaseReports,
    given_report,
    load_given_reports,
)
from kfp_bento.runtime.checks.smoke import smoke_test

__all__ = [
    "NAMES",
    "CheckReport",
    "LoadOptions",
    "Recording",
    "ReleaseReports",
    "check_contract",
    "check_release",
    "compare_predictions",
    "contract_of",
    "given_report",
    "load_contract",
    "load_given_contract",
    "load_given_reports",
    "load_test",
    "record_examples",
    "recording_proxy",
    "smoke_test",
]
