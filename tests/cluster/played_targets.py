"""The controllers that stand between a release and its pods, by target."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from image_builder import ImageBuilder
from kserve_controller import KServeController
from kube_api import KubeApi
from played_controller import running
from yatai_operator import YataiOperator


@contextmanager
def controllers_of(target: str, api: KubeApi, namespace: str) -> Iterator[None]:
    """Lets the controllers that a target needs work in a namespace."""
    with ExitStack() as stack:
        if target.startswith("bento"):
            stack.enter_context(running(YataiOperator(api, namespace)))
        if target == "bento-request":
            stack.enter_context(running(ImageBuilder(api, namespace)))
        if target == "inference-service":
            stack.enter_context(running(KServeController(api, namespace)))
        yield


def definitions_of(target: str) -> str:
    """Name of the fixture with the definitions that a target needs; empty for none."""
    return {"workload": "", "inference-service": "kserve"}.get(target, "yatai")
