"""Check a release on trial, and bring the last good one back where a check fails."""

from kfp_bento.components.check_release.component import check_release

__all__ = ["check_release"]
