"""The pod that runs an image of a bento, under the restricted Pod Security Standard.

Our images run as uid 1034 and need one writable place, /tmp: `runtime/images/oci/config.py` sends
there what BentoML would write elsewhere. Images that BentoML itself built write below
BENTOML_HOME too, for which there is `writable_home`.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.deployments.kube.shapes import settled
from kfp_bento.runtime.deployments.options.core_shapes import (
    AFFINITY,
    ENV_FROM,
    NODE_SELECTOR,
    TOLERATIONS,
    TOPOLOGY_SPREAD,
)
from kfp_bento.runtime.deployments.options.names import (
    image_problem,
    namespace_problem,
    resource_name_problem,
)
from kfp_bento.runtime.deployments.options.options import (
    Listing,
    Object,
    ObjectOrListing,
    Options,
    listing,
    mapping,
    text,
    without_empty,
)
from kfp_bento.runtime.deployments.options.pod_settings import (
    check_scheduling,
    container_env,
    secret_names,
)
from kfp_bento.runtime.deployments.options.quantities import quantity_text
from kfp_bento.runtime.errors import InvalidInput

if TYPE_CHECKING:
    from kfp_bento.runtime.deployments.options.bento_facts import BentoFacts

PORT = 3000
USER_ID = 1034
TEMPORARY = "/tmp"  # noqa: S108 - the mount point in the container
HOME_ON_TMP = f"{TEMPORARY}/bentoml"

POD_SECURITY: Mapping[str, Any] = {
    "runAsNonRoot": True,
    "runAsUser": USER_ID,
    "runAsGroup": USER_ID,
    "seccompProfile": {"type": "RuntimeDefault"},
}
CONTAINER_SECURITY: Mapping[str, Any] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
    **POD_SECURITY,
}

API_TOKEN = "KFP_BENTO_API_TOKEN"  # noqa: S105 - the name of a variable
"""The variable by which a generated service wants a token with each request."""

_MOVES_THE_PORT = "moves the port away from 3000, where the Service and the probes expect it"
RESERVED_ENVS: Mapping[str, str] = {
    "PORT": _MOVES_THE_PORT,
    "BENTOML_PORT": _MOVES_THE_PORT,
    "BENTOML_HOST": "moves the server to another address than the one that probes reach",
    "BENTO_PATH": "is where the image has its bento",
    API_TOKEN: "is set by the option api_token_secret; everybody could read it here",
}
_PROBE_SECONDS = 5


@dataclass(frozen=True, kw_only=True)
class PodOptions(Options):
    """What targets have in common that make their pods themselves.

    Attributes:
        name: Name of the release: DNS-1035, at most 50 characters; the bento's when empty.
        namespace: Namespace of all resources.
        resources: `requests` and `limits` of `cpu`, `memory`, `ephemeral-storage`, `gpu`
            (limits only), `custom`.
        autoscaling: See the target.
        envs: Environment variables, as a mapping or a list with `value` or `valueFrom`.
        env_from: Secrets and ConfigMaps that become variables, as `envFrom` has them; a plain
            string names a Secret.
        image_pull_secrets: Names of registry Secrets in the namespace.
        labels: Labels of all resources and the pods, never of selectors.
        annotations: Annotations of the metadata of all resources.
        extra_pod_metadata: `labels` and `annotations` of the pods alone.
        service_account: ServiceAccount of the pods.
        automount_token: Whether the pods get a token of the Kubernetes API.
        secret_files: Secrets as files, mount path to the Secret's name.
        config_files: The same for ConfigMaps.
        node_selector: Labels that a node must have.
        tolerations: Taints that the pods bear.
        affinity: As Kubernetes has it.
        topology_spread: `topologySpreadConstraints`; a missing labelSelector is filled in.
        priority_class: PriorityClass of the pods.
        runtime_class: RuntimeClass of the pods.
        scheduler_name: Another scheduler.
        writable_home: Put BENTOML_HOME on /tmp, for images that BentoML itself built.
        shared_memory: Size of /dev/shm, for example "1Gi".
        startup_seconds: Longest time from start to ready.
        termination_seconds: Time to finish requests after SIGTERM.
        network_policy: Who may talk with the pods. `ingress` lists who gets in besides the pods of
            the same namespace: the name of a namespace, or a peer as a NetworkPolicy has it;
            `egress` is none, dns, or a list of peers (each with `ports`, or dns) that the pods may
            call; they may call everybody where it is not said. No policy when empty.
        api_token_secret: `name` of a Secret and `key` in it (default: token): what the service
            wants as `Authorization: Bearer ...`; for services that kfp-bento generated.
    """

    name: str = ""
    namespace: str = "default"
    resources: Object | None = None
    autoscaling: Object | None = None
    envs: ObjectOrListing | None = None
    env_from: Listing | None = None
    image_pull_secrets: Listing = ()
    labels: Object | None = None
    annotations: Object | None = None
    extra_pod_metadata: Object | None = None
    service_account: str = ""
    automount_token: bool = False
    secret_files: Object | None = None
    config_files: Object | None = None
    node_selector: Object | None = None
    tolerations: Listing | None = None
    affinity: Object | None = None
    topology_spread: Listing | None = None
    priority_class: str = ""
    runtime_class: str = ""
    scheduler_name: str = ""
    writable_home: bool = False
    shared_memory: str = ""
    startup_seconds: int = 300
    termination_seconds: int = 60
    network_policy: Object | None = None
    api_token_secret: Object | None = None


def check_place(options: PodOptions) -> None:
    """Refuse names that Kubernetes has no object for.

    Raises:
        InvalidInput: The namespace, an account or a class cannot have this name.
    """
    if problem := namespace_problem(options.namespace):
        raise InvalidInput(
            f"namespace: {options.namespace!r} {problem}.", hint="For example 'serving'."
        )
    for field in ("service_account", "priority_class", "runtime_class"):
        name = getattr(options, field)
        if name and (problem := resource_name_problem(name)):
            raise InvalidInput(f"{field}: {name!r} {problem}.", hint="Give the object's name.")
    if options.startup_seconds < _PROBE_SECONDS:
        raise InvalidInput(
            f"startup_seconds: {options.startup_seconds} is less than one probe takes.",
            hint="Give the pods 60 seconds or more.",
        )


def check_image(field: str, image: str) -> None:
    """Refuse an image that is not named by its digest.

    Raises:
        InvalidInput: A tag alone, or no image reference.
    """
    if problem := image_problem(image):
        raise InvalidInput(
            f"{field}: {image!r} {problem}.",
            hint="Give repository@sha256:..., as build_image returns it.",
        )


def bento_container(
    name: str,
    image: str,
    options: PodOptions,
    *,
    resources: Mapping[str, Any],
    port_name: str,
    reserved: Mapping[str, str] | None = None,
    startup_probe: bool = True,
) -> dict[str, Any]:
    """Give the container that serves a bento on port 3000.

    Args:
        name: Its name.
        image: Image by digest.
        options: What the user chose.
        resources: Checked requests and limits.
        port_name: Name of the port.
        reserved: Further variables that cannot be set, each with the reason.
        startup_probe: Whether the platform takes one; otherwise the liveness probe waits.

    Raises:
        InvalidInput: A variable, a source or a mount that cannot be honoured.
    """
    envs = container_env("envs", options.envs, {**RESERVED_ENVS, **(reserved or {})})
    envs = [*_token_env(options), *envs]
    if options.writable_home:
        envs = [{"name": "BENTOML_HOME", "value": HOME_ON_TMP}, *envs]
        if sum(one["name"] == "BENTOML_HOME" for one in envs) > 1:
            raise InvalidInput(
                "writable_home: it sets BENTOML_HOME, which envs sets too.",
                hint="Give one of the two.",
            )
    container = {
        "name": name,
        "image": image,
        "ports": [{"name": port_name, "containerPort": PORT, "protocol": "TCP"}],
        "env": envs,
        "envFrom": env_sources("env_from", options.env_from),
        "resources": dict(resources),
        "securityContext": dict(CONTAINER_SECURITY),
        "volumeMounts": [mount for mount, _ in volumes_and_mounts(options)],
        **_probes(options.startup_seconds, startup_probe),
    }
    return without_empty(container)


def env_sources(field: str, given: Listing | None) -> list[dict[str, Any]]:
    """Give `envFrom`; a plain string names a Secret.

    Raises:
        InvalidInput: An entry that is not exactly one source.
    """
    entries = [
        {"secretRef": {"name": one}} if isinstance(one, str) else one
        for one in listing(field, given or [])
    ]
    sources: list[dict[str, Any]] = settled(field, entries, ENV_FROM)
    for index, source in enumerate(sources):
        if len(source.keys() - {"prefix"}) != 1:
            raise InvalidInput(
                f"{field}[{index}]: a source is one Secret or one ConfigMap.",
                hint="Write {'secretRef': {'name': ...}}.",
            )
    return sources


def pod_spec(
    container: Mapping[str, Any], options: PodOptions, pods: Mapping[str, str]
) -> dict[str, Any]:
    """Give the pod around a container.

    Args:
        container: What `bento_container` gave.
        options: What the user chose.
        pods: Labels that all pods of this kind have, to spread them.

    Raises:
        InvalidInput: A setting that Kubernetes does not have.
    """
    spread = settled("topology_spread", options.topology_spread or [], TOPOLOGY_SPREAD)
    tolerations = settled("tolerations", options.tolerations or [], TOLERATIONS)
    check_scheduling(tolerations, spread, "tolerations", "topology_spread")
    for constraint in spread:
        # Without a selector it would count no pod, and spread nothing.
        constraint.setdefault("labelSelector", {"matchLabels": dict(pods)})
    secrets = secret_names("image_pull_secrets", options.image_pull_secrets)
    spec = {
        "containers": [dict(container)],
        "serviceAccountName": options.service_account,
        "imagePullSecrets": [{"name": name} for name in secrets],
        "volumes": [volume for _, volume in volumes_and_mounts(options)],
        "nodeSelector": settled("node_selector", options.node_selector or {}, NODE_SELECTOR),
        "tolerations": tolerations,
        "affinity": settled("affinity", options.affinity or {}, AFFINITY),
        "topologySpreadConstraints": spread,
        "priorityClassName": options.priority_class,
        "runtimeClassName": options.runtime_class,
        "schedulerName": options.scheduler_name,
        "terminationGracePeriodSeconds": options.termination_seconds,
    }
    return {
        **without_empty(spec),
        "automountServiceAccountToken": options.automount_token,
    }


def check_token(options: PodOptions, bento: BentoFacts | None) -> None:
    """Refuse a token that the service would not ask for.

    Raises:
        InvalidInput: The service is not one of ours, or of a version without tokens.
    """
    if not options.api_token_secret:
        return
    if bento is None:
        raise InvalidInput(
            "api_token_secret: a stored model is served by a runtime that knows no such token.",
            hint="Leave it out, and put authentication before the service.",
        )
    if not bento.takes_token:
        raise InvalidInput(
            f"api_token_secret: the service of {bento.tag} asks for no token, or its folder is not "
            "here to be looked at; it would answer anybody.",
            hint="Build the bento again with a generated service, or read a token of your own "
            "through envs with valueFrom.",
        )


def _token_env(options: PodOptions) -> list[dict[str, Any]]:
    if not options.api_token_secret:
        return []
    given = mapping("api_token_secret", options.api_token_secret, ("name", "key"))
    name = text("api_token_secret.name", given.get("name", ""))
    key = text("api_token_secret.key", given.get("key", "token"))
    problem = resource_name_problem(name) if name else "is empty"
    if problem or not key:
        raise InvalidInput(
            f"api_token_secret.name: {name!r} {problem or 'has no key'}.",
            hint="Write {'name': ..., 'key': ...}: the name of a Secret, not the token itself.",
        )
    source = {"secretKeyRef": {"name": name, "key": key}}
    return [{"name": API_TOKEN, "valueFrom": source}]


def _probes(startup_seconds: int, startup_probe: bool) -> dict[str, Any]:
    """A dead server is restarted, a busy one only left out, and a slow start is neither."""

    def get(path: str, **settings: int) -> dict[str, Any]:
        return {
            "httpGet": {"path": path, "port": PORT, "scheme": "HTTP"},
            "timeoutSeconds": _PROBE_SECONDS,
            **settings,
        }

    readiness = get("/readyz", periodSeconds=5, failureThreshold=3)
    liveness = get("/livez", periodSeconds=10, failureThreshold=6)
    if not startup_probe:
        return {
            "readinessProbe": readiness,
            "livenessProbe": {**liveness, "initialDelaySeconds": startup_seconds},
        }
    tries = -(-startup_seconds // _PROBE_SECONDS)
    return {
        "startupProbe": get("/readyz", periodSeconds=_PROBE_SECONDS, failureThreshold=tries),
        "readinessProbe": readiness,
        "livenessProbe": liveness,
    }


def volumes_and_mounts(options: PodOptions) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Give each mount with its volume: what may be written, then Secrets and ConfigMaps.

    Raises:
        InvalidInput: A path that nothing can be mounted at, or a name that no object has.
    """
    pairs: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"name": "tmp", "mountPath": TEMPORARY}, {"name": "tmp", "emptyDir": {}})
    ]
    if options.shared_memory:
        size = quantity_text("shared_memory", options.shared_memory)
        pairs.append(
            (
                {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108 - in the container
                {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": size}},
            )
        )
    taken = [mount["mountPath"] for mount, _ in pairs]
    for field, kind, key in (
        ("secret_files", "secret", "secretName"),
        ("config_files", "configMap", "name"),
    ):
        for index, (path, name) in enumerate((getattr(options, field) or {}).items()):
            _check_mount(field, path, name, taken)
            taken.append(path)
            # Named by number: a Secret's name may have dots, a volume's may not.
            volume = f"{kind.lower()}-{index}"
            mount = {"name": volume, "mountPath": path, "readOnly": True}
            pairs.append((mount, {"name": volume, kind: {key: name}}))
    return pairs


def _check_mount(field: str, path: str, name: Any, taken: list[str]) -> None:
    if not path.startswith("/") or posixpath.normpath(path) != path or ":" in path or path == "/":
        raise InvalidInput(
            f"{field}[{path}]: it is no absolute path to mount at.",
            hint="Write a path such as /etc/serving/credentials.",
        )
    inside = "/home/bentoml/bento", "/app/.venv"
    if path in taken or any(path == one or one.startswith(f"{path}/") for one in inside):
        raise InvalidInput(
            f"{field}[{path}]: something else is there already, which the mount would hide.",
            hint="Choose a path of its own.",
        )
    if problem := resource_name_problem(text(f"{field}[{path}]", name)):
        raise InvalidInput(f"{field}[{path}]: {name!r} {problem}.", hint="Give its name.")
