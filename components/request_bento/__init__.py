"""The request_bento component."""

from kfp_bento.components.request_bento.component import request_bento

__all__ = ["request_bento"]
