"""What people look at: Markdown summaries, metrics, and the report of a whole run."""

from kfp_bento.runtime.reports.files import write_json, write_text
from kfp_bento.runtime.reports.metrics import (
    check_metrics,
    image_metrics,
    release_metrics,
    roll_back_metrics,
)
from kfp_bento.runtime.reports.page import run_report
from kfp_bento.runtime.reports.releases import (
    change_summary,
    diff_summary,
    release_summary,
    roll_back_summary,
    tell,
    tell_diff,
    write_deployment,
    write_roll_back,
)
from kfp_bento.runtime.reports.summaries import check_summary, image_summary, promotion_summary
from kfp_bento.runtime.reports.wording import human_bytes, human_seconds, shorten_digests

__all__ = [
    "change_summary",
    "check_metrics",
    "check_summary",
    "diff_summary",
    "human_bytes",
    "human_seconds",
    "image_metrics",
    "image_summary",
    "promotion_summary",
    "release_metrics",
    "release_summary",
    "roll_back_metrics",
    "roll_back_summary",
    "run_report",
    "shorten_digests",
    "tell",
    "tell_diff",
    "write_deployment",
    "write_json",
    "write_roll_back",
    "write_text",
]
