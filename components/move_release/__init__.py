"""Deploy the good release of one namespace to another one."""

from kfp_bento.components.move_release.component import move_release

__all__ = ["move_release"]
