"""What is read of live objects: whoever may write a status may write anything into it.

API servers check the built-in kinds, and custom ones by whatever schema is installed. What we read
of them is checked here once, so that nothing behind it has to expect another type. What only one
target's objects have stands beside what reads it (`kserve/watch.py`, `yatai/watch.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Required

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from typing_extensions import TypedDict

from kfp_bento.runtime.errors import DeploymentError
from kfp_bento.runtime.programs import cleaned
from kfp_bento.runtime.validation import problems

Texts = dict[str, str] | None


class Live(BaseModel):
    """Fields that we read of an object; a null list or object is none, and others are passed by."""

    model_config = ConfigDict(strict=True)


class _Owner(TypedDict, total=False):
    uid: str
    controller: bool


_Managed = TypedDict("_Managed", {"f:spec": dict[str, Any] | None}, total=False)


class _Manager(TypedDict, total=False):
    manager: str
    operation: str
    time: str | None
    fieldsV1: _Managed | None


class _Metadata(TypedDict, total=False):
    name: Required[str]
    namespace: Required[str]
    uid: str
    generation: int
    resourceVersion: str
    deletionTimestamp: str
    labels: Texts
    annotations: Texts
    finalizers: list[str] | None
    ownerReferences: list[_Owner] | None
    managedFields: list[_Manager] | None


class LiveObject(Live):
    """What every object has."""

    apiVersion: str
    kind: str
    metadata: _Metadata


class LiveList(Live):
    """A page of objects."""

    items: list[dict[str, Any]] | None = None
    metadata: dict[str, Any] | None = None


class Marks(TypedDict, total=False):
    """The metadata of pods that are made of an object."""

    labels: Texts
    annotations: Texts


class Condition(TypedDict, total=False):
    """A condition in a status."""

    type: Required[str]
    status: str
    reason: str
    message: str
    observedGeneration: int
    lastTransitionTime: str | None


class ConditionStatus(TypedDict, total=False):
    """A status with nothing but conditions."""

    conditions: list[Condition] | None


class LiveContainer(TypedDict, total=False):
    """A container in a spec."""

    name: Required[str]
    image: str


class _PodSpec(TypedDict):
    containers: Annotated[list[LiveContainer], Field(min_length=1)]


class _Template(TypedDict, total=False):
    metadata: Marks | None
    spec: Required[_PodSpec]


class _Selector(TypedDict):
    matchLabels: dict[str, str]


class _DeploymentSpec(TypedDict, total=False):
    replicas: int
    paused: bool
    template: Required[_Template]
    selector: Required[_Selector]


class _DeploymentStatus(ConditionStatus, total=False):
    observedGeneration: int
    replicas: int
    updatedReplicas: int
    availableReplicas: int


class _Deployment(Live):
    spec: _DeploymentSpec
    status: _DeploymentStatus | None = None


class _Reason(TypedDict, total=False):
    exitCode: int
    reason: str
    message: str


class _State(TypedDict, total=False):
    waiting: _Reason | None
    running: dict[str, Any] | None
    terminated: _Reason | None


class _ContainerStatus(TypedDict, total=False):
    name: Required[str]
    ready: bool
    restartCount: int
    imageID: str
    state: _State | None
    lastState: _State | None


class _PodContainers(TypedDict, total=False):
    containers: list[LiveContainer] | None


class _PodStatus(ConditionStatus, total=False):
    containerStatuses: list[_ContainerStatus] | None
    initContainerStatuses: list[_ContainerStatus] | None


class _Made(TypedDict):
    uid: str


class _ReplicaSet(Live):
    metadata: _Made | None = None


class _Pod(_ReplicaSet):
    spec: _PodContainers | None = None
    status: _PodStatus | None = None


class _JobStatus(ConditionStatus, total=False):
    failed: int


class _Job(Live):
    status: _JobStatus | None = None


class _Series(TypedDict, total=False):
    count: int


class _Event(Live):
    type: str = ""
    reason: str = ""
    message: str = ""
    count: int = 0
    series: _Series | None = None
    # One of the two is null, depending on which event API its author used.
    lastTimestamp: str | None = None
    eventTime: str | None = None


class _ScaleTarget(TypedDict):
    kind: str
    name: str


class _AutoscalerSpec(TypedDict, total=False):
    minReplicas: int
    scaleTargetRef: Required[_ScaleTarget]


class _Autoscaler(Live):
    spec: _AutoscalerSpec


class _Port(TypedDict):
    port: int


class _ServiceSpec(TypedDict):
    ports: Annotated[list[_Port], Field(min_length=1)]


class _Service(Live):
    spec: _ServiceSpec


class _RouteStatus(TypedDict, total=False):
    parents: list[ConditionStatus] | None


class _Route(Live):
    status: _RouteStatus | None = None


CORE_SHAPES: Mapping[str, type[Live]] = {
    "Deployment": _Deployment,
    "Pod": _Pod,
    "Job": _Job,
    "ReplicaSet": _ReplicaSet,
    "Event": _Event,
    "HorizontalPodAutoscaler": _Autoscaler,
    "Service": _Service,
    "HTTPRoute": _Route,
}
"""What is read of the kinds that Kubernetes and the Gateway API bring, besides `LiveObject`."""


def live_problem(live: Any, shape: type[Live], subject: str = "") -> str:
    """Give the first field of an answer that has another type than it should; "" where none has.

    Args:
        live: The answer.
        shape: What is read of it.
        subject: How the answer is called in front of the field.
    """
    try:
        shape.model_validate(live)
    except ValidationError as error:
        return next(problems(shape, error, subject)).sentence[:500]
    return ""


def check_live(live: Mapping[str, Any], shapes: Mapping[str, type[Live]]) -> None:
    """Refuse a live object in which something that is read has another type than it should.

    Args:
        live: The object.
        shapes: What is read of objects, by kind; others are taken as they are.

    Raises:
        DeploymentError: The first such field, by its path.
    """
    shape = shapes.get(str(live.get("kind")))
    if shape and (problem := live_problem(live, shape)):
        name = (live.get("metadata") or {}).get("name")
        raise DeploymentError(
            cleaned(f"{live.get('kind')} {name} cannot be read: {problem}."),
            hint="Whoever writes that object has to mend it.",
        )
