"""The require_passed component."""

from kfp_bento.components.require_passed.component import require_passed

__all__ = ["require_passed"]
