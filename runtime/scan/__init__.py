"""Look before loading: what a pulled model would run, found without running anything of it."""

from kfp_bento.runtime.scan.report import ScanReport, load_scanned
from kfp_bento.runtime.scan.scan import scan_model

__all__ = ["ScanReport", "load_scanned", "scan_model"]
