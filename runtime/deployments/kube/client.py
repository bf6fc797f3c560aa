"""Which Kubernetes cluster is configured, and a client for it that is reached as kubectl's is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from kfp_bento.runtime.errors import DeploymentError
from kfp_bento.runtime.proxies import Proxy, parsed_proxy, proxy_for

PROXY_URL = "The kubeconfig's proxy-url"

_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


def cluster_configured() -> bool:
    """Say whether this process has a cluster to talk to.

    True inside a pod with a service account, and where a kubeconfig exists (`KUBECONFIG`, or
    `~/.kube/config`). Nothing is contacted.
    """
    return _inside_a_pod() or any(path.is_file() for path in _kubeconfigs())


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


def open_client(context: str) -> tuple[Any, Proxy | None]:
    """Give a client that discovers nothing and retries nothing by itself, and its proxy.

    Args:
        context: Context of the kubeconfig; the current one, or the pod's own, when empty.

    Raises:
        DeploymentError: No cluster is configured.
        InvalidInput: What names the proxy is no address of one.
    """
    from kubernetes import client as kubernetes_client
    from kubernetes import config, dynamic

    settings = kubernetes_client.Configuration()
    settings.retries = False
    named = ""
    try:
        if not context and not os.environ.get("KUBECONFIG") and _inside_a_pod():
            config.load_incluster_config(client_configuration=settings)
        else:
            # The client reads KUBECONFIG only once, when it is imported.
            files = os.pathsep.join(str(path) for path in _kubeconfigs())
            config.load_kube_config(
                config_file=files, context=context or None, client_configuration=settings
            )
            named = _proxy_url(files, context)
    except (config.ConfigException, OSError) as error:
        raise DeploymentError(
            f"No cluster is configured: {error}",
            hint="Set KUBECONFIG, run inside a pod with a service account, or only render.",
        ) from error
    proxy = _use_proxy(settings, named)
    api = kubernetes_client.ApiClient(settings)
    # Discovery of every group costs many requests and a shared cache file; `_plural` needs one.
    return dynamic.DynamicClient(api, discoverer=lambda client, cache: None), proxy


def _proxy_url(files: str, context: str) -> str:
    """Give `proxy-url` of the cluster that a context names, which the client does not read."""
    from kubernetes.config.kube_config import KubeConfigMerger

    merged = KubeConfigMerger(files).config
    chosen = merged["contexts"].get_with_name(context or merged["current-context"])["context"]
    cluster = merged["clusters"].get_with_name(chosen["cluster"])["cluster"]
    return str(cluster.safe_get("proxy-url") or "")


def _use_proxy(settings: Any, named: str) -> Proxy | None:
    """Reach the API server as kubectl does: by the kubeconfig's proxy, else by the environment's.

    What newer versions of the client find in the environment by rules of their own is overruled.
    """
    proxy = parsed_proxy(named, PROXY_URL) if named else proxy_for(str(settings.host))
    settings.proxy = proxy.address if proxy else None
    settings.proxy_headers = proxy.headers if proxy else None
    settings.no_proxy = None
    return proxy
