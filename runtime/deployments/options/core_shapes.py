"""Shapes of the parts of a pod that users may write themselves (Kubernetes core/v1).

Only fields that Kubernetes 1.25 had already: the CRDs embed older copies of these types.
"""

from __future__ import annotations

from kfp_bento.runtime.deployments.kube.shapes import Fields, Items, Pairs, Shape, Value
from kfp_bento.runtime.deployments.options.names import (
    label_name_problem,
    label_value_problem,
    metadata_key_problem,
    resource_name_problem,
)


def one_of(*words: str) -> Value:
    """A string out of a few."""
    return Value(str, lambda text: "" if text in words else f"is none of {', '.join(words)}")


TEXT = Value(str)
COUNT = Value(int)
TRUTH = Value(bool)
NUMBER_OR_TEXT = Value((int, str))
TEXTS = Items(TEXT)
LABELS = Pairs(metadata_key_problem, label_value_problem)
ANNOTATIONS = Pairs(metadata_key_problem)
NAME = Value(str, resource_name_problem)

_REQUIREMENT = Fields(
    {"key": TEXT, "operator": TEXT, "values": TEXTS}, frozenset({"key", "operator"})
)
LABEL_SELECTOR = Fields({"matchLabels": LABELS, "matchExpressions": Items(_REQUIREMENT)})
_NODE_TERM = Fields({"matchExpressions": Items(_REQUIREMENT), "matchFields": Items(_REQUIREMENT)})
_POD_TERM = Fields(
    {
        "labelSelector": LABEL_SELECTOR,
        "namespaceSelector": LABEL_SELECTOR,
        "namespaces": TEXTS,
        "topologyKey": TEXT,
    },
    frozenset({"topologyKey"}),
)
_POD_AFFINITY = Fields(
    {
        "requiredDuringSchedulingIgnoredDuringExecution": Items(_POD_TERM),
        "preferredDuringSchedulingIgnoredDuringExecution": Items(
            Fields(
                {"weight": COUNT, "podAffinityTerm": _POD_TERM},
                frozenset({"weight", "podAffinityTerm"}),
            )
        ),
    }
)
AFFINITY = Fields(
    {
        "nodeAffinity": Fields(
            {
                "requiredDuringSchedulingIgnoredDuringExecution": Fields(
                    {"nodeSelectorTerms": Items(_NODE_TERM)}, frozenset({"nodeSelectorTerms"})
                ),
                "preferredDuringSchedulingIgnoredDuringExecution": Items(
                    Fields(
                        {"weight": COUNT, "preference": _NODE_TERM},
                        frozenset({"weight", "preference"}),
                    )
                ),
            }
        ),
        "podAffinity": _POD_AFFINITY,
        "podAntiAffinity": _POD_AFFINITY,
    }
)
TOLERATIONS = Items(
    Fields(
        {
            "key": TEXT,
            "operator": one_of("Exists", "Equal"),
            "value": TEXT,
            "effect": one_of("NoSchedule", "PreferNoSchedule", "NoExecute"),
            "tolerationSeconds": COUNT,
        }
    )
)
TOPOLOGY_SPREAD = Items(
    Fields(
        {
            "maxSkew": COUNT,
            "topologyKey": TEXT,
            "whenUnsatisfiable": one_of("DoNotSchedule", "ScheduleAnyway"),
            "labelSelector": LABEL_SELECTOR,
        },
        frozenset({"maxSkew", "topologyKey", "whenUnsatisfiable"}),
    )
)
NODE_SELECTOR = LABELS

_KEY_REF = Fields({"name": NAME, "key": TEXT, "optional": TRUTH}, frozenset({"name", "key"}))
VALUE_FROM = Fields(
    {
        "secretKeyRef": _KEY_REF,
        "configMapKeyRef": _KEY_REF,
        "fieldRef": Fields({"fieldPath": TEXT, "apiVersion": TEXT}, frozenset({"fieldPath"})),
        "resourceFieldRef": Fields(
            {"resource": TEXT, "containerName": TEXT, "divisor": NUMBER_OR_TEXT},
            frozenset({"resource"}),
        ),
    }
)
ENV = Items(Fields({"name": TEXT, "value": TEXT, "valueFrom": VALUE_FROM}, frozenset({"name"})))
_WHOLE_REF = Fields({"name": NAME, "optional": TRUTH}, frozenset({"name"}))
ENV_FROM = Items(Fields({"secretRef": _WHOLE_REF, "configMapRef": _WHOLE_REF, "prefix": TEXT}))
_QUANTITIES = Pairs()
RESOURCE_REQUIREMENTS = Fields({"requests": _QUANTITIES, "limits": _QUANTITIES})
_PROBE = Fields(
    {
        "httpGet": Fields(
            {"path": TEXT, "port": NUMBER_OR_TEXT, "scheme": TEXT, "host": TEXT},
            frozenset({"port"}),
        ),
        "tcpSocket": Fields({"port": NUMBER_OR_TEXT, "host": TEXT}, frozenset({"port"})),
        "exec": Fields({"command": TEXTS}),
        "initialDelaySeconds": COUNT,
        "timeoutSeconds": COUNT,
        "periodSeconds": COUNT,
        "successThreshold": COUNT,
        "failureThreshold": COUNT,
    }
)
_CONTAINER_PORTS = Items(
    Fields(
        {"name": TEXT, "containerPort": COUNT, "protocol": one_of("TCP", "UDP", "SCTP")},
        frozenset({"containerPort"}),
    )
)
_SECURITY = Fields(
    {
        "runAsUser": COUNT,
        "runAsGroup": COUNT,
        "runAsNonRoot": TRUTH,
        "readOnlyRootFilesystem": TRUTH,
        "allowPrivilegeEscalation": TRUTH,
        "privileged": TRUTH,
        "capabilities": Fields({"add": TEXTS, "drop": TEXTS}),
        "seccompProfile": Fields({"type": TEXT, "localhostProfile": TEXT}, frozenset({"type"})),
    }
)
CONTAINER = Fields(
    {
        "name": Value(str, label_name_problem),
        "image": TEXT,
        "command": TEXTS,
        "args": TEXTS,
        "workingDir": TEXT,
        "env": ENV,
        "envFrom": ENV_FROM,
        "ports": _CONTAINER_PORTS,
        "resources": RESOURCE_REQUIREMENTS,
        "livenessProbe": _PROBE,
        "readinessProbe": _PROBE,
        "startupProbe": _PROBE,
        "imagePullPolicy": one_of("Always", "IfNotPresent", "Never"),
        "securityContext": _SECURITY,
    },
    frozenset({"name", "image"}),
)
SCHEDULING: dict[str, Shape] = {
    "schedulerName": TEXT,
    "nodeSelector": NODE_SELECTOR,
    "affinity": AFFINITY,
    "tolerations": TOLERATIONS,
    "topologySpreadConstraints": TOPOLOGY_SPREAD,
}
