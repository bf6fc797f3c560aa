"""The pod that runs an image of a bento, under the restricted Pod Security Standard.

Our images run as uid 1034 and need one writable place, /tmp: `runtime/images/oci/config.py` sends
there what BentoML would write elsewhere. Images that BentoML itself built write below
BENTOML_HOME too, for which there is `writable_home`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.deployments.options.core import with_selectors
from kfp_bento.runtime.deployments.options.names import image_problem
from kfp_bento.runtime.deployments.options.options import without_empty
from kfp_bento.runtime.deployments.targets.pod_settings import (
    API_TOKEN,
    PROBE_SECONDS,
    SHARED_MEMORY,
    TEMPORARY,
    PodOptions,
)
from kfp_bento.runtime.errors import InvalidInput

if TYPE_CHECKING:
    from kfp_bento.runtime.deployments.options.bento_facts import BentoFacts

PORT = 3000
USER_ID = 1034
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

LIFECYCLE: Mapping[str, Any] = {"preStop": {"exec": {"command": ["sleep", "5"]}}}
"""Goes on answering: endpoints forget a pod a moment after it is told to stop."""


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
    startup_probe: bool = True,
) -> dict[str, Any]:
    """Give the container that serves a bento on port 3000.

    Args:
        name: Its name.
        image: Image by digest.
        options: What the user chose.
        resources: Checked requests and limits.
        port_name: Name of the port.
        startup_probe: Whether the platform takes one; otherwise the liveness probe waits.
    """
    envs: list[Any] = [*_token_env(options), *options.envs]
    if options.writable_home:
        envs = [{"name": "BENTOML_HOME", "value": HOME_ON_TMP}, *envs]
    container = {
        "name": name,
        "image": image,
        "ports": [{"name": port_name, "containerPort": PORT, "protocol": "TCP"}],
        "env": envs,
        "envFrom": options.env_from,
        "resources": dict(resources),
        "securityContext": dict(CONTAINER_SECURITY),
        "volumeMounts": [mount for mount, _ in volumes_and_mounts(options)],
        **_probes(options.startup_seconds, startup_probe),
    }
    return without_empty(container)


def pod_spec(
    container: Mapping[str, Any], options: PodOptions, pods: Mapping[str, str]
) -> dict[str, Any]:
    """Give the pod around a container.

    Args:
        container: What `bento_container` gave.
        options: What the user chose.
        pods: Labels that all pods of this kind have, to spread them.
    """
    spec = {
        "containers": [dict(container)],
        "serviceAccountName": options.service_account,
        "imagePullSecrets": [{"name": name} for name in options.image_pull_secrets],
        "volumes": [volume for _, volume in volumes_and_mounts(options)],
        "nodeSelector": options.node_selector,
        "tolerations": options.tolerations,
        "affinity": options.affinity,
        "topologySpreadConstraints": with_selectors(options.topology_spread, pods),
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
    if not (token := options.api_token_secret):
        return []
    source = {"secretKeyRef": {"name": token.name, "key": token.key}}
    return [{"name": API_TOKEN, "valueFrom": source}]


def _probes(startup_seconds: int, startup_probe: bool) -> dict[str, Any]:
    """Give the probes: a dead server is restarted, a busy one left out, a slow start neither."""

    def get(path: str, **settings: int) -> dict[str, Any]:
        return {
            "httpGet": {"path": path, "port": PORT, "scheme": "HTTP"},
            "timeoutSeconds": PROBE_SECONDS,
            **settings,
        }

    readiness = get("/readyz", periodSeconds=5, failureThreshold=3)
    liveness = get("/livez", periodSeconds=10, failureThreshold=6)
    if not startup_probe:
        return {
            "readinessProbe": readiness,
            "livenessProbe": {**liveness, "initialDelaySeconds": startup_seconds},
        }
    tries = -(-startup_seconds // PROBE_SECONDS)
    return {
        "startupProbe": get("/readyz", periodSeconds=PROBE_SECONDS, failureThreshold=tries),
        "readinessProbe": readiness,
        "livenessProbe": liveness,
    }


def volumes_and_mounts(options: PodOptions) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Give each mount with its volume: what may be written, then Secrets and ConfigMaps."""
    pairs: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"name": "tmp", "mountPath": TEMPORARY}, {"name": "tmp", "emptyDir": {}})
    ]
    if options.shared_memory:
        memory = {"medium": "Memory", "sizeLimit": options.shared_memory}
        pairs.append(
            ({"name": "shm", "mountPath": SHARED_MEMORY}, {"name": "shm", "emptyDir": memory})
        )
    for files, kind, key in (
        (options.secret_files, "secret", "secretName"),
        (options.config_files, "configMap", "name"),
    ):
        for index, (path, name) in enumerate(files.items()):
            # Named by number: a Secret's name may have dots, a volume's may not.
            volume = f"{kind.lower()}-{index}"
            mount = {"name": volume, "mountPath": path, "readOnly": True}
            pairs.append((mount, {"name": volume, kind: {key: name}}))
    return pairs
