"""A Kubernetes cluster: whether one is configured, and server-side apply to it."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kfp_bento.runtime.errors import DeploymentError

from .portable_subset import manifest_problems

FIELD_MANAGER = "kfp-bento"
REQUEST_SECONDS = 30.0

_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


def cluster_configured() -> bool:
    """Say whether this process has a cluster to talk to.

    True inside a pod with a service account, and where a kubeconfig exists (`KUBECONFIG`, or
    `~/.kube/config`). Nothing is contacted.
    """
    return _inside_a_pod() or any(path.is_file() for path in _kubeconfigs())


def apply_manifests(
    manifests: Sequence[Mapping[str, Any]],
    *,
    dry_run: bool = False,
    context: str = "",
    force: bool = False,
) -> None:
    """Hand manifests to the cluster by server-side apply, as field manager `kfp-bento`.

    All of them are tried as a dry run first, so that a refusal changes nothing. Applying
    the same manifests again changes nothing either.

    Args:
        manifests: What `render_bento_deployment` gave.
        dry_run: Stop after the dry run.
        context: Context of the kubeconfig; the current one, or the pod's own, when empty.
        force: Take over fields that another field manager owns instead of failing.

    Raises:
        DeploymentError: The manifests are not portable; no cluster answers; it lacks the
            CRDs, the namespace or the permission; another field manager owns a field.
    """
    if problems := manifest_problems(manifests):
        raise DeploymentError(
            "The manifests were not sent: " + "; ".join(problems) + ".",
            hint="Render them with render_bento_deployment, which refuses what cannot work.",
        )
    with _connect(context) as client:
        resources = [_resource_of(client, manifest) for manifest in manifests]
        for trial in (True,) if dry_run else (True, False):
            for resource, manifest in zip(resources, manifests, strict=True):
                _apply(client, resource, manifest, trial=trial, force=force)


def _inside_a_pod() -> bool:
    return bool(os.environ.get("KUBERNETES_SERVICE_HOST")) and _SERVICE_ACCOUNT.is_file()


def _kubeconfigs() -> list[Path]:
    named = os.environ.get("KUBECONFIG", "")
    if named:
        return [Path(part).expanduser() for part in named.split(os.pathsep) if part]
    try:
        return [Path.home() / ".kube" / "config"]
    except RuntimeError:  # an unknown uid without HOME, as in a restricted pod
        return []


@contextmanager
def _connect(context: str) -> Iterator[Any]:
    """Give a dynamic client whose discovery cache nobody shares."""
    from kubernetes import client as kubernetes_client
    from kubernetes import config
    from urllib3.exceptions import HTTPError

    try:
        if not context and not os.environ.get("KUBECONFIG") and _inside_a_pod():
            settings = kubernetes_client.Configuration()
            config.load_incluster_config(client_configuration=settings)
            api = kubernetes_client.ApiClient(settings)
        else:
            # The client reads KUBECONFIG only once, when it is imported.
            files = os.pathsep.join(str(path) for path in _kubeconfigs())
            api = config.new_client_from_config(config_file=files, context=context or None)
    except (config.ConfigException, OSError) as error:
        raise DeploymentError(
            f"No cluster is configured: {error}",
            hint="Set KUBECONFIG, run inside a pod with a service account, or only render.",
        ) from error
    host = api.configuration.host
    with api, tempfile.TemporaryDirectory(prefix="kfp-bento-discovery-") as scratch:
        try:
            yield _discover(api, Path(scratch) / "discovery.json")
        except HTTPError as error:
            raise _silence(host, error) from error
        except kubernetes_client.ApiException as error:
            raise _refusal(error, f"The API server {host}") from error


def _discover(api: Any, cache: Path) -> Any:
    from kubernetes import dynamic

    try:
        return dynamic.DynamicClient(api, cache_file=str(cache))
    except ValueError as error:  # what the client makes of a connection cut or not TLS
        raise _silence(api.configuration.host, error) from error


def _silence(host: str, error: BaseException) -> DeploymentError:
    return DeploymentError(
        f"The API server {host} does not answer: {_first_line(error)}",
        hint="Check that the cluster runs and that the kubeconfig's context is right.",
    )


def _resource_of(client: Any, manifest: Mapping[str, Any]) -> Any:
    from kubernetes.dynamic.exceptions import NotFoundError, ResourceNotFoundError

    try:
        return client.resources.get(api_version=manifest["apiVersion"], kind=manifest["kind"])
    except (ResourceNotFoundError, NotFoundError) as error:
        raise DeploymentError(
            f"The cluster does not know {manifest['apiVersion']} {manifest['kind']}.",
            hint="Install the CRDs and operators yatai-image-builder (Bento) and "
            "yatai-deployment (BentoDeployment), or use mode 'render'.",
        ) from error


def _apply(
    client: Any, resource: Any, manifest: Mapping[str, Any], *, trial: bool, force: bool
) -> None:
    from kubernetes.client import ApiException

    options: dict[str, Any] = {"dry_run": "All"} if trial else {}
    try:
        client.server_side_apply(
            resource,
            body=dict(manifest),
            field_manager=FIELD_MANAGER,
            force_conflicts=force,
            # An API server that would prune a field says so instead (Kubernetes 1.25).
            query_params=[("fieldValidation", "Strict")],
            _request_timeout=REQUEST_SECONDS,
            **options,
        )
    except ApiException as error:
        metadata = manifest["metadata"]
        subject = f"{manifest['kind']} {metadata['namespace']}/{metadata['name']}"
        raise _refusal(error, subject) from error


def _refusal(error: Any, subject: str) -> DeploymentError:
    status = _status_body(error)
    message = str(status.get("message") or error.reason or "no reason given").strip()
    if error.status == 409 and (owners := _conflicts(status)):
        return DeploymentError(
            f"{subject} was not applied: other field managers own fields of it: {owners}.",
            hint="Remove these fields from one of the two sides, or apply with force to take "
            "them over.",
        )
    hints = {
        400: "Check the CRDs' generation: the API server does not know a field.",
        401: "Log in again: the credentials of the kubeconfig or the service account are refused.",
        403: "The identity needs get, create and patch on bentoes (resources.yatai.ai) and "
        "bentodeployments (serving.yatai.ai) in the namespace.",
        404: "Create the namespace first, and check that the CRDs are still installed.",
        422: "The API server names the field above.",
    }
    return DeploymentError(
        f"{subject} was refused ({error.status}): {message}",
        hint=hints.get(error.status, "Nothing is lost: applying again is safe."),
    )


def _conflicts(status: Mapping[str, Any]) -> str:
    """Name each owner with the fields it holds, from the causes of a 409."""
    owners: dict[str, list[str]] = {}
    for cause in (status.get("details") or {}).get("causes") or []:
        if cause.get("reason") != "FieldManagerConflict":
            continue
        told = str(cause.get("message") or "")
        owner = told.split('"')[1] if told.count('"') >= 2 else told
        owners.setdefault(owner, []).append(str(cause.get("field") or "?"))
    return "; ".join(f"{owner} owns {', '.join(fields)}" for owner, fields in owners.items())


def _status_body(error: Any) -> dict[str, Any]:
    try:
        body = json.loads(error.body or "")
    except (TypeError, ValueError):
        return {}
    return body if isinstance(body, dict) else {}


def _first_line(error: BaseException) -> str:
    reason = getattr(error, "reason", None) or error
    return (str(reason).splitlines() or [type(error).__name__])[0]
