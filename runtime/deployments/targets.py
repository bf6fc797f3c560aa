"""The ways to serve an image, by name."""

from __future__ import annotations

from collections.abc import Mapping

from kfp_bento.runtime.errors import InvalidInput

from .bento_deployment import BENTO_DEPLOYMENT
from .bento_request import BENTO_REQUEST
from .inference_service import INFERENCE_SERVICE
from .target import POD_REVISION, Manifest, Problem, Target, Workload
from .workload import WORKLOAD

__all__ = [
    "POD_REVISION",
    "TARGETS",
    "Manifest",
    "Problem",
    "Target",
    "Workload",
    "target_of",
]

TARGETS: Mapping[str, Target] = {
    target.kind: target for target in (BENTO_DEPLOYMENT, BENTO_REQUEST, INFERENCE_SERVICE, WORKLOAD)
}


def target_of(kind: str) -> Target:
    """Give a target by its name.

    Raises:
        InvalidInput: There is none of that name.
    """
    if kind not in TARGETS:
        raise InvalidInput(
            f"target: {kind!r} is no deployment target.", hint=f"One of {', '.join(TARGETS)}."
        )
    return TARGETS[kind]
