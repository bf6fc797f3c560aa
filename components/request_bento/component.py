"""Let the cluster build a bento's image, and serve it."""

import os
from typing import NamedTuple

from kfp import dsl


@dsl.component(
    base_image=os.environ.get(
        "KFP_BENTO_IMAGE", "registry.example.com/kfp-bento/runtime-python:0.1.0"
    ),
    install_kfp_package=False,
    task_config_passthroughs=[
        dsl.TaskConfigField.RESOURCES,
        dsl.TaskConfigField.KUBERNETES_TOLERATIONS,
        dsl.TaskConfigField.KUBERNETES_NODE_SELECTOR,
        dsl.TaskConfigField.KUBERNETES_AFFINITY,
        # Not listed, KFP would refuse a task with variables or a mounted kubeconfig.
        dsl.TaskConfigPassthrough(dsl.TaskConfigField.ENV, apply_to_task=True),
        dsl.TaskConfigPassthrough(dsl.TaskConfigField.KUBERNETES_VOLUMES, apply_to_task=True),
    ],
)
def request_bento(
    bento: dsl.Input[dsl.Model],
    archive_url: str,
    manifests: dsl.Output[dsl.Artifact],
    record: dsl.Output[dsl.Artifact],
    diff: dsl.Output[dsl.Markdown],
    summary: dsl.Output[dsl.Markdown],
    metrics: dsl.Output[dsl.Metrics],
    task_config: dsl.TaskConfig,
    image: str = "",
    mode: str = "auto",
    name: str = "",
    namespace: str = "default",
    registry_secret: str = "",
    build_timeout: str = "",
    download_env_from: list = [],  # noqa: B006 - KFP wants the defaults in the signature
    resources: dict = {},  # noqa: B006
    autoscaling: dict = {},  # noqa: B006
    envs: list = [],  # noqa: B006
    wait_seconds: int = 600,
    roll_back_on_failure: bool = True,
    force: bool = False,
    tolerated: list = [],  # noqa: B006
    unschedulable_seconds: int = 30,
    options: dict = {},  # noqa: B006
) -> NamedTuple("Outputs", [("url", str), ("name", str), ("image", str)]):
    """Ask Yatai's image builder for a bento's image, serve it, and wait until it does.

    Switch caching off for this step: it acts outside the pipeline. Resources, tolerations, node
    selector and affinity that are set on the task go to the served pods, not to the step's own;
    not so where the component was loaded from its YAML, since KFP's loader forgets that.

    Args:
        bento: The bento directory that the archive was made of.
        archive_url: Where the builder gets the bento: an https, http or s3 URL of a tar archive.
            KFP shows parameters to everybody: no password in it, rather s3 with download_env_from.
        manifests: Directory with the rendered YAML, whatever the mode.
        record: JSON record of the release: name, namespace, revision, URL, image.
        diff: What the release changes on the cluster, object by object.
        summary: The release: whether it serves, what changed, evidence of a failure.
        metrics: Seconds until it served, objects by what happened to them, rolled back or not.
        task_config: The settings of the task; KFP fills it in.
        image: Where the builder pushes to, registry/repository:tag; empty takes what its own
            registry settings give.
        mode: apply (server-side apply), render (write the YAML only), or auto: apply where a
            cluster is configured, else render.
        name: Name of the BentoDeployment; empty takes the bento's name.
        namespace: Namespace of all its resources.
        registry_secret: Secret with .dockerconfigjson that may push; the image is then needed.
        build_timeout: Such as "30m"; empty takes the builder's own. The wait has to be longer.
        download_env_from: Names of Secrets that the downloader gets as variables, for s3 URLs.
        resources: Requests and limits, for example {"limits": {"cpu": "1", "memory": "1Gi"}}.
        autoscaling: For example {"minReplicas": 1, "maxReplicas": 3}.
        envs: Literal environment variables, [{"name": "LOG_LEVEL", "value": "info"}].
        wait_seconds: How long the release may take to serve, and as long again a roll back; 0
            applies it and does not wait.
        roll_back_on_failure: Restore the last good release when this one does not serve.
        force: Take over fields that another field manager owns.
        tolerated: Reasons of a wait that are no failure here, such as "DomainSuffix".
        unschedulable_seconds: How long the scheduler may find no node; more where an autoscaler
            has to bring one.
        options: All other options of the target bento-request, by name.

    Returns:
        url: Where the release answers; empty when it was only rendered.
        name: Name of the release, for roll_back.
        image: What the cluster built, by digest once pods run it.
    """
    from pathlib import Path

    from kfp_bento.runtime import bentos, deployments, reports

    found = bentos.load_given_bento(bento)
    release = deployments.render_for_task(
        "bento-request",
        image,
        found,
        {
            "archive_url": archive_url,
            "registry_secret": registry_secret,
            "build_timeout": build_timeout,
            "download_env_from": download_env_from,
            "name": name,
            "namespace": namespace,
            "resources": resources,
            "autoscaling": autoscaling,
            "envs": envs,
        },
        more=options,
        task_config=task_config,
    )
    deployed = deployments.deploy(
        release,
        Path(manifests.path),
        mode=mode,
        waiting=deployments.Waiting(
            wait_seconds,
            tolerated=tolerated,
            unschedulable=unschedulable_seconds,
            progress=reports.tell,
        ),
        roll_back_on_failure=roll_back_on_failure,
        force=force,
    )
    reports.write_deployment(
        deployed,
        Path(manifests.path),
        record=Path(record.path),
        diff=Path(diff.path),
        summary=Path(summary.path),
        metrics=metrics.metadata,
        request=bentos.sample_request(found),
    )
    deployed.raise_if_failed()
    return (deployed.url, deployed.release.name, deployed.image)
