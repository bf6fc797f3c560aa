"""The ways to serve an image, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from kfp_bento.runtime.deployments.kube.live_shapes import CORE_SHAPES, check_live
from kfp_bento.runtime.deployments.kube.objects import Manifest, ObjectRef
from kfp_bento.runtime.deployments.options.names import label_name_problem, resource_name_problem
from kfp_bento.runtime.deployments.targets.kserve.render import INFERENCE_SERVICE
from kfp_bento.runtime.deployments.targets.target import Target
from kfp_bento.runtime.deployments.targets.workload.render import WORKLOAD
from kfp_bento.runtime.deployments.targets.yatai.deployment import BENTO_DEPLOYMENT
from kfp_bento.runtime.deployments.targets.yatai.request import BENTO_REQUEST
from kfp_bento.runtime.errors import InvalidInput

TARGETS: Mapping[str, Target] = {
    target.kind: target for target in (BENTO_DEPLOYMENT, BENTO_REQUEST, INFERENCE_SERVICE, WORKLOAD)
}


Live = TypeVar("Live", bound=Manifest | None)

_LIVE = {
    **CORE_SHAPES,
    **{kind: shape for target in TARGETS.values() for kind, shape in target.live_shapes.items()},
}


def read_live(live: Live) -> Live:
    """Give a live object in which all that is read has the type that it should have.

    Raises:
        DeploymentError: Some field has another.
    """
    if live is not None:
        check_live(live, _LIVE)
    return live


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


def target_of_live(target: Target, objects: Sequence[Manifest]) -> Target:
    """Give the target of live objects, among those that have this one's primary kind."""
    kinds = {one["kind"] for one in objects}
    same = [one for one in TARGETS.values() if one.primary_kind == target.primary_kind]
    told = [one for one in same if one.told_by and one.told_by.name in kinds]
    return next(iter(told), None) or next(one for one in same if one.told_by is None)


def release_ref(name: str, target: str, namespace: str) -> ObjectRef:
    """Give the primary object of a release.

    Args:
        name: Name of the release.
        target: Kind of target (`workload`, ...).
        namespace: Its namespace.

    Raises:
        InvalidInput: No such target, or a name that no object can have.
    """
    kind = target_of(target).primary_kind
    for field, value, problem in (
        ("name", name, resource_name_problem(name)),
        ("namespace", namespace, label_name_problem(namespace)),
    ):
        if problem:
            raise InvalidInput(f"{field}: {value!r} {problem}.", hint="Give it as it was deployed.")
    return ObjectRef(kind.api_version, kind.name, namespace, name)
