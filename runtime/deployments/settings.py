"""What a user may ask of a deployment, checked and brought into the form the CRDs want.

KFP hands dictionaries over with every integer as a float, so integral floats become
integers here and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from kfp_bento.runtime.errors import InvalidInput

from .names import label_value_problem, metadata_key_problem, resource_name_problem
from .quantities import quantity_text

Envs = Mapping[str, Any] | Sequence[Mapping[str, Any]]

# Read from spec.annotations by yatai-deployment; in metadata it never looks at them.
CONTROL_ANNOTATIONS = frozenset(
    f"yatai.ai/{name}"
    for name in (
        "deployment-strategy",
        "run-container-as-root",
        "enable-container-privileged",
        "enable-container-ptrace",
        "enable-host-ipc",
        "enable-host-network",
        "enable-host-pid",
        "proxy-sidecar-resources-limits-cpu",
        "proxy-sidecar-resources-limits-memory",
        "proxy-sidecar-resources-requests-cpu",
        "proxy-sidecar-resources-requests-memory",
    )
)
STRATEGIES = ("RollingUpdate", "Recreate", "RampedSlowRollout", "BestEffortControlledRollout")

_ENV_NAME = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")
_LARGEST_INT32 = 2**31 - 1


def autoscaling_settings(field: str, given: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Give the autoscaling block, or None when nothing was asked (one replica, always).

    Raises:
        InvalidInput: Unknown keys, `behavior` (which the controller never copies to the
            HorizontalPodAutoscaler), counts that are no integers or in the wrong order.
    """
    if not given:
        return None
    if "behavior" in given:
        raise InvalidInput(
            f"{field}.behavior: the CRD takes it, but the operator never copies it to the "
            "HorizontalPodAutoscaler.",
            hint="Leave it out; the cluster's default scaling behaviour applies.",
        )
    for key in given:
        if key not in ("minReplicas", "maxReplicas", "metrics"):
            raise InvalidInput(
                f"{field}.{key}: no such setting.", hint="Known: minReplicas, maxReplicas, metrics."
            )
    lowest = _count(f"{field}.minReplicas", given.get("minReplicas", 1))
    highest = _count(f"{field}.maxReplicas", given.get("maxReplicas", lowest))
    if highest < lowest:
        raise InvalidInput(
            f"{field}.maxReplicas: {highest} is below minReplicas {lowest}.",
            hint="Set maxReplicas to at least minReplicas.",
        )
    block: dict[str, Any] = {"minReplicas": lowest, "maxReplicas": highest}
    if given.get("metrics"):
        block["metrics"] = [
            _metric(f"{field}.metrics[{index}]", metric)
            for index, metric in enumerate(given["metrics"])
        ]
    return block


def env_settings(field: str, given: Envs | None) -> list[dict[str, str]]:
    """Give literal environment variables in the order they were given.

    Raises:
        InvalidInput: `valueFrom` (the controller drops it and sets an empty variable),
            `PORT` and Yatai's own names, values that are no strings, names given twice.
    """
    if isinstance(given, Mapping):
        given = [{"name": name, "value": value} for name, value in given.items()]
    envs: dict[str, str] = {}
    for index, entry in enumerate(given or []):
        name, value = _env(f"{field}[{index}]", entry)
        if name in envs:
            raise InvalidInput(
                f"{field}[{index}]: {name} is given twice.", hint="Keep one of them."
            )
        envs[name] = value
    return [{"name": name, "value": value} for name, value in envs.items()]


def label_settings(field: str, given: Mapping[str, Any] | None) -> dict[str, str]:
    """Give labels whose keys and values Kubernetes accepts.

    Raises:
        InvalidInput: A key or value that is none, or a label of the operator's own.
    """
    for key, value in (given or {}).items():
        _check_key(field, key)
        if key.startswith("yatai.ai/"):
            raise InvalidInput(
                f"{field}[{key}]: the operator writes this label itself.",
                hint="Use another prefix.",
            )
        if not isinstance(value, str):
            raise InvalidInput(f"{field}[{key}]: {value!r} is no string.", hint="Quote the value.")
        if problem := label_value_problem(value):
            raise InvalidInput(
                f"{field}[{key}]: {value!r} {problem}.", hint="Longer texts fit in annotations."
            )
    return dict(given or {})


def annotation_settings(
    field: str, given: Mapping[str, Any] | None
) -> tuple[dict[str, str], dict[str, str]]:
    """Give the annotations for the metadata and those that steer the operator.

    The second kind (`yatai.ai/...`) works in the BentoDeployment's spec only.

    Raises:
        InvalidInput: An unknown key under `yatai.ai/`, a value that is no string, or a key
            under `kfp-bento/`, which says where the model came from.
    """
    plain: dict[str, str] = {}
    control: dict[str, str] = {}
    for key, value in (given or {}).items():
        _check_key(field, key)
        if not isinstance(value, str):
            raise InvalidInput(f"{field}[{key}]: {value!r} is no string.", hint="Quote the value.")
        if key.startswith("kfp-bento/"):
            raise InvalidInput(
                f"{field}[{key}]: this prefix holds where the model came from, and is ours.",
                hint="Use a prefix of your own.",
            )
        if key.startswith("yatai.ai/"):
            _check_control(field, key, value)
            control[key] = value
        else:
            plain[key] = value
    return plain, control


def secret_names(field: str, given: Sequence[str]) -> list[str]:
    """Give the names of Secrets, each once.

    Raises:
        InvalidInput: A name that no Secret can have.
    """
    for index, name in enumerate(given):
        if not isinstance(name, str) or (problem := resource_name_problem(name)):
            shown = problem if isinstance(name, str) else "is no string"
            raise InvalidInput(
                f"{field}[{index}]: {name!r} {shown}.",
                hint="Give the name of a Secret, not its value.",
            )
    return list(dict.fromkeys(given))


def _count(field: str, value: Any) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidInput(f"{field}: {value!r} is no integer.", hint="Write a number such as 2.")
    if value < 1:
        raise InvalidInput(
            f"{field}: {value} is below 1; the operator cannot scale to zero.",
            hint="Set it to 1 or more.",
        )
    if value > _LARGEST_INT32:
        raise InvalidInput(f"{field}: {value} does not fit in 32 bits.", hint="Lower it.")
    return value


def _metric(field: str, given: Mapping[str, Any]) -> dict[str, Any]:
    resource = given.get("resource") if isinstance(given, Mapping) else None
    target = resource.get("target") if isinstance(resource, Mapping) else None
    if (
        not isinstance(resource, Mapping)
        or not isinstance(target, Mapping)
        or given.get("type") != "Resource"
        or given.keys() - {"type", "resource"}
        or resource.keys() - {"name", "target"}
        or resource.get("name") not in ("cpu", "memory")
    ):
        raise InvalidInput(
            f"{field}: only Resource metrics of cpu and memory work on every version.",
            hint="Write {'type': 'Resource', 'resource': {'name': 'cpu', 'target': "
            "{'type': 'Utilization', 'averageUtilization': 80}}}.",
        )
    return {
        "type": "Resource",
        "resource": {
            "name": resource["name"],
            "target": _target(f"{field}.resource.target", target),
        },
    }


def _target(field: str, given: Mapping[str, Any]) -> dict[str, Any]:
    wanted = {"Utilization": "averageUtilization", "AverageValue": "averageValue"}
    key = wanted.get(str(given.get("type")))
    if key is None or set(given) != {"type", key}:
        raise InvalidInput(
            f"{field}: {dict(given)!r} is no target of a resource metric.",
            hint="Write Utilization with averageUtilization, or AverageValue with averageValue.",
        )
    if key == "averageUtilization":
        return {"type": "Utilization", key: _count(f"{field}.{key}", given[key])}
    return {"type": "AverageValue", key: quantity_text(f"{field}.{key}", given[key])}


def _env(field: str, entry: Any) -> tuple[str, str]:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
        raise InvalidInput(
            f"{field}: {entry!r} is no variable.", hint="Write {'name': 'KEY', 'value': 'text'}."
        )
    name = entry["name"]
    if "valueFrom" in entry:
        raise InvalidInput(
            f"{field}.valueFrom: the operator drops it and would set {name} to an empty value.",
            hint="Only literal values reach the pod. For credentials give the pods a "
            "service account (service_account=...) or let the service read them at start.",
        )
    for key in entry:
        if key not in ("name", "value"):
            raise InvalidInput(f"{field}.{key}: no such setting.", hint="Known: name, value.")
    if not _ENV_NAME.fullmatch(name):
        raise InvalidInput(
            f"{field}.name: {name!r} cannot name an environment variable.",
            hint="Use letters, digits and '_'.",
        )
    if name == "PORT":
        raise InvalidInput(
            f"{field}: PORT moves the port of the container away from 3000, where the operator's "
            "proxies and probes expect it.",
            hint="Leave it out; the Service listens on 3000.",
        )
    if name.startswith("YATAI_"):
        raise InvalidInput(
            f"{field}: {name} is set by the operator itself.", hint="Choose another name."
        )
    return name, _env_value(f"{field}.value", entry.get("value"))


def _env_value(field: str, value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise InvalidInput(
            f"{field}: {value!r} is no string.", hint="Quote it: a variable is always text."
        )
    return value


def _check_key(field: str, key: Any) -> None:
    problem = metadata_key_problem(key) if isinstance(key, str) else "is no string"
    if problem:
        raise InvalidInput(f"{field}[{key}]: the key {problem}.", hint="For example team/owner.")


def _check_control(field: str, key: str, value: str) -> None:
    if key not in CONTROL_ANNOTATIONS:
        raise InvalidInput(
            f"{field}[{key}]: the operator of a BentoDeployment knows no such switch.",
            hint=f"Known: {', '.join(sorted(CONTROL_ANNOTATIONS))}.",
        )
    if key == "yatai.ai/deployment-strategy" and value not in STRATEGIES:
        raise InvalidInput(
            f"{field}[{key}]: {value!r} is no strategy.", hint=f"One of {', '.join(STRATEGIES)}."
        )
