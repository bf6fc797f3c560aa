"""What a user may ask of a deployment, checked and brought into the form the CRDs want.

KFP hands dictionaries over with every integer as a float, so integral floats become
integers here and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kfp_bento.runtime.deployments.kube.shapes import settled
from kfp_bento.runtime.deployments.options.core_shapes import VALUE_FROM
from kfp_bento.runtime.deployments.options.names import (
    label_value_problem,
    metadata_key_problem,
    resource_name_problem,
)
from kfp_bento.runtime.deployments.options.options import (
    LARGEST_INT32,
    listing,
    mapping,
    whole_number,
    without_empty,
)
from kfp_bento.runtime.deployments.options.quantities import quantity_text
from kfp_bento.runtime.errors import InvalidInput

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
# Read by yatai-image-builder from a BentoRequest's metadata.
BUILD_ANNOTATIONS = (
    "yatai.ai/aws-access-key-secret-name",
    "yatai.ai/docker-registry-insecure",
    "yatai.ai/force-build-image",
)
UNSERVABLE_BUILDS = ("yatai.ai/image-stored-in-s3", "yatai.ai/yatai-image-builder-separate-models")
STRATEGIES = ("RollingUpdate", "Recreate", "RampedSlowRollout", "BestEffortControlledRollout")

_ON_PODS = "It belongs on the pods: extra_pod_metadata={'annotations': {...}}."
# Read from pods alone; on the metadata of what makes the pods they do nothing.
POD_ANNOTATIONS: Mapping[str, str] = dict.fromkeys(
    (
        "prometheus.io/",
        "sidecar.istio.io/",
        "proxy.istio.io/",
        "traffic.sidecar.istio.io/",
        "cluster-autoscaler.kubernetes.io/safe-to-evict",
        "container.apparmor.security.beta.kubernetes.io/",
    ),
    _ON_PODS,
)
_KSERVE = "KServe reads it on an InferenceService only."
_YATAI = "Yatai's operators read it on a BentoDeployment or BentoRequest only."
NOT_FOR_YATAI: Mapping[str, str] = {
    "serving.kserve.io/": _KSERVE,
    "autoscaling.knative.dev/": "Knative reads it on its own revisions only.",
}
NO_OPERATOR: Mapping[str, str] = {"yatai.ai/": _YATAI, **NOT_FOR_YATAI}
POD_MISPLACED: Mapping[str, str] = {
    "yatai.ai/": "Yatai's operator reads its switches from annotations=..., not from pods.",
    "serving.kserve.io/": "KServe reads it on the InferenceService: annotations=....",
}

_ENV_NAME = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")


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
            for index, metric in enumerate(listing(f"{field}.metrics", given["metrics"]))
        ]
    return block


def env_settings(field: str, given: Envs | None) -> list[dict[str, str]]:
    """Give literal environment variables in the order they were given.

    Raises:
        InvalidInput: `valueFrom` (the controller drops it and sets an empty variable),
            `PORT` and Yatai's own names, values that are no strings, names given twice.
    """
    envs: dict[str, str] = {}
    for place, entry in _env_entries(field, given):
        name, value = _env(place, entry)
        _refuse_repeated(place, name, envs)
        envs[name] = value
    return [{"name": name, "value": value} for name, value in envs.items()]


def container_env(
    field: str, given: Envs | None, reserved: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Give environment variables of a container, literal ones and such with `valueFrom`.

    Args:
        field: Name of the parameter, for error messages.
        given: A mapping, or a list of `name` and either `value` or `valueFrom`.
        reserved: Names that cannot be set, each with the reason.

    Raises:
        InvalidInput: A reserved or invalid name, one given twice, a value that is no text, or a
            source that is not exactly one of the four that Kubernetes has.
    """
    envs: dict[str, dict[str, Any]] = {}
    for place, entry in _env_entries(field, given):
        name = _env_name(place, entry)
        _refuse_repeated(place, name, envs)
        if name in reserved:
            raise InvalidInput(f"{place}: {name} {reserved[name]}.", hint="Leave it out.")
        mapping(place, entry, ("name", "value", "valueFrom"))
        if "valueFrom" not in entry:
            envs[name] = {"name": name, "value": _env_value(f"{place}.value", entry.get("value"))}
            continue
        source = settled(f"{place}.valueFrom", entry["valueFrom"], VALUE_FROM)
        if "value" in entry or len(source) != 1:
            raise InvalidInput(
                f"{place}.valueFrom: a variable has one value or one source.",
                hint="Write {'secretKeyRef': {'name': ..., 'key': ...}} and no value.",
            )
        envs[name] = {"name": name, "valueFrom": source}
    return list(envs.values())


def _env_entries(field: str, given: Envs | None) -> Iterator[tuple[str, Any]]:
    if isinstance(given, Mapping):
        given = [{"name": name, "value": value} for name, value in given.items()]
    for index, entry in enumerate(listing(field, given or [])):
        yield f"{field}[{index}]", entry


def _refuse_repeated(place: str, name: str, seen: Mapping[str, Any]) -> None:
    if name in seen:
        raise InvalidInput(f"{place}: {name} is given twice.", hint="Keep one of them.")


def label_settings(
    field: str,
    given: Mapping[str, Any] | None,
    reserved: Sequence[str] = ("yatai.ai/",),
) -> dict[str, str]:
    """Give labels whose keys and values Kubernetes accepts.

    Args:
        field: Name of the parameter, for error messages.
        given: The labels.
        reserved: Keys, or prefixes that end with '/', by which selectors find the pods.

    Raises:
        InvalidInput: A key or value that is none, or a label that selectors depend on.
    """
    for key, value in mapping(field, given or {}).items():
        _check_key(field, key)
        if any(key == one or (one.endswith("/") and key.startswith(one)) for one in reserved):
            raise InvalidInput(
                f"{field}[{key}]: the operator or the renderer writes this label itself, and "
                "selectors depend on it.",
                hint="Use another key.",
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
    for key, value in _annotations(field, given):
        if key.startswith("yatai.ai/"):
            _check_control(field, key, value)
            control[key] = value
        else:
            _refuse_misplaced(field, key, {**POD_ANNOTATIONS, **NOT_FOR_YATAI})
            plain[key] = value
    return plain, control


def split_build_annotations(
    field: str, given: Mapping[str, Any] | None
) -> tuple[dict[str, Any], dict[str, str]]:
    """Split the annotations that steer the image builder from all others.

    Raises:
        InvalidInput: One that makes images which yatai-deployment cannot run.
    """
    given = mapping(field, given or {})
    for key in UNSERVABLE_BUILDS:
        if key in given:
            raise InvalidInput(
                f"{field}[{key}]: the image would lack its models; only BentoCloud runs such.",
                hint="Leave it out.",
            )
    building = {key: given[key] for key in BUILD_ANNOTATIONS if key in given}
    for key, value in building.items():
        if not isinstance(value, str):
            raise InvalidInput(f"{field}[{key}]: {value!r} is no string.", hint="Quote the value.")
    return {key: value for key, value in given.items() if key not in building}, building


def control_settings(field: str, given: Mapping[str, Any] | None) -> dict[str, str]:
    """Give the switches that steer the operator for one runner.

    Raises:
        InvalidInput: Any other annotation: of a runner the operator reads nothing else there.
    """
    plain, control = annotation_settings(field, given)
    for key in plain:
        raise InvalidInput(
            f"{field}[{key}]: nothing reads it in this place.",
            hint="For the runner's pods use extra_pod_metadata.",
        )
    return control


def metadata_annotations(
    field: str, given: Mapping[str, Any] | None, misplaced: Mapping[str, str]
) -> dict[str, str]:
    """Give annotations for an object's metadata.

    Args:
        field: Name of the parameter, for error messages.
        given: The annotations.
        misplaced: Prefixes that nothing reads in this place, each with what to do instead.

    Raises:
        InvalidInput: A value that is no string, a key of ours, or one that nothing reads here.
    """
    plain: dict[str, str] = {}
    for key, value in _annotations(field, given):
        _refuse_misplaced(field, key, misplaced)
        plain[key] = value
    return plain


def pod_metadata(
    field: str, given: Mapping[str, Any] | None, reserved: Sequence[str] = ("yatai.ai/",)
) -> dict[str, dict[str, str]]:
    """Give the labels and annotations that pods get in addition.

    Raises:
        InvalidInput: As for `label_settings` and `metadata_annotations`.
    """
    given = mapping(field, given or {}, ("annotations", "labels"))
    labels = label_settings(f"{field}.labels", given.get("labels"), reserved)
    annotations = metadata_annotations(
        f"{field}.annotations", given.get("annotations"), POD_MISPLACED
    )
    return without_empty({"labels": labels, "annotations": annotations})


def _annotations(field: str, given: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
    for key, value in mapping(field, given or {}).items():
        _check_key(field, key)
        if not isinstance(value, str):
            raise InvalidInput(f"{field}[{key}]: {value!r} is no string.", hint="Quote the value.")
        if key.startswith("kfp-bento/"):
            raise InvalidInput(
                f"{field}[{key}]: this prefix holds where the model came from, and is ours.",
                hint="Use a prefix of your own.",
            )
        yield key, value


def _refuse_misplaced(field: str, key: str, misplaced: Mapping[str, str]) -> None:
    for prefix, instead in misplaced.items():
        if key.startswith(prefix):
            raise InvalidInput(f"{field}[{key}]: nothing reads it in this place.", hint=instead)


def check_scheduling(tolerations: Sequence[Any], spread: Sequence[Any], *fields: str) -> None:
    """Refuse what has the right shape and no pod can have.

    Args:
        tolerations: Settled tolerations.
        spread: Settled topologySpreadConstraints.
        *fields: The names of both parameters, for error messages.

    Raises:
        InvalidInput: A toleration that contradicts itself, or a skew that is none.
    """
    for index, toleration in enumerate(tolerations):
        place = f"{fields[0]}[{index}]"
        if "tolerationSeconds" in toleration and toleration.get("effect") != "NoExecute":
            raise InvalidInput(
                f"{place}.tolerationSeconds: it goes with the effect NoExecute only.",
                hint="Set effect to NoExecute, or leave it out.",
            )
        exists = toleration.get("operator") == "Exists"
        if exists and toleration.get("value"):
            raise InvalidInput(
                f"{place}.value: the operator Exists takes none.", hint="Use the operator Equal."
            )
        if not exists and not toleration.get("key"):
            raise InvalidInput(
                f"{place}.key: only the operator Exists goes without one.", hint="Name the taint."
            )
    seen = set()
    for index, constraint in enumerate(spread):
        whole_number(f"{fields[1]}[{index}].maxSkew", constraint["maxSkew"], 1)
        pair = constraint["topologyKey"], constraint["whenUnsatisfiable"]
        if pair in seen:
            raise InvalidInput(
                f"{fields[1]}[{index}]: topologyKey and whenUnsatisfiable are given before.",
                hint="Keep one of them.",
            )
        seen.add(pair)


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
    if value > LARGEST_INT32:
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


def _env_name(field: str, entry: Any) -> str:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
        raise InvalidInput(
            f"{field}: {entry!r} is no variable.", hint="Write {'name': 'KEY', 'value': 'text'}."
        )
    if not _ENV_NAME.fullmatch(entry["name"]):
        raise InvalidInput(
            f"{field}.name: {entry['name']!r} cannot name an environment variable.",
            hint="Use letters, digits and '_'.",
        )
    return str(entry["name"])


def _env(field: str, entry: Any) -> tuple[str, str]:
    name = _env_name(field, entry)
    if "valueFrom" in entry:
        raise InvalidInput(
            f"{field}.valueFrom: the operator drops it and would set {name} to an empty value.",
            hint="Only literal values reach the pod. For credentials give the pods a "
            "service account (service_account=...) or let the service read them at start.",
        )
    mapping(field, entry, ("name", "value"))
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
