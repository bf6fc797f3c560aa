"""A watch as a Deployment: what it runs as, what it may do, where webhooks reach it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kfp_bento.runtime.runs.webhook import SECRET, read_address

_PIPELINES = "pipelines.kubeflow.org"
# Where Kubeflow's own PodDefault mounts it, and kfp looks for it.
_TOKEN_FOLDER = "/var/run/secrets/kubeflow/pipelines"  # noqa: S105 - a place
# An hour: kubelet renews it in time, and it is read anew for each request.
_TOKEN_SECONDS = 3600
_USER = 65532


@dataclass(frozen=True)
class WatchPod:
    """What the pod of a watch is made of.

    Attributes:
        name: Name of all objects.
        namespace: Where it runs, and submits to.
        image: The components' image.
        command: Arguments of kfp-bento.
        listen: HOST:PORT for webhooks; empty takes none.
        mlflow_secret: Secret with MLflow's credentials and address; may be absent.
        webhook_secret: Secret whose key `secret` the webhook is signed with.
    """

    name: str
    namespace: str
    image: str
    command: Sequence[str]
    listen: str = ""
    mlflow_secret: str = "kfp-bento-mlflow"  # noqa: S105 - a name
    webhook_secret: str = "kfp-bento-webhook"  # noqa: S105 - a name


def watch_manifests(pod: WatchPod) -> dict[str, dict[str, Any]]:
    """Give the objects by file name, accepted where Pod Security is restricted.

    What the API server of Kubeflow Pipelines asks Kubernetes of the account is the right to create,
    get and list runs and experiments (its apiserver's SubjectAccessReview).
    """
    objects = [
        _object(pod, "v1", "ServiceAccount", automountServiceAccountToken=False),
        _object(pod, "rbac.authorization.k8s.io/v1", "Role", rules=_rules()),
        _role_binding(pod),
        _object(pod, "apps/v1", "Deployment", spec=_deployment(pod)),
    ]
    if pod.listen:
        ports = [{"name": "http", "port": 80, "targetPort": "http"}]
        spec = {"selector": _labels(pod), "ports": ports}
        objects.append(_object(pod, "v1", "Service", spec=spec))
    return {f"{one['kind'].lower()}-{pod.name}.yaml": one for one in objects}


def _labels(pod: WatchPod) -> dict[str, str]:
    return {"app.kubernetes.io/name": "kfp-bento-watch", "app.kubernetes.io/instance": pod.name}


def _object(pod: WatchPod, version: str, kind: str, **content: Any) -> dict[str, Any]:
    metadata = {"name": pod.name, "namespace": pod.namespace, "labels": _labels(pod)}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **content}


def _rules() -> list[dict[str, Any]]:
    verbs = ["create", "get", "list"]
    return [{"apiGroups": [_PIPELINES], "resources": ["experiments", "runs"], "verbs": verbs}]


def _role_binding(pod: WatchPod) -> dict[str, Any]:
    group = "rbac.authorization.k8s.io"
    account = {"kind": "ServiceAccount", "name": pod.name, "namespace": pod.namespace}
    role = {"apiGroup": group, "kind": "Role", "name": pod.name}
    return _object(pod, f"{group}/v1", "RoleBinding", subjects=[account], roleRef=role)


def _deployment(pod: WatchPod) -> dict[str, Any]:
    return {
        # Two at once would each look for the run before the other one has made it.
        "replicas": 1,
        "strategy": {"type": "Recreate"},
        "selector": {"matchLabels": _labels(pod)},
        "template": {"metadata": {"labels": _labels(pod)}, "spec": _pod(pod)},
    }


def _pod(pod: WatchPod) -> dict[str, Any]:
    token = {"audience": _PIPELINES, "expirationSeconds": _TOKEN_SECONDS, "path": "token"}
    return {
        "serviceAccountName": pod.name,
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 120,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(pod)],
        "volumes": [
            {"name": "scratch", "emptyDir": {}},
            {
                "name": "pipelines-token",
                "projected": {"sources": [{"serviceAccountToken": token}]},
            },
        ],
    }


def _container(pod: WatchPod) -> dict[str, Any]:
    container: dict[str, Any] = {
        "name": "watch",
        "image": pod.image,
        # Kubernetes would put variables in where it finds $(NAME).
        "command": [
            *("python3", "-m", "kfp_bento.runtime.cli"),
            *(word.replace("$(", "$$(") for word in pod.command),
        ],
        "env": _environment(pod),
        "resources": {
            "requests": {"cpu": "50m", "memory": "384Mi"},
            "limits": {"memory": "1Gi"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [
            {"name": "scratch", "mountPath": "/scratch"},
            {"name": "pipelines-token", "mountPath": _TOKEN_FOLDER, "readOnly": True},
        ],
    }
    if pod.listen:
        probe = {"httpGet": {"path": "/healthz", "port": "http"}, "timeoutSeconds": 5}
        container["ports"] = [{"name": "http", "containerPort": read_address(pod.listen)[1]}]
        container["livenessProbe"] = probe | {"initialDelaySeconds": 30, "periodSeconds": 30}
        container["readinessProbe"] = probe | {"periodSeconds": 5}
    return container


def _environment(pod: WatchPod) -> list[dict[str, Any]]:
    plain = {"HOME": "/scratch", "TMPDIR": "/scratch", "KFP_BENTO_IMAGE": pod.image}
    secrets = {
        "MLFLOW_TRACKING_URI": (pod.mlflow_secret, "tracking_uri"),
        "MLFLOW_TRACKING_USERNAME": (pod.mlflow_secret, "username"),
        "MLFLOW_TRACKING_PASSWORD": (pod.mlflow_secret, "password"),
        "MLFLOW_TRACKING_TOKEN": (pod.mlflow_secret, "token"),
    }
    if pod.listen:
        secrets[SECRET] = (pod.webhook_secret, "secret")
    return [
        *({"name": name, "value": value} for name, value in plain.items()),
        *(
            {
                "name": name,
                "valueFrom": {
                    "secretKeyRef": {"name": secret, "key": key, "optional": name != SECRET}
                },
            }
            for name, (secret, key) in secrets.items()
        ),
    ]
