"""The request_bento component."""

from .component import request_bento

__all__ = ["request_bento"]
