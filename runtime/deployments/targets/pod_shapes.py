"""What targets that make their pods themselves render, as closed shapes.

A roll back applies nothing that these refuse. So they keep what earlier versions rendered: a
renderer that changes widens its shape here, and takes nothing away from it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

from pydantic import ValidationError, create_model

from kfp_bento.runtime.deployments.kube.shapes import (
    Also,
    Exactly,
    Fields,
    Items,
    Pairs,
    Shape,
    Value,
    shape_problems,
)
from kfp_bento.runtime.deployments.kube.validation import problems
from kfp_bento.runtime.deployments.options.core import Env, EnvFrom
from kfp_bento.runtime.deployments.options.core_shapes import (
    AFFINITY,
    ANNOTATIONS,
    COUNT,
    ENV,
    ENV_FROM,
    LABEL_SELECTOR,
    LABELS,
    NAME,
    NODE_SELECTOR,
    NUMBER_OR_TEXT,
    TEXT,
    TEXTS,
    TOLERATIONS,
    TOPOLOGY_SPREAD,
    TRUTH,
    one_of,
)
from kfp_bento.runtime.deployments.options.names import image_problem, metadata_key_problem
from kfp_bento.runtime.deployments.options.network_policy import NetworkPolicy
from kfp_bento.runtime.deployments.options.options import Settings
from kfp_bento.runtime.deployments.options.pod_settings import (
    API_TOKEN,
    MISPLACED,
    PodMetadata,
    PodOptions,
    UserAnnotations,
    UserLabels,
    without_keys,
    without_labels,
)
from kfp_bento.runtime.deployments.options.pods import (
    CONTAINER_SECURITY,
    POD_SECURITY,
    PORT,
    volumes_and_mounts,
)
from kfp_bento.runtime.deployments.options.provenance import PROVENANCE
from kfp_bento.runtime.deployments.options.quantities import quantity_problem
from kfp_bento.runtime.deployments.targets.readiness import POD_REVISION
from kfp_bento.runtime.errors import InvalidInput

_REVISION = re.compile(r"[0-9a-f]{16}")
_PROBE = Fields(
    {
        # No host: the kubelet would ask it.
        "httpGet": Fields(
            {"path": one_of("/readyz", "/livez"), "port": Exactly(PORT), "scheme": Exactly("HTTP")},
            frozenset({"path", "port", "scheme"}),
        ),
        "initialDelaySeconds": COUNT,
        "timeoutSeconds": COUNT,
        "periodSeconds": COUNT,
        "failureThreshold": COUNT,
    },
    frozenset({"httpGet"}),
)
_QUANTITIES = Pairs(metadata_key_problem, quantity_problem)
RESOURCES = Fields({"requests": _QUANTITIES, "limits": _QUANTITIES})
_VOLUME = Fields(
    {
        "name": TEXT,
        "emptyDir": Fields({"medium": TEXT, "sizeLimit": TEXT}),
        "secret": Fields({"secretName": NAME}, frozenset({"secretName"})),
        "configMap": Fields({"name": NAME}, frozenset({"name"})),
    },
    frozenset({"name"}),
)
_MOUNT = Fields(
    {"name": TEXT, "mountPath": TEXT, "readOnly": TRUTH}, frozenset({"name", "mountPath"})
)
_TOKEN = Fields(
    {
        "name": Exactly(API_TOKEN),
        "valueFrom": Fields(
            # Not optional: without the Secret the service would ask for no token.
            {"secretKeyRef": Fields({"name": NAME, "key": TEXT}, frozenset({"name", "key"}))},
            frozenset({"secretKeyRef"}),
        ),
    },
    frozenset({"name", "valueFrom"}),
)
_SCHEDULING: Mapping[str, Shape] = {
    "serviceAccountName": NAME,
    "imagePullSecrets": Items(Fields({"name": NAME}, frozenset({"name"}))),
    "nodeSelector": NODE_SELECTOR,
    "tolerations": TOLERATIONS,
    "affinity": AFFINITY,
    "topologySpreadConstraints": TOPOLOGY_SPREAD,
    "priorityClassName": NAME,
    "runtimeClassName": NAME,
    "schedulerName": TEXT,
}


def checked(field: str, kind: Any, given: Any) -> None:
    """Refuse a value that options of a type could not have asked for.

    Raises:
        InvalidInput: The first reason, by the field's path.
    """
    model = create_model("Checked", __base__=Settings, value=(kind, ...))
    try:
        model.model_validate({"value": given})
    except ValidationError as error:
        for problem in problems(model, error, field):
            raise InvalidInput(problem.sentence.replace(".value", "", 1), hint="") from None


def label_settings(field: str, given: Any, reserved: Sequence[str] = ()) -> None:
    """Refuse labels that users cannot set."""
    checked(field, Annotated[UserLabels, without_labels(*reserved)], given)


def metadata_annotations(field: str, given: Any, misplaced: Mapping[str, str]) -> None:
    """Refuse annotations that users cannot set."""
    checked(field, Annotated[UserAnnotations, without_keys(MISPLACED, misplaced)], given)


def env_sources(field: str, given: Any) -> None:
    """Refuse what is no `envFrom`."""
    checked(field, EnvFrom, given)


def container_env(field: str, given: Any, reserved: Mapping[str, str]) -> None:
    """Refuse variables that users cannot set."""
    checked(field, Env, given)
    for index, entry in enumerate(given):
        if entry["name"] in reserved:
            raise InvalidInput(f"{field}[{index}]: {entry['name']} {reserved[entry['name']]}.")


def container_shape(
    name: str,
    *,
    port_name: str,
    reserved: Mapping[str, str],
    own_env: Mapping[str, Shape] | None = None,
    more: Mapping[str, Shape] | None = None,
) -> Fields:
    """Give the shape of what `bento_container` gives.

    Args:
        name: The container's name.
        port_name: Name of its port.
        reserved: Variables that users cannot set, each with the reason.
        own_env: Variables that the target sets itself, with the shapes of their entries.
        more: Further fields of the container.
    """
    own = {API_TOKEN: _TOKEN, **(own_env or {})}
    fields: dict[str, Shape] = {
        "name": Exactly(name),
        "image": Value(str, image_problem),
        "ports": Exactly([{"name": port_name, "containerPort": PORT, "protocol": "TCP"}]),
        "env": Also(ENV, _env_check(reserved, own)),
        "envFrom": Also(ENV_FROM, env_sources),
        "resources": RESOURCES,
        "securityContext": Exactly(dict(CONTAINER_SECURITY)),
        "volumeMounts": Items(_MOUNT),
        "startupProbe": _PROBE,
        "readinessProbe": _PROBE,
        "livenessProbe": _PROBE,
        **(more or {}),
    }
    probes = ("readinessProbe", "livenessProbe")
    needed = {"name", "image", "ports", "securityContext", "volumeMounts", *probes}
    return Fields(fields, frozenset(needed | (more or {}).keys()))


def pod_shape(container: Shape, *, security: bool, more: Mapping[str, Shape] | None = None) -> Also:
    """Give the shape of what `pod_spec` gives around one container.

    Args:
        container: Shape of the container.
        security: Whether the pod has a security context of its own.
        more: Further fields beside those of the pod.
    """
    fields: dict[str, Shape] = {
        "containers": Items(container, count=1),
        **_SCHEDULING,
        "volumes": Items(_VOLUME),
        "terminationGracePeriodSeconds": COUNT,
        "automountServiceAccountToken": TRUTH,
        **({"securityContext": Exactly(dict(POD_SECURITY))} if security else {}),
        **(more or {}),
    }
    needed = {"containers", "volumes", "automountServiceAccountToken"}
    needed |= {"securityContext"} if security else set()
    return Also(Fields(fields, frozenset(needed)), _check_volumes)


def pod_fields_of_a_runtime() -> dict[str, Shape]:
    """Give the fields of a pod whose containers and volumes are brought by somebody else."""
    return {**_SCHEDULING, "terminationGracePeriodSeconds": COUNT}


def labels_shape(
    reserved: Sequence[str], own: Mapping[str, str], others: Sequence[str] = ()
) -> Also:
    """Give the shape of labels: our own as they must be, and what `labels` may set.

    Args:
        reserved: Keys, or prefixes that end with '/', that users cannot set.
        own: Labels that must be there.
        others: Reserved keys that we set to whatever the bento says.
    """

    def check(field: str, given: Mapping[str, str]) -> None:
        for key, value in own.items():
            if given.get(key) != value:
                raise InvalidInput(f"{field}[{key}] is {given.get(key)!r}, not {value!r}.")
        label_settings(field, _without(given, (*own, *others)), reserved)

    return Also(LABELS, check)


def annotations_shape(misplaced: Mapping[str, str], own: Sequence[str] = tuple(PROVENANCE)) -> Also:
    """Give the shape of the annotations of an object: our own, and what `annotations` may set.

    Args:
        misplaced: Prefixes that nothing reads there.
        own: Keys that we write ourselves.
    """

    def check(field: str, given: Mapping[str, str]) -> None:
        metadata_annotations(field, _without(given, own), misplaced)

    return Also(ANNOTATIONS, check)


def pod_annotations_shape(own: Sequence[str] = ()) -> Also:
    """Give the shape of the annotations of pods, with the mark of their revision.

    Args:
        own: Further keys that we write ourselves.
    """

    def check(field: str, given: Mapping[str, str]) -> None:
        if not _REVISION.fullmatch(given.get(POD_REVISION, "")):
            raise InvalidInput(f"{field}[{POD_REVISION}] is no revision.")
        annotations = _without(given, (POD_REVISION, *own))
        checked(field, PodMetadata, {"annotations": annotations})

    return Also(ANNOTATIONS, check)


def object_shape(metadata: Mapping[str, Shape], spec: Shape | None) -> Fields:
    """Give the shape of an object whose kind, name and namespace are checked already.

    Args:
        metadata: Shapes of its labels and annotations.
        spec: Shape of its spec; None where it has none.
    """
    fields: dict[str, Shape] = {
        "apiVersion": TEXT,
        "kind": TEXT,
        "metadata": Fields({"name": TEXT, "namespace": TEXT, **metadata}),
        **({} if spec is None else {"spec": spec}),
    }
    return Fields(fields, frozenset(fields))


def _without(given: Mapping[str, str], keys: Sequence[str]) -> dict[str, str]:
    return {key: value for key, value in given.items() if key not in keys}


def _env_check(
    reserved: Mapping[str, str], own: Mapping[str, Shape]
) -> Callable[[str, Sequence[Mapping[str, Any]]], None]:
    def check(field: str, given: Sequence[Mapping[str, Any]]) -> None:
        for index, entry in enumerate(given):
            shape = own.get(entry["name"])
            for problem in shape_problems(entry, shape, f"{field}[{index}]") if shape else ():
                raise InvalidInput(f"{problem}.")
        names = [entry["name"] for entry in given]
        for name in own:
            if names.count(name) > 1:
                raise InvalidInput(f"{field}: {name} is given twice.")
        container_env(field, [one for one in given if one["name"] not in own], reserved)

    return check


def _check_volumes(field: str, spec: Mapping[str, Any]) -> None:
    """Refuse volumes and mounts that are not those of some options, in pairs and in order."""
    volumes, mounts = spec["volumes"], spec["containers"][0]["volumeMounts"]
    secrets: dict[str, str] = {}
    configs: dict[str, str] = {}
    shared = ""
    for mount, volume in zip(mounts, volumes, strict=False):
        if "secret" in volume:
            secrets[mount["mountPath"]] = volume["secret"]["secretName"]
        elif "configMap" in volume:
            configs[mount["mountPath"]] = volume["configMap"]["name"]
        else:
            shared = shared or volume.get("emptyDir", {}).get("sizeLimit", "")
    options = PodOptions(secret_files=secrets, config_files=configs, shared_memory=shared)
    rendered = volumes_and_mounts(options)
    if [mounts, volumes] != [[mount for mount, _ in rendered], [one for _, one in rendered]]:
        raise InvalidInput(f"{field}.volumes are not those that are rendered for its mounts.")


_PEER = Fields(
    {
        "namespaceSelector": LABEL_SELECTOR,
        "podSelector": LABEL_SELECTOR,
        "ipBlock": Fields({"cidr": TEXT, "except": TEXTS}, frozenset({"cidr"})),
    }
)
_PORT = Fields(
    {"port": NUMBER_OR_TEXT, "protocol": one_of("TCP", "UDP", "SCTP")}, frozenset({"port"})
)


def policy_shape(metadata: Mapping[str, Shape], pods: Mapping[str, str]) -> Fields:
    """Give the shape of what `policy_manifests` gives.

    Args:
        metadata: Shapes of labels and annotations.
        pods: Labels of the release's pods.
    """
    ports, peers = Items(_PORT), Items(_PEER)
    spec = Fields(
        {
            "podSelector": Exactly({"matchLabels": dict(pods)}),
            "policyTypes": TEXTS,
            "ingress": Items(Fields({"from": peers, "ports": ports}, frozenset({"from"})), count=1),
            "egress": Items(Fields({"to": peers, "ports": ports}, frozenset({"to"}))),
        },
        frozenset({"podSelector", "policyTypes", "ingress"}),
    )
    return Fields(
        {
            "apiVersion": TEXT,
            "kind": TEXT,
            "metadata": Fields({"name": TEXT, "namespace": TEXT, **metadata}),
            "spec": Also(spec, _check_policy),
        },
        frozenset({"apiVersion", "kind", "metadata", "spec"}),
    )


def _check_policy(field: str, spec: Mapping[str, Any]) -> None:
    types = ["Ingress", "Egress"] if "egress" in spec else ["Ingress"]
    if spec["policyTypes"] != types:
        raise InvalidInput(f"{field}.policyTypes is not {types}.")
    inside = [peer for rule in spec["ingress"] for peer in rule["from"][1:]]
    called = [peer for rule in spec.get("egress", ()) for peer in rule["to"]]
    checked(field, NetworkPolicy, {"ingress": inside, "egress": called})
    if any(rule["from"][0] != {"podSelector": {}} for rule in spec["ingress"]):
        raise InvalidInput(f"{field}.ingress leaves the release's own namespace out.")
