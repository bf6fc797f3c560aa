"""What people look at: Markdown summaries, metrics, and the report of a whole run."""

from .files import write_json, write_text
from .markdown import check_summary, image_summary, promotion_summary, release_summary
from .metrics import check_metrics, image_metrics
from .page import run_report
from .quantities import human_bytes, human_seconds, short_digest

__all__ = [
    "check_metrics",
    "check_summary",
    "human_bytes",
    "human_seconds",
    "image_metrics",
    "image_summary",
    "promotion_summary",
    "release_summary",
    "run_report",
    "short_digest",
    "write_json",
    "write_text",
]
