"""Look before loading: what pulled models would run, found without running anything of them."""

from kfp_bento.runtime.scan.report import ScanReport, load_scanned
from kfp_bento.runtime.scan.scan import scan_models

__all__ = ["ScanReport", "load_scanned", "scan_models"]
