"""The proof of a bento: started before it is an image, and the golden answers that this leaves."""

from kfp_bento.runtime.proof.answer_types import answer_problems
from kfp_bento.runtime.proof.comparing import answer_differences
from kfp_bento.runtime.proof.content import Content
from kfp_bento.runtime.proof.differences import Difference
from kfp_bento.runtime.proof.environment import locked_environment
from kfp_bento.runtime.proof.golden import (
    Golden,
    GoldenRequest,
    load_given_golden,
    request_headers,
)
from kfp_bento.runtime.proof.proving import golden_answers
from kfp_bento.runtime.proof.request_files import given_requests
from kfp_bento.runtime.proof.requests import SYNTHETIC
from kfp_bento.runtime.proof.served import started

__all__ = [
    "SYNTHETIC",
    "Content",
    "Difference",
    "Golden",
    "GoldenRequest",
    "answer_differences",
    "answer_problems",
    "given_requests",
    "golden_answers",
    "load_given_golden",
    "locked_environment",
    "request_headers",
    "started",
]
