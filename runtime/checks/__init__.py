"""Checks: what is served is ready, answers sensibly, and as it did when the bento was proven.

So are what its answers are worth on labelled data, and whether data look as they did in training. A
check that ran is a `CheckReport`, passed or not; one that could not run is a `CheckError`.
"""

from kfp_bento.runtime.checks.check_report import CheckReport
from kfp_bento.runtime.checks.comparison import compare_predictions
from kfp_bento.runtime.checks.contract import (
    check_contract,
    contract_of,
    load_contract,
    load_given_contract,
)
from kfp_bento.runtime.checks.drift import DriftOptions, detect_drift
from kfp_bento.runtime.checks.limits import written_limits
from kfp_bento.runtime.checks.load import load_test
from kfp_bento.runtime.checks.load_options import LoadOptions
from kfp_bento.runtime.checks.metrics import (
    Metrics,
    MetricsOptions,
    MetricsOutcome,
    check_metrics,
    given_champion,
)
from kfp_bento.runtime.checks.model_statistics import (
    STATISTICS,
    find_statistics,
    given_statistics,
)
from kfp_bento.runtime.checks.recording import Recording, record_examples, recording_proxy
from kfp_bento.runtime.checks.release_check import NAMES, check_release
from kfp_bento.runtime.checks.release_reports import (
    ReleaseReports,
    given_report,
    load_given_reports,
)
from kfp_bento.runtime.checks.scores import class_scores, confusion, number_scores
from kfp_bento.runtime.checks.smoke import smoke_test
from kfp_bento.runtime.checks.statistics import Statistics, describe_data
from kfp_bento.runtime.checks.subjects import Subject
from kfp_bento.runtime.checks.tasks import CLASSIFICATION, TASKS, looks_like

__all__ = [
    "CLASSIFICATION",
    "NAMES",
    "STATISTICS",
    "TASKS",
    "CheckReport",
    "DriftOptions",
    "LoadOptions",
    "Metrics",
    "MetricsOptions",
    "MetricsOutcome",
    "Recording",
    "ReleaseReports",
    "Statistics",
    "Subject",
    "check_contract",
    "check_metrics",
    "check_release",
    "class_scores",
    "compare_predictions",
    "confusion",
    "contract_of",
    "describe_data",
    "detect_drift",
    "find_statistics",
    "given_champion",
    "given_report",
    "given_statistics",
    "load_contract",
    "load_given_contract",
    "load_given_reports",
    "load_test",
    "looks_like",
    "number_scores",
    "record_examples",
    "recording_proxy",
    "smoke_test",
    "written_limits",
]
