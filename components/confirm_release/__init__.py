"""Keep a release on trial as the good one."""

from kfp_bento.components.confirm_release.component import confirm_release

__all__ = ["confirm_release"]
