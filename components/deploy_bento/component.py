"""Deploy an image, or what a target serves instead, to one of four targets."""

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
def deploy_bento(
    manifests: dsl.Output[dsl.Artifact],
    release: dsl.Output[dsl.Artifact],
    diff: dsl.Output[dsl.Markdown],
    summary: dsl.Output[dsl.Markdown],
    metrics: dsl.Output[dsl.Metrics],
    task_config: dsl.TaskConfig,
    target: str = "bento-deployment",
    image: str = "",
    bento: dsl.Input[dsl.Artifact] = None,
    image_location: str = "",
    archive: str = "",
    mode: str = "auto",
    name: str = "",
    namespace: str = "",
    resources: dict = {},  # noqa: B006 - KFP wants the defaults in the signature
    autoscaling: dict = {},  # noqa: B006
    envs: list = [],  # noqa: B006
    image_pull_secrets: list = [],  # noqa: B006
    wait_seconds: int = 600,
    roll_back_on_failure: bool = True,
    force: bool = False,
    tolerated: list = [],  # noqa: B006
    unschedulable_seconds: int = 30,
    options: dict = {},  # noqa: B006
    after: dsl.Input[dsl.Artifact] = None,
    run: str = "",
    fail_at_once: bool = True,
) -> NamedTuple("Outputs", [("url", str), ("name", str), ("image", str)]):
    """Serve an image, and wait until it does: by Yatai, by KServe or as a plain Deployment.

    What it brings out is on trial until promote_model or confirm_release has kept it as the good
    one. Switch caching off for this step: it acts outside the pipeline. Resources, tolerations,
    node selector and affinity that are set on the task go to the served pods, not to the step's
    own; not so where the component was loaded from its YAML, since KFP's loader forgets that.

    Args:
        task_config: The settings of the task; KFP fills it in.
        target: bento-deployment (Yatai), bento-request (Yatai, which builds the image itself),
            inference-service (KServe) or workload (a Deployment and its Service).
        image: The image by digest, repository@sha256:...; empty where a stored model is served;
            for a bento-request where its builder pushes to, registry/repository (the tag is the
            bento's version) or registry/repository:tag, or empty.
        bento: The facts of the bento that the image was made of, or the bento; not needed for a
            stored model.
        image_location: Where the image's bytes are; needed for a local deployment only.
        archive: For a bento-request, the bento's archive in a bucket as export_bento gives it,
            s3://bucket/key or minio://bucket/key; this step presigns it for the builder.
        mode: apply (server-side apply), render (write the YAML only), local (start it on this
            machine), or auto: local where a local run offers it, else apply where a cluster is
            configured, else render.
        name: Name of the release and of its main object; empty takes the bento's name.
        namespace: Namespace of all its resources; empty takes that of the run.
        resources: Requests and limits, for example {"limits": {"cpu": "1", "memory": "1Gi"}}.
        autoscaling: For example {"minReplicas": 1, "maxReplicas": 3}.
        envs: Environment variables, [{"name": "LOG_LEVEL", "value": "info"}]; with valueFrom where
            the target can have them.
        image_pull_secrets: Names of image pull secrets in the namespace.
        wait_seconds: How long the release may take to serve, and as long again a roll back; 0
            applies it and does not wait.
        roll_back_on_failure: Restore the last good release when this one does not serve; where
            there was none of that name, take it away.
        force: Take over fields that another field manager owns.
        tolerated: Reasons of a wait that are no failure here, such as "DomainSuffix".
        unschedulable_seconds: How long the scheduler may find no node; more where an autoscaler
            has to bring one.
        options: All other options of the target, by name; another target's are refused.
        after: Reports that have to have passed, such as those of shift_requests; otherwise nothing
            is deployed, and this step fails with what they say.
        run: The pipeline run, by which settle_run finds what it has left on trial:
            dsl.PIPELINE_JOB_ID_PLACEHOLDER.
        fail_at_once: Fail where the release does not serve. Otherwise the step ends well, so that
            Kubeflow keeps what it found, and check_release and what follows it refuse the release.

    Returns:
        manifests: Directory with the rendered YAML, whatever the mode.
        release: The release as JSON, also in the artifact's metadata: target, name, namespace,
            revision, URL, image; for check_release.
        diff: What the release changes on the cluster, object by object.
        summary: The release: whether it serves, what changed, evidence of a failure.
        metrics: Seconds until it served, objects by what happened to them, rolled back or not.
        url: Where the release answers; empty when it was only rendered.
        name: Name of the release, for roll_back.
        image: The image by digest; what the cluster built, once pods run it.
    """
    from pathlib import Path

    from kfp_bento.runtime import bentos, deployments, promotion, reports

    promotion.require_passed(after)
    found = bentos.load_given_bento(bento, facts=True)
    rendered = deployments.render_for_task(
        target,
        image,
        found,
        {
            "archive": archive,
            "name": name,
            "namespace": deployments.own_namespace(namespace),
            "resources": resources,
            "autoscaling": autoscaling,
            "envs": envs,
            "image_pull_secrets": image_pull_secrets,
        },
        more=options,
        task_config=task_config,
    )
    deployed = deployments.deploy(
        rendered,
        Path(manifests.path),
        mode=mode,
        image_location=image_location,
        waiting=deployments.Waiting(
            wait_seconds,
            tolerated=tolerated,
            unschedulable=unschedulable_seconds,
            progress=reports.tell,
        ),
        roll_back_on_failure=roll_back_on_failure,
        run=run,
        force=force,
    )
    reports.write_deployment(
        deployed,
        Path(manifests.path),
        record=Path(release.path),
        facts=release.metadata,
        diff=Path(diff.path),
        summary=Path(summary.path),
        metrics=metrics.metadata,
        request=bentos.sample_request(found),
    )
    return deployed.results(fail_at_once=fail_at_once)
