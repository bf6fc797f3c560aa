"""The deploy_bento component."""

from .component import deploy_bento

__all__ = ["deploy_bento"]
