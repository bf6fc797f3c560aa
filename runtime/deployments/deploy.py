"""Deploying: render always, then apply, start locally or leave it at that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kfp_bento.runtime.errors import DeploymentError, InvalidInput

from .apply import apply_manifests
from .bento_deployment import TARGET, bento_deployment_of, render_bento_deployment, service_url
from .cluster import cluster_configured
from .local_target import VARIABLE, local_target, start_locally
from .manifests import write_manifests
from .release import Release

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from kfp_bento.runtime.bentos import Bento

    from .settings import Envs

MODES = ("auto", "apply", "render", "local")


def deploy_bento(
    image: str,
    bento: Bento,
    directory: Path,
    *,
    mode: str = "auto",
    image_location: str = "",
    context: str = "",
    force: bool = False,
    name: str = "",
    namespace: str = "default",
    resources: Mapping[str, Any] | None = None,
    autoscaling: Mapping[str, Any] | None = None,
    envs: Envs | None = None,
    runners: Sequence[Mapping[str, Any]] | None = None,
    image_pull_secrets: Sequence[str] = (),
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    service_account: str = "",
) -> Release:
    """Deploy an image of a bento as a Yatai BentoDeployment and say where it answers.

    The manifests are written to `directory` whatever the mode. An applied release was
    taken by the API server; whether its pods are ready is another question.

    Args:
        image: Image reference by digest.
        bento: The bento inside the image.
        directory: Where the manifests go.
        mode: `apply` (to the configured cluster), `render` (files only), `local` (start the
            image on this machine through the server that `KFP_BENTO_LOCAL_TARGET` names) or
            `auto`: local when that variable is set, else apply when a cluster is configured
            and the image is in a registry, else render.
        image_location: Where the image lies, `oci:DIRECTORY` or `docker://...`.
        context: Context of the kubeconfig.
        force: Take over fields that another field manager owns.
        name: See `render_bento_deployment`, as for all that follow.
        namespace: Namespace of both resources.
        resources: Requests and limits.
        autoscaling: Replicas and metrics.
        envs: Literal environment variables.
        runners: Overrides for the runners of an old-style bento.
        image_pull_secrets: Names of registry Secrets.
        labels: Labels for resources and pods.
        annotations: Annotations; `yatai.ai/...` switches steer the operator.
        service_account: ServiceAccount of the pods.

    Returns:
        The release; its `url` is empty when it was only rendered.

    Raises:
        InvalidInput: An argument that cannot be honoured.
        DeploymentError: The cluster or the local target refused or does not answer.
    """
    chosen = choose_mode(mode, image_location)
    manifests = render_bento_deployment(
        image,
        bento,
        name=name,
        namespace=namespace,
        resources=resources,
        autoscaling=autoscaling,
        envs=envs,
        runners=runners,
        image_pull_secrets=image_pull_secrets,
        labels=labels,
        annotations=annotations,
        service_account=service_account,
    )
    write_manifests(manifests, directory)
    url = ""
    if chosen == "local":
        url = start_locally(
            local_target(),
            manifests,
            image=image,
            image_location=image_location,
            bento_directory=bento.directory,
        )
    elif chosen == "apply":
        apply_manifests(manifests, context=context, force=force)
        url = service_url(manifests)
    return Release(
        target=TARGET,
        mode={"apply": "applied", "render": "rendered", "local": "local"}[chosen],
        name=bento_deployment_of(manifests)["metadata"]["name"],
        namespace=namespace,
        revision=bento.version,
        url=url,
        image=image,
        bento_tag=bento.tag,
    )


def choose_mode(mode: str, image_location: str = "") -> str:
    """Give the mode that `auto` stands for here, or the wanted one if it can work.

    Raises:
        InvalidInput: No such mode, or `local` without a local target.
        DeploymentError: `apply` of an image that lies in a directory of this machine.
    """
    if mode not in MODES:
        raise InvalidInput(f"mode: {mode!r} is no mode.", hint=f"One of {', '.join(MODES)}.")
    in_a_directory = image_location.startswith("oci:")
    if mode == "auto":
        if local_target():
            return "local"
        return "apply" if cluster_configured() and not in_a_directory else "render"
    if mode == "local" and not local_target():
        raise InvalidInput(
            f"mode: 'local' needs {VARIABLE}, which a local run sets.",
            hint="Use `kfp-bento run` or `kfp-bento demo`, or another mode.",
        )
    if mode == "apply" and in_a_directory:
        raise DeploymentError(
            f"No cluster can pull the image from {image_location}: it is a directory here.",
            hint="Build the image to a registry, or use mode 'render'.",
        )
    return mode
