"""What is read of live objects: whoever may write a status may write anything into it.

API servers check the built-in kinds, and custom ones by whatever schema is installed. What we read
of them is checked here once, so that nothing behind it has to expect another type. What only one
target's objects have stands beside what reads it (`watch_kserve.py`, `watch_yatai.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kfp_bento.runtime.deployments.kube.shapes import (
    Items,
    Known,
    Pairs,
    Shape,
    Value,
    shape_problems,
)
from kfp_bento.runtime.errors import DeploymentError
from kfp_bento.runtime.programs import cleaned

TEXT, NUMBER, TRUTH = Value(str), Value(int), Value(bool)

_TEXT_OR_NULL = Value((str, type(None)))

_METADATA = Known(
    {
        "name": TEXT,
        "namespace": TEXT,
        "uid": TEXT,
        "generation": NUMBER,
        "resourceVersion": TEXT,
        "deletionTimestamp": TEXT,
        "labels": Pairs(),
        "annotations": Pairs(),
        "finalizers": Items(TEXT),
        "ownerReferences": Items(Known({"uid": TEXT, "controller": TRUTH})),
        "managedFields": Items(
            Known({"manager": TEXT, "operation": TEXT, "fieldsV1": Known({"f:spec": Known({})})})
        ),
    },
    frozenset({"name", "namespace"}),
)
OBJECT = Known(
    {"apiVersion": TEXT, "kind": TEXT, "metadata": _METADATA},
    frozenset({"apiVersion", "kind", "metadata"}),
)
"""What every object has."""

MARKED = Known({"labels": Pairs(), "annotations": Pairs()})
"""The metadata of pods that are made of it."""

CONDITIONS = Items(
    Known(
        {
            "type": TEXT,
            "status": TEXT,
            "reason": TEXT,
            "message": TEXT,
            "observedGeneration": NUMBER,
        },
        frozenset({"type"}),
    )
)
_CONTAINER = Known({"name": TEXT, "image": TEXT}, frozenset({"name"}))
CONTAINERS = Items(_CONTAINER)

_TEMPLATE = Known(
    {
        "metadata": MARKED,
        "spec": Known({"containers": Items(_CONTAINER, least=1)}, frozenset({"containers"})),
    },
    frozenset({"spec"}),
)
_DEPLOYMENT = Known(
    {
        "spec": Known(
            {
                "replicas": NUMBER,
                "paused": TRUTH,
                "template": _TEMPLATE,
                "selector": Known({"matchLabels": Pairs()}, frozenset({"matchLabels"})),
            },
            frozenset({"template", "selector"}),
        ),
        "status": Known(
            {
                "observedGeneration": NUMBER,
                "replicas": NUMBER,
                "updatedReplicas": NUMBER,
                "availableReplicas": NUMBER,
                "conditions": CONDITIONS,
            }
        ),
    },
    frozenset({"spec"}),
)
_STATE = Known(
    {
        "waiting": Known({"reason": TEXT, "message": TEXT}),
        "running": Known({}),
        "terminated": Known({"exitCode": NUMBER, "reason": TEXT}),
    }
)
_CONTAINER_STATUSES = Items(
    Known(
        {
            "name": TEXT,
            "ready": TRUTH,
            "restartCount": NUMBER,
            "imageID": TEXT,
            "state": _STATE,
            "lastState": _STATE,
        },
        frozenset({"name"}),
    )
)
_MADE = Known({"metadata": Known({"uid": TEXT}, frozenset({"uid"}))})
_POD = Known(
    {
        **_MADE.fields,
        "status": Known(
            {
                "conditions": CONDITIONS,
                "containerStatuses": _CONTAINER_STATUSES,
                "initContainerStatuses": _CONTAINER_STATUSES,
            }
        ),
    }
)
_EVENT = Known(
    {
        "type": TEXT,
        "reason": TEXT,
        "message": TEXT,
        "count": NUMBER,
        "series": Known({"count": NUMBER}),
        # One of the two is null, depending on which event API its author used.
        "lastTimestamp": _TEXT_OR_NULL,
        "eventTime": _TEXT_OR_NULL,
    }
)
_SCALE_TARGET = Known({"kind": TEXT, "name": TEXT}, frozenset({"kind", "name"}))
_AUTOSCALER = Known(
    {
        "spec": Known(
            {"minReplicas": NUMBER, "scaleTargetRef": _SCALE_TARGET},
            frozenset({"scaleTargetRef"}),
        )
    },
    frozenset({"spec"}),
)
_PORTS = Items(Known({"port": NUMBER}, frozenset({"port"})), least=1)
_SERVICE = Known({"spec": Known({"ports": _PORTS}, frozenset({"ports"}))}, frozenset({"spec"}))
_ROUTE = Known({"status": Known({"parents": Items(Known({"conditions": CONDITIONS}))})})

CORE_SHAPES: Mapping[str, Shape] = {
    "Deployment": _DEPLOYMENT,
    "Pod": _POD,
    "ReplicaSet": _MADE,
    "Event": _EVENT,
    "HorizontalPodAutoscaler": _AUTOSCALER,
    "Service": _SERVICE,
    "HTTPRoute": _ROUTE,
}
"""What is read of the kinds that Kubernetes and the Gateway API bring, besides `OBJECT`."""


def check_live(live: Mapping[str, Any], shapes: Mapping[str, Shape]) -> None:
    """Refuse a live object in which something that is read has another type than it should.

    Args:
        live: The object.
        shapes: What is read of objects, by kind; others are taken as they are.

    Raises:
        DeploymentError: The first such field, by its path.
    """
    shape = shapes.get(str(live.get("kind")))
    for problem in shape_problems(live, shape, "") if shape else ():
        name = (live.get("metadata") or {}).get("name")
        raise DeploymentError(
            cleaned(
                f"{live.get('kind')} {name} cannot be read: {problem.removeprefix('.')[:500]}."
            ),
            hint="Whoever writes that object has to mend it.",
        )
