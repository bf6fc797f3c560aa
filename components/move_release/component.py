"""Deploy the good release of one namespace to another one: nothing is built again."""

import os
from typing import NamedTuple

from kfp import dsl


@dsl.component(
    base_image=os.environ.get(
        "KFP_BENTO_IMAGE", "registry.example.com/kfp-bento/runtime-python:0.1.0"
    ),
    install_kfp_package=False,
)
def move_release(
    name: str,
    image: str,
    source_namespace: str,
    namespace: str,
    manifests: dsl.Output[dsl.Artifact],
    release: dsl.Output[dsl.Artifact],
    diff: dsl.Output[dsl.Markdown],
    summary: dsl.Output[dsl.Markdown],
    metrics: dsl.Output[dsl.Metrics],
    target: str = "bento-deployment",
    changes: dict = {},  # noqa: B006 - KFP wants the default in the signature
    wait_seconds: int = 600,
    roll_back_on_failure: bool = True,
    run: str = "",
    fail_at_once: bool = True,
) -> NamedTuple("Outputs", [("url", str), ("name", str), ("image", str)]):
    """Serve in one namespace, such as production, what was found good in another, such as staging.

    The same image by its digest, the same bento and options, but for those that are named. It is on
    trial there until promote_model or confirm_release has kept it. Switch caching off for this
    step: it acts outside the pipeline.

    Args:
        name: Name of the release, in both namespaces.
        image: The image that is meant, by digest; another one that is good there is refused.
        source_namespace: Where it was found good.
        namespace: Where it goes.
        target: bento-deployment, bento-request, inference-service or workload.
        changes: Options of the target that are others there, by name, for example {"resources":
            {"limits": {"cpu": "4"}}}.
        wait_seconds: How long the release may take to serve, and as long again a roll back.
        roll_back_on_failure: Restore the last good release there when this one does not serve.
        run: The pipeline run, by which settle_run finds what it has left on trial:
            dsl.PIPELINE_JOB_ID_PLACEHOLDER.
        fail_at_once: Fail where the release does not serve; see deploy_bento.

    Returns:
        manifests: Directory with the rendered YAML.
        release: The release as JSON, for check_release.
        diff: What it changes on the cluster, object by object.
        summary: The release: whether it serves, what changed, evidence of a failure.
        metrics: Seconds until it served, objects by what happened to them, rolled back or not.
        url: Where the release answers.
        name: Name of the release.
        image: The image by digest.
    """
    from pathlib import Path

    from kfp_bento.runtime import deployments, reports

    rendered = deployments.moved_release(
        name,
        target=target,
        source=source_namespace,
        namespace=namespace,
        image=image,
        changes=changes,
    )
    deployed = deployments.deploy(
        rendered,
        Path(manifests.path),
        mode="apply",
        waiting=deployments.Waiting(wait_seconds, progress=reports.tell),
        roll_back_on_failure=roll_back_on_failure,
        run=run,
    )
    reports.write_deployment(
        deployed,
        Path(manifests.path),
        record=Path(release.path),
        facts=release.metadata,
        diff=Path(diff.path),
        summary=Path(summary.path),
        metrics=metrics.metadata,
    )
    return deployed.results(fail_at_once=fail_at_once)
