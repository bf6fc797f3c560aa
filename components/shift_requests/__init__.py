"""Send a new image more and more of the requests, and check it at each step."""

from kfp_bento.components.shift_requests.component import shift_requests

__all__ = ["shift_requests"]
