"""What people look at: Markdown summaries, metrics, and the report of a whole run."""

from kfp_bento.runtime.reports.files import write_json, write_text
from kfp_bento.runtime.reports.gates import (
    drift_page,
    metrics_page,
    write_drift_check,
    write_metrics_check,
)
from kfp_bento.runtime.reports.load_page import load_page
from kfp_bento.runtime.reports.metrics import check_metrics, image_metrics
from kfp_bento.runtime.reports.page import run_report
from kfp_bento.runtime.reports.promotion_page import write_promotion
from kfp_bento.runtime.reports.release_checks import (
    run_settled_summary,
    settled_summary,
    write_approval,
    write_checks,
)
from kfp_bento.runtime.reports.releases import (
    diff_summary,
    tell,
    tell_diff,
    write_deployment,
    write_roll_back,
)
from kfp_bento.runtime.reports.short_road import write_package, write_released
from kfp_bento.runtime.reports.signature import signature_fields
from kfp_bento.runtime.reports.summaries import (
    check_summary,
    image_summary,
    load_summary,
    scan_summary,
)
from kfp_bento.runtime.reports.wording import gathered, human_bytes, measures, shortened

__all__ = [
    "check_metrics",
    "check_summary",
    "diff_summary",
    "drift_page",
    "gathered",
    "human_bytes",
    "image_metrics",
    "image_summary",
    "load_page",
    "load_summary",
    "measures",
    "metrics_page",
    "run_report",
    "run_settled_summary",
    "scan_summary",
    "settled_summary",
    "shortened",
    "signature_fields",
    "tell",
    "tell_diff",
    "write_approval",
    "write_checks",
    "write_deployment",
    "write_drift_check",
    "write_json",
    "write_metrics_check",
    "write_package",
    "write_promotion",
    "write_released",
    "write_roll_back",
    "write_text",
]
